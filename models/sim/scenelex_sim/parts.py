"""What builders of objects share.

A builder draws one random instance: `parts` maps a role to a mesh ("main" carries the colour label, the other
roles are keys of `world.ROLE_TINTS`). Sizes are relative: the world scales each object afterwards. Objects stand on
z = 0. `solids` are the collision shapes (kind, half sizes, centre); if empty, the world uses a bounding box or cylinder.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .meshes import Mesh, arc, box, merge, tube

Rng = np.random.Generator


@dataclass
class Built:
    """One random instance of a category or distractor."""

    parts: dict[str, Mesh]
    round_base: bool = True
    can_lie: bool = False
    see_through: float = 0.0  # probability that the main body is glass-like
    solids: list[tuple[str, tuple[float, ...], tuple[float, float, float]]] = field(default_factory=list)


def pick(rng: Rng, *options):
    return options[rng.integers(len(options))]


def chance(rng: Rng, p: float) -> bool:
    return bool(rng.random() < p)


def handle_loop(rng: Rng, x: float, z0: float, z1: float, reach: float, thick: float) -> Mesh:
    """A handle loop in the x-z plane from height z0 to z1, starting at radius x."""
    if chance(rng, 0.3):
        path = [(x - thick, 0, z1), (x + reach * 0.9, 0, z1), (x + reach, 0, z1 - thick), (x + reach, 0, z0 + thick), (x + reach * 0.9, 0, z0), (x - thick, 0, z0)]
    else:
        path = arc((x - 0.3 * thick, 0, (z0 + z1) / 2), reach, (z1 - z0) / 2, 90, -90, 10)
    return tube(path, thick, 8, flat=rng.uniform(0.8, 1.6))


def four_legs(rng: Rng, w: float, d: float, h: float, thick: float, splay: float) -> Mesh:
    """Four legs under a seat of w x d at height h; `splay` moves the feet outwards."""
    legs = []
    for sx in (-1, 1):
        for sy in (-1, 1):
            foot = (sx * (w / 2 - thick + splay), sy * (d / 2 - thick + splay), 0)
            legs.append(tube([foot, (sx * (w / 2 - thick), sy * (d / 2 - thick), h)], [thick * rng.uniform(0.7, 1.0), thick], 8))
    return merge(legs)


def key_rows(rng: Rng, w: float, d: float, rows: int, z: float) -> Mesh:
    """Rows of keys on w x d at height z, with a space bar in the nearest row."""
    keys = []
    cols = int(rng.integers(11, 15))
    kw, kd = w / cols, d / rows
    for r in range(rows):
        y = -d / 2 + (r + 0.5) * kd
        if r == 0:
            keys += [box(kw * 5, kd * 0.8, 0.02).moved(y=y, z=z)]
            keys += [box(kw * 1.3, kd * 0.8, 0.02).moved(x=s * w * x, y=y, z=z) for s in (-1, 1) for x in (0.3, 0.43)]
            continue
        keys += [box(kw * 0.8, kd * 0.8, 0.02).moved(x=-w / 2 + (c + 0.5) * kw, y=y, z=z) for c in range(cols)]
    return merge(keys)


def stretched(built: Built, across: float, up: float) -> Built:
    """The same object, wider or narrower and taller or flatter; spheres of collision stay as they are."""
    sizes = {"box": (across, across, up), "cylinder": (across, up)}
    solids = [
        (kind, tuple(a * b for a, b in zip(size, sizes.get(kind, (1.0,)))), (pos[0] * across, pos[1] * across, pos[2] * up))
        for kind, size, pos in built.solids
    ]
    parts = {role: m.scaled(across, across, up) for role, m in built.parts.items()}
    return replace(built, parts=parts, solids=solids)
