"""Random textures, u8[S,S,3], made with numpy alone: noise, stripes, checks, gradients, wood, speckle, patches."""

from __future__ import annotations

import colorsys

import numpy as np

Rng = np.random.Generator


def value_noise(rng: Rng, size: int, octaves: int, stretch: float = 1.0) -> np.ndarray:
    """Smooth tileable noise f32[size,size] in 0..1; `stretch` > 1 makes it long along the first axis."""
    out = np.zeros((size, size), np.float32)
    weight = 1.0
    for o in range(octaves):
        cells = 2 ** (o + 2)
        rows = max(2, int(cells / stretch))
        grid = rng.random((rows, cells), dtype=np.float32)
        out += weight * _upsample(_upsample(grid, size).T, size).T
        weight *= 0.55
    out -= out.min()
    return out / max(float(out.max()), 1e-6)


def _upsample(grid: np.ndarray, size: int) -> np.ndarray:
    """Periodic linear interpolation along the first axis to `size` rows."""
    n = grid.shape[0]
    x = np.arange(size, dtype=np.float32) * n / size
    i = x.astype(int)
    t = (x - i)[:, None]
    t = t * t * (3 - 2 * t)
    return grid[i % n] * (1 - t) + grid[(i + 1) % n] * t


def random_rgb(rng: Rng, vivid: float = 0.6) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.random() * vivid, rng.uniform(0.15, 1.0)), np.float32)


def mixed(rng: Rng, mask: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return mask[..., None] * a + (1 - mask[..., None]) * b


def background(rng: Rng, size: int = 256) -> np.ndarray:
    """A texture for floors, walls and table tops."""
    kind = rng.integers(9)
    a, b = random_rgb(rng), random_rgb(rng)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    noise = value_noise(rng, size, int(rng.integers(2, 7)))
    if kind == 0:
        img = mixed(rng, noise, a, b)
    elif kind == 1:  # wood: stretched noise, planks
        grain = value_noise(rng, size, 6, stretch=8.0)
        base = np.array(colorsys.hsv_to_rgb(rng.uniform(0.05, 0.11), rng.uniform(0.3, 0.75), rng.uniform(0.3, 0.9)), np.float32)
        planks = int(rng.integers(1, 9))
        shade = rng.uniform(0.75, 1.1, planks)[np.minimum((x * planks).astype(int), planks - 1)]
        seam = np.where((x * planks) % 1 < 0.03, 0.6, 1.0) if planks > 1 else 1.0
        img = base * ((0.65 + 0.45 * grain) * shade * seam)[..., None]
    elif kind == 2:  # checks or tiles
        n = int(rng.integers(1, 9))
        checks = ((x * 2 * n).astype(int) + (y * 2 * n).astype(int)) % 2
        img = mixed(rng, checks.astype(np.float32), a, b) * (0.8 + 0.2 * noise)[..., None]
    elif kind == 3:  # stripes
        n = int(rng.integers(1, 14))
        img = mixed(rng, ((x * n) % 1 < rng.uniform(0.1, 0.9)).astype(np.float32), a, b)
        img = img if rng.random() < 0.5 else img.transpose(1, 0, 2)
    elif kind == 4:  # speckle (terrazzo, carpet)
        speck = (rng.random((size, size)) < rng.uniform(0.02, 0.4)).astype(np.float32)
        img = mixed(rng, speck, a, b)
    elif kind == 5:  # gradient
        img = mixed(rng, (x + y) / 2 if rng.random() < 0.5 else x, a, b)
    elif kind == 6:  # tiles with grout
        n = int(rng.integers(2, 10))
        grout = ((x * n) % 1 < 0.06) | ((y * n) % 1 < 0.06)
        tone = rng.uniform(0.85, 1.0, (n, n))[np.minimum((y * n).astype(int), n - 1), np.minimum((x * n).astype(int), n - 1)]
        img = np.where(grout[..., None], b, a * tone[..., None] * (0.85 + 0.15 * noise)[..., None])
    elif kind == 7:  # coloured patches (posters, clutter-like print)
        img = np.broadcast_to(a, (size, size, 3)).copy()
        for _ in range(rng.integers(5, 40)):
            x0, y0 = rng.integers(0, size, 2)
            w, h = rng.integers(8, size // 2, 2)
            if rng.random() < 0.5:
                img[y0 : y0 + h, x0 : x0 + w] = random_rgb(rng, 0.9)
            else:
                img[((x * size - x0) ** 2 + (y * size - y0) ** 2) < (w / 2) ** 2] = random_rgb(rng, 0.9)
    else:  # nearly plain
        img = np.broadcast_to(a, (size, size, 3)) * (0.92 + 0.08 * noise)[..., None]
    return (np.clip(img, 0, 1) * 255).astype(np.uint8)


PATTERNS = ("plain", "tinted", "stripes", "checks", "dots", "camouflage", "print")


def subtle(rng: Rng, size: int = 128) -> np.ndarray:
    """A light grey texture that modulates a colour without changing its name."""
    kind = rng.integers(4)
    if kind == 0:
        m = value_noise(rng, size, 5)
    elif kind == 1:
        m = value_noise(rng, size, 6, stretch=8.0)
    elif kind == 2:
        m = rng.random((size, size)).astype(np.float32)
    else:
        y, x = np.mgrid[0:size, 0:size] / size
        m = 0.5 + 0.5 * np.sin(2 * np.pi * (x * rng.integers(0, 8) + y * rng.integers(1, 16)))
    depth = rng.uniform(0.08, 0.3)
    img = np.repeat((1 - depth * m)[..., None], 3, 2)
    return (np.clip(img, 0, 1) * 255).astype(np.uint8)


def pattern(rng: Rng, size: int = 128) -> tuple[int, np.ndarray]:
    """A many-coloured object texture and its index in `PATTERNS`: no single colour names it."""
    kind = int(rng.integers(2, 7))
    a, b, c = (random_rgb(rng, 1.0) for _ in range(3))
    while np.abs(a - b).sum() < 0.7:
        b = random_rgb(rng, 1.0)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if kind == 2:
        n = int(rng.integers(2, 8))
        t = [x, y, (x + y)][rng.integers(3)]
        img = mixed(rng, ((t * n) % 1 < 0.5).astype(np.float32), a, b)
    elif kind == 3:
        n = int(rng.integers(2, 6))
        img = mixed(rng, (((x * 2 * n).astype(int) + (y * 2 * n).astype(int)) % 2).astype(np.float32), a, b)
    elif kind == 4:
        n = int(rng.integers(3, 9))
        img = mixed(rng, (((x * n) % 1 - 0.5) ** 2 + ((y * n) % 1 - 0.5) ** 2 < rng.uniform(0.05, 0.14)).astype(np.float32), a, b)
    elif kind == 5:
        m = value_noise(rng, size, 4)
        img = np.where((m > 0.6)[..., None], a, np.where((m > 0.4)[..., None], b, c))
    else:
        img = background(rng, size).astype(np.float32) / 255
        for _ in range(8):
            x0, y0, w, h = rng.integers(0, size, 4)
            img[y0 : y0 + h // 2, x0 : x0 + w // 2] = random_rgb(rng, 1.0)
    return kind, (np.clip(img, 0, 1) * 255).astype(np.uint8)


def screen(rng: Rng, size: int = 128) -> np.ndarray:
    """Something a display might show: dark, a gradient, windows with lines of text, or a picture."""
    kind = rng.integers(4)
    if kind == 0:
        return np.full((size, size, 3), rng.integers(2, 30), np.uint8)
    if kind == 1:
        y, _ = np.mgrid[0:size, 0:size].astype(np.float32) / size
        return (np.clip(mixed(rng, y, random_rgb(rng, 1.0), random_rgb(rng, 1.0)), 0, 1) * 255).astype(np.uint8)
    if kind == 2:
        img = np.broadcast_to((random_rgb(rng, 0.8) * 255).astype(np.uint8), (size, size, 3)).copy()
        for _ in range(rng.integers(1, 4)):
            x0, y0 = rng.integers(0, size // 2, 2)
            w, h = rng.integers(size // 3, size, 2)
            img[y0 : y0 + h, x0 : x0 + w] = rng.choice([20, 240])
            for y in range(y0 + 8, min(y0 + h, size) - 4, 7):
                img[y : y + 3, x0 + 5 : x0 + 5 + int(w * rng.uniform(0.2, 0.9))] = rng.integers(0, 255, 3)
        return img
    return background(rng, size)


class Bank:
    """Textures drawn once per process and picked from afterwards; the same seed gives the same bank."""

    def __init__(self, seed: int, backgrounds: int = 90, patterns: int = 60, subtles: int = 24, screens: int = 24):
        rng = np.random.default_rng([seed, 77])
        self.backgrounds = [background(rng) for _ in range(backgrounds)]
        self.patterns = [pattern(rng) for _ in range(patterns)]
        self.subtles = [subtle(rng) for _ in range(subtles)]
        self.screens = [screen(rng) for _ in range(screens)]
