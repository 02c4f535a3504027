"""Camera paths through a `World`: hand-held, orbiting, driving. A path maps seconds to eye, target (metres) and roll (degrees).

They are periodic but for the shaking of a hand, so a path can be followed for ever."""

from __future__ import annotations

from typing import Callable

import numpy as np

from .world import World

Pose = tuple[np.ndarray, np.ndarray, float]
PATHS = ("orbit", "handheld", "drive")


def wobble(rng: np.random.Generator, dims: int, slow: float = 0.15, fast: float = 1.2) -> Callable[[float], np.ndarray]:
    """Smooth random motion of unit size: a sum of sines between `slow` and `fast` hertz, slower ones larger."""
    f = np.geomspace(slow, fast, 6)
    phase = rng.uniform(0, 2 * np.pi, (6, dims))
    weight = (f[0] / f) ** 0.9
    weight = weight / np.sqrt((weight**2).sum() / 2)
    return lambda t: (np.sin(2 * np.pi * f[:, None] * t + phase) * weight[:, None]).sum(0)


def make_path(kind: str, world: World, rng: np.random.Generator, seconds: float, fovy_deg: float, pixels: float = 110.0) -> Callable[[float], Pose]:
    """A path of `kind` (one of `PATHS`) around the labelled objects of `world`.

    One pass takes `seconds`: 100 degrees of a circle, or one way; what follows goes on round the circle, or back and there again.
    `pixels` is the side a typical object has in a picture 480 pixels high.
    """
    s = world.scale
    items = [i for i in world.items if i.category >= 0]
    centres = world.data.xpos[[i.body for i in items]]
    centres = centres[np.abs(centres[:, 2] - world.table_z) < 0.3 * s] if len(centres) else np.array([[0, 0, world.table_z]])
    middle = centres.mean(0) + [0, 0, 0.3 * world.unit]
    size = float(np.median([i.size for i in items]))
    distance = 240 / np.tan(np.radians(fovy_deg) / 2) * size / pixels
    start, elevation = np.radians(world.sector), np.radians(rng.uniform(28, 42))
    shake, aim, tilt = wobble(rng, 3), wobble(rng, 3), wobble(rng, 1)

    def around(azimuth: float, lift: float, far: float) -> np.ndarray:
        return middle + far * np.array([np.cos(azimuth) * np.cos(lift), np.sin(azimuth) * np.cos(lift), np.sin(lift)])

    def orbit(t: float) -> Pose:
        a = start + np.radians(100) * (t / seconds - 0.5)
        return around(a, elevation + 0.05 * np.sin(2 * np.pi * t / seconds), distance), middle, 0.0

    def handheld(t: float) -> Pose:
        u = t / seconds
        a = start + np.radians(55) * np.sin(np.pi * (u - 0.5))
        eye = around(a, elevation + 0.12 * np.sin(2 * np.pi * u), distance * (1 - 0.18 * np.sin(np.pi * u)))
        return eye + 0.018 * s * shake(t), middle + 0.02 * s * aim(t), float(1.6 * tilt(t)[0])

    def drive(t: float) -> Pose:
        u = 0.5 - 0.5 * np.cos(np.pi * t / seconds)  # stops at both ends, to turn back
        ahead = -np.array([np.cos(start), np.sin(start), 0])
        side = np.array([-ahead[1], ahead[0], 0])
        height = np.sin(np.radians(24)) * distance
        eye = middle - ahead * distance * (1.35 - 0.75 * u) + side * 0.25 * distance * np.sin(2.2 * np.pi * u)
        eye[2] = middle[2] + height + 0.002 * s * shake(t)[2]
        steer = side * 0.12 * distance * np.cos(2.2 * np.pi * u)
        return eye, middle + steer, float(0.2 * tilt(t)[0])

    return dict(zip(PATHS, (orbit, handheld, drive)))[kind]
