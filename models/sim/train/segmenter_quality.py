#!/usr/bin/env python3
"""Fits what the segmenter says of its own masks: their predicted IoU. The masks stay as they are.

    python segmenter_quality.py --frames DIR --init runs/segmenter/segmenter_ema.pt --out runs/segmenter/segmenter_ema.pt --minutes 10

Prompts as in segmenter_train.py are answered by the finished network; then the small network behind
`segmenter_model.mask_statistics` is fitted to the IoU that these masks really have. A tenth of the prompts is held out and
shows the error before and after. Take frames of the training split that the masks were not trained on (`scenelex_sim.dataset
--start`): on those that they were, masks are better than elsewhere, and the fit would promise too much.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor

import segmenter_prompts
from segmenter_data import Frames, Images
from segmenter_model import Segmenter, SegmenterConfig
from segmenter_world2d import IDS

# Share of boxes that are much larger than their object: more than the masks were trained with, as their IoU is harder to tell.
LOOSE = 0.35


@torch.no_grad()
def gather(model: Segmenter, images: Images, prompts: int, minutes: float) -> tuple[Tensor, Tensor]:
    """What `quality` is given `[N, inputs]` and the true IoUs `[N, 4]`."""
    given: list[Tensor] = []
    hook = model.mask_decoder.quality.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    side = model.cfg.size // 2
    nothing = torch.zeros(1, 1, side, side)
    inputs, truths = [], []
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        rgb, maps, valid = images.batch(4)
        asked = segmenter_prompts.make(maps, valid, prompts, IDS, LOOSE)
        embeddings = model.image_encoder(model.normalise(rgb) * valid)
        low, _ = model.decode(embeddings, asked.coords, asked.labels, nothing, torch.zeros(1), prompts)
        filled = (asked.target >= 0.5).flatten(1).any(1)
        inputs.append(given.pop()[filled])
        truths.append(segmenter_prompts.true_iou(low, asked, valid[:, :, ::2, ::2])[filled])
    hook.remove()
    return torch.cat(inputs), torch.cat(truths)


def fit(quality: torch.nn.Module, inputs: Tensor, truths: Tensor, steps: int) -> tuple[float, float]:
    """Least absolute error: its mean is what callers feel. The error without and with `quality` on a tenth that is not fitted to."""
    order = torch.randperm(len(inputs))
    inputs, truths = inputs[order], truths[order]
    guess, kept = inputs[:, : truths.shape[1]], len(inputs) // 10
    optimiser = torch.optim.AdamW(quality.parameters(), weight_decay=1e-2)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = torch.randint(len(inputs) - kept, (512,))
        error = guess[rows] + quality(inputs[rows]) - truths[rows]
        optimiser.zero_grad()
        error.abs().mean().backward()
        optimiser.step()
    with torch.no_grad():
        rest = truths[-kept:] - guess[-kept:]
        return float(rest.abs().mean()), float((quality(inputs[-kept:]) - rest).abs().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, action="append", required=True, help="folder of fresh .npz shards (may be repeated)")
    parser.add_argument("--init", type=Path, required=True, help="trained weights (a segmenter_ema.pt)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512, help="input size of the files to be written: the statistics depend on it")
    parser.add_argument("--minutes", type=float, default=10.0, help="of gathering; fitting takes seconds")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--prompts", type=int, default=12, help="prompts an image")
    parser.add_argument("--rendered", type=float, default=0.75, help="share of rendered frames; the rest is procedural")
    parser.add_argument("--max-frames", type=int, default=3000)
    args = parser.parse_args()
    if empty := [str(folder) for folder in args.frames if not any(folder.glob("*.npz"))]:
        raise SystemExit(f"no .npz shards in {', '.join(empty)}")
    torch.manual_seed(11)
    stored = torch.load(args.init, map_location="cpu", weights_only=True)
    model = Segmenter(SegmenterConfig(**stored["config"])).eval()
    weights = {k: v.float() if v.is_floating_point() else v for k, v in stored["model"].items()}
    missing = model.load_state_dict({k: v for k, v in weights.items() if ".quality." not in k}, strict=False)
    if wrong := [k for k in missing.missing_keys if ".quality." not in k]:
        raise SystemExit(f"not in {args.init}: {', '.join(wrong)}")
    model.resize(args.size)
    frames = Frames(args.frames, torch.device("cpu"), args.max_frames)
    while not frames.count:  # they are loaded by a thread
        time.sleep(0.2)
    images = Images(frames, args.size, torch.device("cpu"), 400, args.rendered, 0.3)
    inputs, truths = gather(model, images, args.prompts, args.minutes)
    frames.close()
    before, after = fit(model.mask_decoder.quality, inputs, truths, args.steps)
    print(f"{len(inputs)} prompts; mean error of the predicted IoU over all masks, held out: {before:.4f}, then {after:.4f}")
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    torch.save({"config": stored["config"] | {"size": args.size}, "model": state, "step": stored.get("step", 0)}, args.out)


if __name__ == "__main__":
    main()
