"""Renders labelled frames into uncompressed shards.

``python -m scenelex_sim.dataset --out DIR --split train --start 0 --count 4096 --procs 4``

A shard ``shard_XXXXX.npz`` holds frames ``XXXXX * 256 ...`` of its split:

=========== ================= ==================================================================================
rgb         u8 [N,H,W,3]
instance    u8 [N,H,W]        0 = background and unlabelled things, k = object k of that frame
category    i16 [N,K]         index into `taxonomy.CATEGORIES` of object k (column k-1), -1 = no such object
color       i16 [N,K]         index into `taxonomy.COLOR_NAMES`, -1 = no single named colour
pattern     i8 [N,K]          index into `textures.PATTERNS`, -1 = no such object
ignore      u8 [N,K]          1 = under 0.15 % of the picture or less than a quarter visible: neither hit nor miss
scene       i32 [N]           scene number, for splitting
=========== ================= ==================================================================================

with K = 40. Splits: "train" never shows a held-out (colour, category) pair; "val" draws all colours from other seeds;
"pairs" gives about half of the coloured objects a held-out pair. Each scene is seen from `VIEWS` cameras, with new
lights, background textures and object colours each time. The same split and frame numbers give the same scenes and
labels; pixels are equal too where the GL driver is the same. Shards that exist are kept, so a broken run is resumed by
running it again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np

SHARD = 256
VIEWS = 8
MAX_OBJECTS = 40
SPLITS = {"train": 0, "val": 1, "pairs": 2}
MIN_AREA, MIN_VISIBLE = 0.0015, 0.25


def empty_shard(frames: int, width: int, height: int) -> dict[str, np.ndarray]:
    return {
        "rgb": np.zeros((frames, height, width, 3), np.uint8),
        "instance": np.zeros((frames, height, width), np.uint8),
        "category": np.full((frames, MAX_OBJECTS), -1, np.int16),
        "color": np.full((frames, MAX_OBJECTS), -1, np.int16),
        "pattern": np.full((frames, MAX_OBJECTS), -1, np.int8),
        "ignore": np.zeros((frames, MAX_OBJECTS), np.uint8),
        "scene": np.zeros(frames, np.int32),
    }


def expose(rng: np.random.Generator, rgb: np.ndarray, apply_to: np.ndarray | None = None) -> np.ndarray:
    """What a camera's automatic exposure does to `rgb` (or to `apply_to`, with the gain measured on `rgb`).

    The gain goes towards a random middle brightness, is at most 2.5 and burns few highlights.
    """
    some = rgb[::8, ::8]
    gain = rng.uniform(75, 145) / max(float(some.mean()), 1.0)
    highlights = 275.0 / max(float(np.percentile(some, 96)), 1.0)  # keep most of the picture below clipping
    gain = float(np.clip(min(gain, highlights), 0.7, 2.5))
    table = np.clip(np.arange(256) * gain, 0, 255).astype(np.uint8)
    return table[rgb if apply_to is None else apply_to]


def label_frame(out: dict[str, np.ndarray], n: int, world, instance: np.ndarray) -> None:
    """Fills row `n` from a rendered item image: labelled, visible items are renumbered 1, 2, ..."""
    area = np.bincount(instance.ravel(), minlength=len(world.items) + 1)
    visible = world.visible_fractions(instance)
    lookup = np.zeros(len(world.items) + 1, np.uint8)
    k = 0
    for i, item in enumerate(world.items):
        if item.category < 0 or area[i + 1] == 0 or k >= MAX_OBJECTS:
            continue
        out["category"][n, k], out["color"][n, k], out["pattern"][n, k] = item.category, item.color, item.pattern
        out["ignore"][n, k] = area[i + 1] < MIN_AREA * instance.size or visible[i] < MIN_VISIBLE
        k += 1
        lookup[i + 1] = k
    out["instance"][n] = lookup[instance]


def render_frames(split: str, start: int, count: int, renderer, bank) -> dict[str, np.ndarray]:
    """Frames `start` .. `start + count` of a split; `start` and `count` are multiples of `VIEWS`."""
    from .world import World

    out = empty_shard(count, renderer.width, renderer.height)
    for first in range(0, count, VIEWS):
        number = (start + first) // VIEWS
        world = World(np.random.default_rng([SPLITS[split], number]), bank, split, renderer.width, renderer.height)
        renderer.attach(world)
        for view in range(VIEWS):
            rng = np.random.default_rng([SPLITS[split], number, view])
            world.restyle(rng)
            world.random_view(rng)
            rgb, instance, _ = renderer.draw()
            out["rgb"][first + view] = expose(rng, rgb)
            out["scene"][first + view] = number
            label_frame(out, first + view, world, instance)
    return out


def render_small(split: str, count: int, width: int = 480, height: int = 360, start: int = 0) -> dict[str, np.ndarray]:
    """The first frames of a split, rendered in this process; for evaluations small enough for a CPU."""
    from .render import Renderer
    from .textures import Bank

    count = -(-count // VIEWS) * VIEWS
    renderer = Renderer(width, height)
    try:
        return render_frames(split, start, count, renderer, Bank(SPLITS[split]))
    finally:
        renderer.close()


def shard_path(out: Path, index: int) -> Path:
    return out / f"shard_{index:05d}.npz"


def _work(out: Path, split: str, shards: list[tuple[int, int]], width: int, height: int) -> None:
    for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from .render import Renderer
    from .textures import Bank

    renderer, bank = Renderer(width, height), Bank(SPLITS[split])
    for index, frames in shards:
        path = shard_path(out, index)
        if path.exists():
            continue
        data = render_frames(split, index * SHARD, frames, renderer, bank)
        partial = path.with_suffix(f".{os.getpid()}.part")
        with open(partial, "wb") as f:
            np.savez(f, **data)
        os.replace(partial, path)
    renderer.close()


def generate(out: Path, split: str, start: int, count: int, procs: int, width: int = 480, height: int = 360) -> int:
    """Renders what is missing of frames `start` .. `start + count`; returns the number of shards still missing."""
    out.mkdir(parents=True, exist_ok=True)
    if start % SHARD:
        raise SystemExit(f"--start must be a multiple of {SHARD}")
    count = -(-count // VIEWS) * VIEWS
    todo = [((start + o) // SHARD, min(SHARD, count - o)) for o in range(0, count, SHARD)]
    context = multiprocessing.get_context("spawn")
    began, total = time.monotonic(), len(todo)
    done_before = sum(shard_path(out, i).exists() for i, _ in todo)
    workers: list[tuple] = []
    for attempt in range(4):  # a worker that dies (driver, memory) is replaced and goes on where it stopped
        missing = [t for t in todo if not shard_path(out, t[0]).exists()]
        if not missing:
            break
        if attempt:
            print(f"{len(missing)} shards missing after a worker died; attempt {attempt + 1}", flush=True)
        workers = [context.Process(target=_work, args=(out, split, missing[p::procs], width, height)) for p in range(min(procs, len(missing)))]
        for w in workers:
            w.start()
        while any(w.is_alive() for w in workers):
            time.sleep(2)
            done = sum(shard_path(out, i).exists() for i, _ in todo)
            rate = (done - done_before) * SHARD / (time.monotonic() - began)
            print(f"\r{split}: {done}/{total} shards, {rate:.0f} frames/s", end="", flush=True)
    print()
    for partial in out.glob("*.part"):
        partial.unlink()
    return sum(not shard_path(out, i).exists() for i, _ in todo)


def main() -> None:
    p = argparse.ArgumentParser(description="Render labelled frames of the simulated world into npz shards.")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--split", choices=sorted(SPLITS), default="train")
    p.add_argument("--start", type=int, default=0, help="first frame, a multiple of 256")
    p.add_argument("--count", type=int, required=True, help="number of frames")
    p.add_argument("--procs", type=int, default=os.cpu_count() or 1)
    p.add_argument("--width", type=int, default=480)
    p.add_argument("--height", type=int, default=360)
    a = p.parse_args()
    missing = generate(a.out, a.split, a.start, a.count, a.procs, a.width, a.height)
    if missing:
        sys.exit(f"{missing} shards could not be rendered")


if __name__ == "__main__":
    main()
