"""All builders of labelled categories, and the unlabelled distractors. See `parts` for what a builder makes."""

from __future__ import annotations

from typing import Callable

import numpy as np

from . import furniture, handy, vessels
from .meshes import box, lathe, merge, prism, torus, tube
from .parts import Built, Rng

BUILDERS: dict[str, Callable[[Rng], Built]] = {
    "mug": vessels.mug,
    "bottle": vessels.bottle,
    "bowl": vessels.bowl,
    "ball": handy.ball,
    "box": handy.cardboard_box,
    "can": vessels.can,
    "chair": furniture.chair,
    "potted plant": furniture.potted_plant,
    "monitor": furniture.monitor,
    "traffic cone": handy.traffic_cone,
    "stool": furniture.stool,
    "lamp": furniture.lamp,
    "book": handy.book,
    "laptop": furniture.laptop,
    "keyboard": furniture.keyboard,
    "vase": vessels.vase,
    "plate": vessels.plate,
    "bucket": vessels.bucket,
    "teapot": vessels.teapot,
    "frying pan": vessels.frying_pan,
    "hammer": handy.hammer,
    "screwdriver": handy.screwdriver,
    "banana": handy.banana,
    "flask": vessels.flask,
    "microscope": handy.microscope,
    "fire extinguisher": handy.fire_extinguisher,
    "clock": furniture.clock,
    "sofa": furniture.sofa,
}


def distractor(rng: Rng) -> Built:
    """Shapes that belong to no category: stars, rings, frames, wavy columns, pyramids, knots of tubes."""
    kind = rng.integers(6)
    if kind == 0:
        n, a = int(rng.integers(4, 8)), rng.uniform(0.3, 0.6)
        t = np.linspace(0, 2 * np.pi, 2 * n, endpoint=False)
        rad = np.where(np.arange(2 * n) % 2, a, 1.0) * 0.5
        m = prism(np.stack([rad * np.cos(t), rad * np.sin(t)], 1), rng.uniform(0.15, 0.6))
    elif kind == 1:
        small = rng.uniform(0.06, 0.14)
        m = torus(0.4, small).moved(z=small)
    elif kind == 2:
        s, t = rng.uniform(0.5, 0.9), rng.uniform(0.08, 0.16)
        m = merge([box(s, t, t), box(s, t, t).moved(z=s - t)] + [box(t, t, s).moved(x=e * (s - t) / 2) for e in (-1, 1)])
    elif kind == 3:
        z = np.linspace(0, rng.uniform(0.5, 1.0), 14)
        rad = rng.uniform(0.14, 0.22) + rng.uniform(0.03, 0.07) * np.sin(z * rng.uniform(14, 26))
        m = lathe([(0, 0)] + list(zip(rad, z)) + [(0, z[-1])], sides=int(rng.choice([4, 5, 6, 20])))
    elif kind == 4:
        m = lathe([(0, 0), (0.45, 0), (0, rng.uniform(0.4, 0.6))], sides=int(rng.choice([3, 4, 5])))
    else:
        p = rng.uniform(-0.35, 0.35, (6, 3)) + [0, 0, 0.42]
        m = tube(np.array(smooth3(p)), rng.uniform(0.04, 0.08), 8)
    return Built({"main": m}, round_base=False, can_lie=True)


def smooth3(p: np.ndarray, per_span: int = 5) -> np.ndarray:
    """Catmull-Rom curve through points [P,3]."""
    q = np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    t = np.linspace(0, 1, per_span, endpoint=False)[:, None]
    out = []
    for i in range(1, len(q) - 2):
        a, b, c, d = q[i - 1], q[i], q[i + 1], q[i + 2]
        out.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(out + [p[-1:]])
