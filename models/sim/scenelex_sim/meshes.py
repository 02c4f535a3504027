"""Small procedural triangle meshes with texture coordinates: lathes, sweeps, boxes, prisms.

Everything is z-up, in arbitrary length units, and meant to be merged per material before it goes to MuJoCo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable, Sequence

import numpy as np


@dataclass
class Mesh:
    """Vertices f64[N,3], triangles i64[M,3] (counter-clockwise seen from outside), uv f64[N,2]."""

    v: np.ndarray
    f: np.ndarray
    uv: np.ndarray

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> "Mesh":
        return Mesh(self.v + np.array([x, y, z]), self.f, self.uv)

    def scaled(self, sx: float, sy: float | None = None, sz: float | None = None) -> "Mesh":
        s = np.array([sx, sx if sy is None else sy, sx if sz is None else sz])
        return Mesh(self.v * s, self.f, self.uv)

    def rotated(self, axis: str, degrees: float) -> "Mesh":
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        m = {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
        return Mesh(self.v @ np.array(m).T, self.f, self.uv)

    def warped(self, fn: Callable[[np.ndarray], np.ndarray]) -> "Mesh":
        """Maps every vertex through `fn` (array [N,3] to array [N,3])."""
        return Mesh(fn(self.v.copy()), self.f, self.uv)


def merge(meshes: Iterable[Mesh]) -> Mesh:
    parts = list(meshes)
    offsets = np.cumsum([0] + [len(m.v) for m in parts])
    return Mesh(
        np.concatenate([m.v for m in parts]),
        np.concatenate([m.f + o for m, o in zip(parts, offsets)]),
        np.concatenate([m.uv for m in parts]),
    )


def _grid_faces(rows: int, cols: int) -> np.ndarray:
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(cols - 1), indexing="ij")
    a = (i * cols + j).ravel()
    b, c, d = a + 1, a + cols, a + cols + 1
    return np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])


def lathe(profile: Sequence[tuple[float, float]], n: int = 24, sides: int | None = None) -> Mesh:
    """Revolves (radius, z) points around z. Go from the axis at the bottom, up the outside, to the axis again.

    `sides` makes a prism-like body with that many flat sides instead of a round one.
    """
    p = np.asarray(profile, float)
    p[:, 0] = np.maximum(p[:, 0], 1e-4)
    k = sides or n
    a = np.linspace(0, 2 * np.pi, k + 1)
    ring = np.stack([np.cos(a), np.sin(a)], 1)
    v = np.concatenate([p[:, None, :1] * ring[None], np.repeat(p[:, None, 1:], k + 1, 1)], 2)
    s = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(p, axis=0), axis=1))])
    uv = np.stack(np.broadcast_arrays((a / (2 * np.pi))[None] * 2, (s / max(s[-1], 1e-9))[:, None] * 2), 2)
    return Mesh(v.reshape(-1, 3), _grid_faces(len(p), k + 1), uv.reshape(-1, 2))


def smooth_profile(points: Sequence[tuple[float, float]], per_span: int = 4) -> list[tuple[float, float]]:
    """Catmull-Rom curve through `points`; ends are kept."""
    p = np.asarray(points, float)
    q = np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    out = []
    for i in range(1, len(q) - 2):
        t = np.linspace(0, 1, per_span, endpoint=False)[:, None]
        a, b, c, d = q[i - 1], q[i], q[i + 1], q[i + 2]
        out.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    r = np.concatenate(out + [p[-1:]])
    return [(max(float(x), 0.0), float(z)) for x, z in r]


def shell(outer: Sequence[tuple[float, float]], wall: float, n: int = 24, sides: int | None = None) -> Mesh:
    """An open vessel: `outer` goes from the foot (radius, 0) to the rim; the inside follows at `wall` distance."""
    o = list(outer)
    inner = [(max(r - wall, 0.01), max(z, o[0][1] + wall)) for r, z in reversed(o)]
    return lathe([(0, o[0][1])] + o + inner + [(0, o[0][1] + wall)], n, sides)


def cylinder(r: float, h: float, n: int = 20, r_top: float | None = None) -> Mesh:
    t = r if r_top is None else r_top
    return lathe([(0, 0), (r, 0), (t, h), (0, h)], n)


def sphere(r: float, n: int = 20) -> Mesh:
    t = np.linspace(-np.pi / 2, np.pi / 2, n // 2 + 3)
    return lathe([(r * np.cos(x), r * np.sin(x)) for x in t], n)


def torus(big: float, small: float, n: int = 24, m: int = 10) -> Mesh:
    t = np.linspace(-np.pi, np.pi, m + 1)
    return lathe([(big + small * np.cos(x), small * np.sin(x)) for x in t], n)


def box(sx: float, sy: float, sz: float, bevel: float = 0.0) -> Mesh:
    """Box on z = 0, centred in x and y, with full side lengths; `bevel` rounds the edges off."""
    faces, verts, uvs = [], [], []
    half = np.array([sx, sy, sz]) / 2
    b = min(bevel, 0.49 * min(sx, sy, sz))
    steps = 4 if b > 0 else 2
    for axis in range(3):
        for sign in (-1, 1):
            u, w = (axis + 1) % 3, (axis + 2) % 3
            gu = np.array([-half[u], -half[u] + b, half[u] - b, half[u]]) if steps == 4 else np.array([-half[u], half[u]])
            gw = np.array([-half[w], -half[w] + b, half[w] - b, half[w]]) if steps == 4 else np.array([-half[w], half[w]])
            uu, ww = np.meshgrid(gu, gw, indexing="ij")
            p = np.zeros((steps * steps, 3))
            p[:, axis], p[:, u], p[:, w] = sign * half[axis], uu.ravel(), ww.ravel()
            f = _grid_faces(steps, steps)
            if sign > 0:
                f = f[:, ::-1]
            faces.append(f + sum(len(x) for x in verts))
            uvs.append(np.stack([(uu.ravel() / half[u] + 1) / 2, (ww.ravel() / half[w] + 1) / 2], 1))
            if b > 0:
                core = np.clip(p, -(half - b), half - b)
                d = p - core
                length = np.linalg.norm(d, axis=1, keepdims=True)
                p = core + d / np.maximum(length, 1e-9) * b
            verts.append(p)
    return Mesh(np.concatenate(verts) + np.array([0, 0, half[2]]), np.concatenate(faces), np.concatenate(uvs))


def tube(path: Sequence[Sequence[float]], radius: float | Sequence[float], n: int = 10, flat: float = 1.0) -> Mesh:
    """Sweeps a circle along `path` (points [P,3]); `radius` per point or one; `flat` squashes one cross axis."""
    p = np.asarray(path, float)
    r = np.broadcast_to(np.asarray(radius, float), (len(p),))
    tangent = np.gradient(p, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    ref = np.eye(3)[np.argmin(np.abs(tangent[0]))]
    normal = np.cross(tangent[0], ref)
    normal /= np.linalg.norm(normal)
    a = np.linspace(0, 2 * np.pi, n + 1)
    rings = []
    for i in range(len(p)):
        normal = normal - tangent[i] * (normal @ tangent[i])
        normal /= max(np.linalg.norm(normal), 1e-9)
        binormal = np.cross(tangent[i], normal)
        rings.append(p[i] + r[i] * (np.cos(a)[:, None] * normal + flat * np.sin(a)[:, None] * binormal))
    rings = [np.repeat(p[:1], n + 1, 0)] + rings + [np.repeat(p[-1:], n + 1, 0)]
    uv = np.stack(np.broadcast_arrays(np.linspace(0, 1, n + 1)[None], np.linspace(0, 3, len(rings))[:, None]), 2)
    return Mesh(np.concatenate(rings), _grid_faces(len(rings), n + 1), uv.reshape(-1, 2))


def arc(centre: Sequence[float], rx: float, rz: float, a0: float, a1: float, n: int = 9) -> np.ndarray:
    """Points of an ellipse arc in the x-z plane, angles in degrees."""
    t = np.radians(np.linspace(a0, a1, n))
    return np.stack([centre[0] + rx * np.cos(t), np.full(n, centre[1], float), centre[2] + rz * np.sin(t)], 1)


def prism(outline: Sequence[Sequence[float]], height: float) -> Mesh:
    """Extrudes a counter-clockwise outline [P,2] that is star-shaped around its mean from z = 0 to `height`."""
    o = np.asarray(outline, float)
    c, k = o.mean(0), len(o)
    lo, hi = np.column_stack([o, np.zeros(k)]), np.column_stack([o, np.full(k, height)])
    span = np.maximum(np.ptp(o, axis=0), 1e-9)
    flat_uv = (o - o.min(0)) / span
    i = np.arange(k)
    j = (i + 1) % k
    v = np.concatenate([lo, hi, [[*c, 0]], [[*c, height]], lo, hi])
    around = np.linspace(0, 2, k)
    uv = np.concatenate(
        [flat_uv, flat_uv, [[0.5, 0.5]], [[0.5, 0.5]], np.column_stack([around, np.zeros(k)]), np.column_stack([around, np.ones(k)])]
    )
    s = 2 * k + 2
    f = np.concatenate(
        [
            np.stack([j, i, np.full(k, 2 * k)], 1),
            np.stack([i + k, j + k, np.full(k, 2 * k + 1)], 1),
            np.stack([s + i, s + j, s + k + j], 1),
            np.stack([s + i, s + k + j, s + k + i], 1),
        ]
    )
    return Mesh(v, f, uv)


def leaf(length: float, width: float, droop: float) -> Mesh:
    """A pointed two-sided leaf that starts at the origin and bends down along +x."""
    t = np.linspace(0, 1, 6)
    half = width / 2 * np.sin(np.pi * t**0.7)
    z = length * (0.6 * t - droop * t**2)
    x = length * t
    top = np.concatenate([np.stack([x, -half, z], 1), np.stack([x, 0 * x, z - 0.03 * length], 1), np.stack([x, half, z], 1)])
    f = _grid_faces(3, 6)
    uv = np.tile(np.stack([t, t], 1), (3, 1))
    return Mesh(np.concatenate([top, top - [0, 0, 0.004 * length]]), np.concatenate([f, f[:, ::-1] + 18]), np.concatenate([uv, uv]))
