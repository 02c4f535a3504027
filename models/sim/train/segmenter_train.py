r"""Trains the segmenter on rendered and procedural images.

    python segmenter_train.py --frames DIR --out runs/segmenter --minutes 20

The learning rate follows a cosine over a wall-clock budget, so a run always ends finished, however fast the machine. Every
``--save-minutes`` the averaged weights are written as float16 to ``OUT/segmenter_ema.pt`` (what export_segmenter.py reads) and
the whole state to ``--state``; a run that finds its state goes on where it stopped. SIGTERM saves and ends.
Without ``--frames`` it trains on procedural images alone; shards that appear later are picked up.

On a GPU the defaults do. One CPU thread needs cheaper steps (a ring of procedural images, few second rounds, small images first):

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=4000000000 \
    python segmenter_train.py --frames DIR --out runs/segmenter --minutes 180 --threads 1 --bf16 --batch 8 --prompts 6 \
        --lr 1.1e-3 --small-part 0.8 --again 0.12 --ring 1200 --rendered 0.72 --strength 0.45 --average 0.996 --max-frames 9000

``--init segmenter_ema.pt`` starts from weights that are there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import segmenter_prompts as prompts_of
from muon import optimisers
from segmenter_data import Frames, Images
from segmenter_model import Segmenter, SegmenterConfig
from segmenter_world2d import IDS


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, action="append", default=[], help="folder of .npz shards (may be repeated)")
    parser.add_argument("--val", type=Path, action="append", default=[], help="folder of held-out shards for the running measure")
    parser.add_argument("--out", type=Path, default=Path("runs/segmenter"))
    parser.add_argument("--state", type=Path, help="whole training state (default: OUT/segmenter_state.pt)")
    parser.add_argument("--init", type=Path, help="weights to start from (a segmenter_ema.pt)")
    parser.add_argument("--minutes", type=float, default=20.0, help="wall-clock budget of the whole schedule")
    parser.add_argument("--save-minutes", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=48, help="images a step")
    parser.add_argument("--prompts", type=int, default=12, help="prompts an image")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--small-size", type=int, default=192, help="input size of the first part of the schedule")
    parser.add_argument("--small-part", type=float, default=0.0, help="that part's share of the schedule")
    parser.add_argument("--again", type=float, default=1.0, help="share of steps with a second, corrected round of prompts")
    parser.add_argument("--ring", type=int, default=0, help="procedural images kept for reuse (0: all drawn anew)")
    parser.add_argument("--rendered", type=float, default=0.5, help="with --ring: share of rendered frames in a batch")
    parser.add_argument("--whole", type=float, default=0.5, help="with --ring: share of rendered frames that are shown whole, not as a crop")
    parser.add_argument("--strength", type=float, default=1.0, help="of what a camera does to pictures, and of repainting")
    parser.add_argument("--average", type=float, default=0.9985, help="decay of the averaged weights")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 on a CPU too (pays where it has AVX-512 BF16 or AMX)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: all)")
    parser.add_argument("--warm-steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--muon", action="store_true", help="Muon for the convolutions (muon.py), AdamW for the rest")
    parser.add_argument("--keep-norms", action="store_true", help="the batch norms' means and variances stay as they are (small batches)")
    parser.add_argument("--decay", type=float, default=0.03)
    parser.add_argument("--max-frames", type=int, default=40000)
    parser.add_argument("--wait-frames", type=int, default=0, help="do not start before so many frames are loaded")
    parser.add_argument("--compile", action="store_true", help="torch.compile the encoder and the loss")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


class Average:
    """Exponential moving average of weights and buffers."""

    def __init__(self, model: Segmenter, decay: float = 0.9985):
        self.decay = decay
        self.state = {k: v.detach().clone().float() if v.is_floating_point() else v.clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: Segmenter, step: int) -> None:
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        current = model.state_dict()
        names = [k for k, v in self.state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.state[k] for k in names], [current[k].float() for k in names], rate)

    def half(self) -> dict[str, Tensor]:
        return {k: (v.half() if v.is_floating_point() else v).cpu() for k, v in self.state.items()}


def write_atomically(value: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    os.replace(partial, path)


def accumulate(model: Segmenter, batch: tuple[Tensor, Tensor, Tensor], each: int, loss_of, amp: bool, again: float) -> dict[str, Tensor]:
    """Gradients of one or two rounds of prompts: as given, then with a correcting point and, mostly, the first round's mask.

    Each round runs backwards down to the embeddings at once, so that only one round's activations are ever held. ``again`` is
    the share of steps with a second round; if it is below 1, the first round of such a step only makes its masks.
    """
    rgb, maps, valid = batch
    device = rgb.device
    asked = prompts_of.make(maps, valid, each, IDS)
    few = valid[:, :, ::2, ::2]
    pixels = (model.normalise(rgb) * valid).contiguous(memory_format=torch.channels_last)
    count = len(asked.image)
    second = bool(torch.rand(()) < again)
    learn_first = again >= 1 or not second
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
        encoded = model.image_encoder(pixels)
        embeddings = encoded.detach().requires_grad_()
        side = model.cfg.size // 2
        nothing = torch.zeros(1, 1, side, side, device=device)
        with torch.set_grad_enabled(learn_first):
            low, iou = model.decode(embeddings, asked.coords, asked.labels, nothing, torch.zeros(1, device=device), each)
    low = low.float()
    with torch.set_grad_enabled(learn_first):
        value, parts = loss_of(low, iou, asked, few)
    if learn_first:
        value.backward()
    if second:
        with torch.no_grad():
            best = torch.where(asked.single, 1 + iou[:, 1:].argmax(1), 0)
            chosen = low.detach()[torch.arange(count, device=device), best].unsqueeze(1)
            corrected = prompts_of.correct(asked, chosen)
            has_mask = (torch.rand(count, device=device) < 0.7).float()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            low, iou = model.decode(embeddings, corrected.coords, corrected.labels, chosen.clamp(-20, 20), has_mask, each)
        more, after = loss_of(low.float(), iou, corrected, few)
        more.backward()
        parts["iou_2"] = after["iou"]
    encoded.backward(embeddings.grad)
    parts["loss"] = value.detach()
    return parts


@torch.no_grad()
def measure(average: Average, cfg: SegmenterConfig, batches: list, each: int, amp: bool, device: torch.device) -> dict[str, float]:
    """Mean IoU of the averaged weights on fixed held-out batches, by kind of prompt."""
    model = Segmenter(cfg).to(device).eval()
    model.load_state_dict({k: v for k, v in average.state.items()})
    random_state = torch.get_rng_state(), torch.cuda.get_rng_state() if device.type == "cuda" else None
    torch.manual_seed(7)
    sums: dict[str, list[Tensor]] = {}
    for rgb, maps, valid in batches:
        asked = prompts_of.make(maps, valid, each, IDS)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            embeddings = model.image_encoder(model.normalise(rgb) * valid)
            side = cfg.size // 2
            nothing = torch.zeros(1, 1, side, side, device=device)
            low, iou = model.decode(embeddings, asked.coords, asked.labels, nothing, torch.zeros(1, device=device), each)
        true = prompts_of.true_iou(low, asked, valid[:, :, ::2, ::2])
        filled = (asked.target >= 0.5).flatten(1).any(1)
        boxed, pointed = (asked.labels == 2).any(1), (asked.labels == 1).any(1)
        chosen = true.gather(1, 1 + iou[:, 1:].argmax(1, keepdim=True)).squeeze(1)
        for name, rows, value in (
            ("box", boxed & ~pointed, true[:, 0]), ("box_points", boxed & pointed, true[:, 0]),
            ("points", ~boxed & ~asked.single, true[:, 0]), ("point", asked.single, true[:, 0]), ("point_multi", asked.single, chosen),
            ("iou_error", filled, (iou.float()[:, 0] - true[:, 0]).abs()),
        ):  # fmt: skip
            sums.setdefault(name, []).append(value[rows & filled])
    torch.set_rng_state(random_state[0])
    if random_state[1] is not None:
        torch.cuda.set_rng_state(random_state[1])
    return {k: round(float(torch.cat(v).mean()), 4) for k, v in sums.items()}


def main() -> None:
    args = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    amp = gpu or args.bf16
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    args.out.mkdir(parents=True, exist_ok=True)
    state_path = args.state or args.out / "segmenter_state.pt"
    stop = {"now": False}
    signal.signal(signal.SIGTERM, lambda *_: stop.update(now=True))

    final = SegmenterConfig(size=args.size)
    model = Segmenter(replace(final)).to(device)
    if args.init:
        stored = torch.load(args.init, map_location=device, weights_only=True)
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored["model"].items()}, strict=False)
    model = model.to(memory_format=torch.channels_last)
    if args.keep_norms:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    learners = optimisers(model, args.lr, args.decay, args.muon)
    average = Average(model, args.average)
    step, spent = 0, 0.0
    if state_path.exists():
        saved = torch.load(state_path, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        for learner, its_state in zip(learners, saved["optimisers"], strict=True):
            learner.load_state_dict(its_state)
        average.state = {k: v.to(device) for k, v in saved["average"].items()}
        step, spent = saved["step"], saved["spent"]
        print(f"resumed at step {step}, {spent / 60:.1f} minutes into the schedule", flush=True)

    frames = Frames(args.frames, device, args.max_frames) if args.frames else None
    while frames is not None and frames.count < args.wait_frames and not stop["now"]:
        time.sleep(2)
    held_out = Frames(args.val, device, 512) if args.val else None
    while held_out is not None and held_out.count == 0 and not stop["now"]:
        time.sleep(1)
    images = Images(frames, args.size, device, args.ring, args.rendered, args.strength, args.whole)
    torch.manual_seed(99)
    probe = [Images(held_out, args.size, device).batch(32 if gpu else 8) for _ in range(4 if gpu else 1)]
    torch.manual_seed(args.seed + 1000 * step + int(spent))
    loss_of = prompts_of.loss
    if args.compile:
        model.image_encoder.compile()
        loss_of = torch.compile(prompts_of.loss)

    budget = args.minutes * 60
    begin, saved_at, told_at, told_step = time.monotonic() - spent, spent, spent, step
    log = (args.out / "segmenter_log.jsonl").open("a")
    running: dict[str, Tensor] = {}
    skipped = 0
    while True:
        elapsed = time.monotonic() - begin
        progress = min(1.0, elapsed / budget)
        ending = progress >= 1.0 or stop["now"]
        if ending or elapsed - saved_at > args.save_minutes * 60:
            saved_at = elapsed
            write_atomically({"config": final.as_dict(), "model": average.half(), "step": step}, args.out / "segmenter_ema.pt")
            write_atomically(
                {
                    "model": model.state_dict(), "optimisers": [o.state_dict() for o in learners], "average": average.state,
                    "step": step, "spent": elapsed,
                },
                state_path,
            )  # fmt: skip
            held = measure(average, final, probe, args.prompts, amp, device)
            print(f"held out at {elapsed / 60:.1f} min, step {step}: {held}", flush=True)
            log.write(json.dumps({"minutes": round(elapsed / 60, 2), "step": step, "held_out": held}) + "\n")
            log.flush()
        if ending:
            break

        size = args.small_size if progress < args.small_part else args.size
        if model.cfg.size != size:
            model.resize(size)
            images.size = size
            print(f"step {step}: input size {size}", flush=True)
        warm = min(1.0, (step + 1) / args.warm_steps)
        rate = args.lr * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for learner in learners:
            learner.zero_grad(set_to_none=True)
            for group in learner.param_groups:
                group["lr"] = rate
        parts = accumulate(model, images.batch(args.batch), args.prompts, loss_of, amp, args.again)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        if step % 20 == 0 and not torch.isfinite(norm):
            skipped += 1
            print(f"step {step}: gradient is not finite ({skipped})", flush=True)
        # A broken step must not reach the weights; the test stays on the device.
        scale = torch.where(torch.isfinite(norm), 1.0, 0.0)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = torch.where(scale > 0, parameter.grad, torch.zeros_like(parameter.grad))
        for learner in learners:
            learner.step()
        step += 1
        average.update(model, step)
        for name, value in parts.items():
            running[name] = running.get(name, 0.0) * 0.95 + value.float() * 0.05 if name in running else value.float()

        elapsed = time.monotonic() - begin
        if elapsed - told_at > (15 if gpu else 60):
            line = {k: round(float(v), 4) for k, v in running.items()}
            pace = (step - told_step) / (elapsed - told_at)
            memory = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
            print(
                f"{elapsed / 60:6.2f} min step {step} lr {rate:.2e} {pace * args.batch:.0f} images/s"
                f" {pace * args.batch * args.prompts:.0f} prompts/s frames {frames.count if frames else 0} {memory:.1f} GiB {line}",
                flush=True,
            )
            log.write(json.dumps({"minutes": round(elapsed / 60, 2), "step": step, "lr": rate, **line}) + "\n")
            told_at, told_step = elapsed, step
    if frames is not None:
        frames.close()
    print(f"ended at step {step}", flush=True)


if __name__ == "__main__":
    main()
