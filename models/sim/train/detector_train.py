#!/usr/bin/env python3
"""Train the detector for a wall-clock budget, on a GPU or (slowly) on a CPU.

    python models/sim/train/detector_train.py --data SHARDS --minutes 20 --out OUT

The learning rate follows the share of the budget that is used up, so a run always ends
with a finished schedule. Time is counted from the first step and carried through
restarts: the same command goes on from OUT/state/detector_state.pt if it exists.
Every few minutes OUT/detector_ema.pt (averaged weights, float16) is rewritten.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from detector_data import FrameStore, Views  # noqa: E402
from detector_loss import PhraseBank, detector_loss  # noqa: E402
from detector_model import HEIGHT, WIDTH, Detector, cell_centres  # noqa: E402
from detector_quick import quick_ap  # noqa: E402
from detector_views import CpuViews  # noqa: E402
from muon import optimisers  # noqa: E402
from team import Team, run_team  # noqa: E402


class Average:
    """Exponential moving average of all floating-point parameters and buffers."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {k: v.detach().clone() for k, v in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = net.state_dict()
        mine = [v for v in self.state.values() if v.is_floating_point()]
        theirs = [current[k] for k, v in self.state.items() if v.is_floating_point()]
        torch._foreach_lerp_(mine, theirs, share)


def rate_at(progress: float, peak: float, warmup: float = 0.03) -> float:
    """Learning rate after this share of the budget: linear warm-up, cosine to 1 % of the peak."""
    if progress < warmup:
        return peak * (0.02 + 0.98 * progress / warmup)
    t = min(1.0, (progress - warmup) / (1 - warmup))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t)))


def same_statistics(weights: dict[str, torch.Tensor], bank: PhraseBank, text: Path) -> None:
    """Ends with an error where the weights standardise phrases otherwise than the features they are to be trained with."""
    for name, expected in (("mean", bank.mean), ("std", bank.std)):
        found, expected = weights[f"text.{name}"].float(), expected.to(weights[f"text.{name}"].device)
        # Averaged weights are float16, which is within 2^-11 of a value, or 2^-25 where that is small.
        if not bool(((found - expected).abs() <= expected.abs() * 2**-10 + 1e-6).all()):
            worst = float((found - expected).abs().max())
            raise SystemExit(
                f"{text} is of another text encoder or of other phrases than the weights: expected the same {name} of the "
                f"features, found differences up to {worst:.2g}; give the features that they were trained with by --text"
            )


class Run:
    """Everything that is saved and restored."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.args, self.device = args, device
        self.bank = PhraseBank(args.text, device, args.seed)
        self.net = Detector().to(device)
        self.net = self.net.to(memory_format=torch.channels_last)
        self.net.text.mean.copy_(self.bank.mean)
        self.net.text.std.copy_(self.bank.std)
        self.optimisers = optimisers(self.net, args.rate, args.weight_decay, args.muon)
        self.average = Average(self.net, args.average)
        self.used, self.steps, self.images = 0.0, 0, 0
        self.state_path = (args.state or args.out / "state") / "detector_state.pt"

    def restore(self) -> None:
        if self.state_path.is_file():
            s = torch.load(self.state_path, map_location=self.device, weights_only=True)
            same_statistics(s["net"], self.bank, self.args.text)
            self.net.load_state_dict(s["net"])
            for optimiser, state in zip(self.optimisers, s["optimisers"], strict=True):
                optimiser.load_state_dict(state)
            self.average.state, self.average.steps = s["ema"], s["steps"]
            self.used, self.steps, self.images = s["used"], s["steps"], s["images"]
        elif self.args.init:
            s = torch.load(self.args.init, map_location=self.device, weights_only=True)
            same_statistics(s["ema"], self.bank, self.args.text)
            self.net.load_state_dict(s["ema"])
            self.average = Average(self.net, self.args.average)
            self.images = s["images"]
            print(f"a new schedule from weights that have seen {self.images} images", flush=True)
            return
        else:
            return
        print(f"going on after {self.used / 60:.1f} minutes, {self.steps} steps", flush=True)

    def save(self) -> None:
        """Averaged weights as float16, and the full state; both replaced at once."""
        count = {"used": self.used, "steps": self.steps, "images": self.images}
        ema = {k: v.half().cpu() if v.is_floating_point() else v.cpu() for k, v in self.average.state.items()}
        full = {"net": self.net.state_dict(), "optimisers": [o.state_dict() for o in self.optimisers], "ema": self.average.state, **count}
        for path, value in ((self.args.out / "detector_ema.pt", {"ema": ema, **count}), (self.state_path, full)):
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(value, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)

    def averaged(self) -> Detector:
        net = Detector().to(self.device)
        net.load_state_dict(self.average.state)
        return net.eval()


def compiled_cells(net: Detector, images: torch.Tensor):
    """`net.cells`, compiled where that works (tried on these images); otherwise as it is."""
    try:
        cells = torch.compile(net.cells, dynamic=False)
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            outputs = cells(images)
        sum(v.float().square().mean() for v in outputs).backward()
        return cells
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways, and none of them matters
        print(f"not compiled: {type(error).__name__}: {error}"[:500], flush=True)
        return net.cells
    finally:
        net.zero_grad(set_to_none=True)


def watch_folder(store: FrameStore, stop: threading.Event, period: float) -> None:
    """Load shards that appear while training."""
    while not stop.wait(period):
        store.load_new()


def train(args: argparse.Namespace, team: Team) -> None:
    begun = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    torch.manual_seed(args.seed)  # the same weights in each process of a team
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args, device)
    run.restore()
    leads, seed = team.rank == 0, args.seed + run.steps + 1_000_003 * team.rank
    run.bank.rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    cpu = device.type == "cpu"
    if cpu:
        torch.set_num_threads(args.threads)
    store = FrameStore(args.data, device, args.max_frames, 1 if cpu else 8, 1 if cpu else 3, (team.rank, team.size))
    print(f"{store.load_new()} frames after {time.monotonic() - begun:.0f} s", flush=True)
    if not store.count:
        raise SystemExit(f"no shard of {args.data} falls to process {team.rank} of {team.size}: give fewer --processes or more shards")
    check = None
    if args.val and leads:
        check = FrameStore(args.val, device, args.val_frames, 1, 1)
        check.load_new()
    stop = threading.Event()
    if args.rescan > 0:
        watcher = threading.Thread(target=watch_folder, args=(store, stop, args.rescan), name="shard-watch", daemon=True)
        watcher.start()
    views = CpuViews(store, seed, args.damage, args.whole) if cpu else Views(store, seed)
    small = (args.small[0], args.small[1]) if cpu else (WIDTH, HEIGHT)
    cells_of = {size: tuple(v.to(device) for v in cell_centres(*size)) for size in (small, (WIDTH, HEIGHT))}
    budget = args.minutes * 60
    log = open(args.out / "detector_log.jsonl", "a", encoding="utf-8")
    run.net.train()
    cells = run.net.cells
    if device.type == "cuda" and not args.no_compile:
        images = views.batch(args.batch, args.tiles, args.frames).images
        cells = compiled_cells(run.net, images.contiguous(memory_format=torch.channels_last))
        print(f"ready to train after {time.monotonic() - begun:.0f} s", flush=True)
    sums: dict[str, torch.Tensor] = {}
    last, window_images, window_start = None, 0, time.monotonic()
    saved = checked = time.monotonic()
    spent = at_start = run.used
    while spent < budget:
        progress = spent / budget
        for optimiser in run.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate_at(progress, args.rate)
        late = progress > args.plain_after
        size = small if progress < args.small_until else (WIDTH, HEIGHT)
        tiles = min(args.tiles, 0.12) if late else args.tiles
        if cpu:
            batch = views.batch(args.batch, tiles, *size)
        else:
            batch = views.batch(args.batch, tiles, min(args.frames, 0.06) if late else args.frames)
        phrases = run.bank.draw(args.plain, args.coloured, args.absent)
        images = batch.images
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=not args.no_bf16):
            outputs = cells(images)
        loss, parts = detector_loss(run.net, outputs, phrases, batch, *cells_of[size])
        run.net.zero_grad(set_to_none=True)
        loss.backward()
        # The time too, so that all follow one schedule and end at the same step.
        run.used = spent = team.average([p.grad for p in run.net.parameters() if p.grad is not None], run.used)
        norm = nn.utils.clip_grad_norm_(run.net.parameters(), 5.0)
        # A broken step (overflow) is left out, without waiting for the device.
        ok = torch.isfinite(norm)
        for p in run.net.parameters():
            if p.grad is not None:
                p.grad.copy_(torch.where(ok, p.grad, 0.0))
        for optimiser in run.optimisers:
            optimiser.step()
        run.average.update(run.net)
        for k, v in {"loss": loss.detach(), "norm": norm, **parts}.items():
            sums[k] = sums.get(k, 0) + torch.where(torch.isfinite(v), v, 0.0)
        run.steps += 1
        run.images += args.batch * team.size
        window_images += args.batch * team.size
        if leads and run.steps % args.log_every == 0:
            shown = {k: round(float(v) / args.log_every, 4) for k, v in sums.items()}  # waits for the device
            now = time.monotonic()
            shown |= {"step": run.steps, "minutes": round(run.used / 60, 2), "frames": store.count}
            shown |= {"images_per_s": round(window_images / (now - window_start), 1)}
            if device.type == "cuda":
                shown["gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
            print(json.dumps(shown), flush=True)
            log.write(json.dumps(shown) + "\n")
            log.flush()
            sums, window_images, window_start = {}, 0, now
        now = time.monotonic()
        if last is not None:  # the first step's compilation does not count
            run.used += now - last
        last = now
        if leads and now - saved > args.save_every:
            run.save()
            saved = time.monotonic()
        if check is not None and now - checked > args.check_every:
            result = quick_ap(run.averaged(), run.bank.own_names(), check, args.val_frames)
            print(json.dumps({"step": run.steps, **result}), flush=True)
            checked = last = window_start = time.monotonic()
        if args.stop_after and spent - at_start > args.stop_after * 60:
            print("stopped by --stop-after; run again to go on", flush=True)
            break
    stop.set()
    if not leads:
        return
    run.save()
    if check is not None:
        print(json.dumps({"step": run.steps, **quick_ap(run.averaged(), run.bank.own_names(), check, args.val_frames)}), flush=True)
    print(f"{run.steps} steps, {run.images} images, {run.used / 60:.1f} of {args.minutes} minutes", flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, required=True, help="folder of training shards (.npz)")
    p.add_argument("--val", type=Path, help="folder of shards for a quick AP while training")
    p.add_argument("--text", type=Path, default=HERE.parent / "runs" / "text_features.npz")
    p.add_argument("--out", type=Path, default=HERE.parent / "runs" / "detector")
    p.add_argument("--state", type=Path, help="folder of the full state (75 MB), default OUT/state")
    p.add_argument("--init", type=Path, help="start a new schedule from these averaged weights")
    p.add_argument("--minutes", type=float, default=20.0, help="wall-clock budget of the whole schedule")
    p.add_argument("--stop-after", type=float, default=0.0, help="leave after so many minutes; the state is kept")
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--rate", type=float, default=1.5e-3)
    p.add_argument("--muon", action="store_true", help="Muon for the convolutions (muon.py), AdamW for the rest")
    p.add_argument("--weight-decay", type=float, default=0.03)
    p.add_argument("--max-frames", type=int, default=61440)
    p.add_argument("--val-frames", type=int, default=256)
    p.add_argument("--rescan", type=float, default=30.0, help="seconds between looks for new shards, 0: never")
    p.add_argument("--tiles", type=float, default=0.25, help="share of mosaics of single objects")
    p.add_argument("--frames", type=float, default=0.15, help="share of mosaics of whole frames")
    p.add_argument("--plain-after", type=float, default=0.85, help="share of the budget after which mosaics become rare")
    p.add_argument("--plain", type=int, default=3, help="phrases without colour per category and step")
    p.add_argument("--coloured", type=int, default=4, help="phrases with colour per category and step")
    p.add_argument("--absent", type=int, default=40, help="phrases for absent things per step")
    p.add_argument("--save-every", type=float, default=150.0, help="seconds")
    p.add_argument("--check-every", type=float, default=180.0, help="seconds")
    p.add_argument("--log-every", type=int, default=50, help="steps")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--cpu", action="store_true")
    p.add_argument("--no-bf16", action="store_true", help="float32 throughout, for processors without bfloat16")
    p.add_argument("--threads", type=int, default=1, help="on a CPU; also set OMP_WAIT_POLICY=PASSIVE")
    p.add_argument("--small", type=int, nargs=2, default=(256, 192), help="on a CPU: size of the first, cheaper part of the schedule")
    p.add_argument("--small-until", type=float, default=0.0, help="on a CPU: share of the budget with the small size")
    p.add_argument("--damage", type=float, default=1.0, help="on a CPU: how often pictures are cut out, blurred or noisy; 1 is often")
    p.add_argument("--whole", type=float, default=0.3, help="on a CPU: share of frames shown whole, not as a crop")
    p.add_argument("--average", type=float, default=0.9993, help="decay of the averaged weights per step")
    p.add_argument("--no-compile", action="store_true")
    p.add_argument("--processes", type=int, default=1, help="on a CPU: so many with a core each, each on its part of the shards")
    args = p.parse_args()
    if args.processes > 1 and not args.cpu:
        p.error("--processes is for training on a CPU: give --cpu as well")
    run_team(args.processes, train, args)


if __name__ == "__main__":
    main()
