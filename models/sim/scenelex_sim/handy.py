"""Other things: ball, box, traffic cone, book, hammer, screwdriver, banana, microscope, fire extinguisher."""

from __future__ import annotations

import numpy as np

from .meshes import Mesh, box, cylinder, lathe, merge, smooth_profile, sphere, torus, tube
from .parts import Built, Rng, chance, pick


def ball(rng: Rng) -> Built:
    parts = {"main": sphere(0.5, 24)}
    kind = rng.integers(4)
    if kind == 1:  # seams
        rings = [torus(0.497, 0.012, 30, 6)]
        rings += [torus(0.497, 0.012, 30, 6).rotated("x", 90).rotated("z", a) for a in (0, 90)]
        parts["dark"] = merge(rings).rotated("x", rng.uniform(0, 90))
    elif kind == 2:  # patches
        spots = []
        for _ in range(12):
            cap = lathe([(0.13, 0.484), (0.08, 0.4965), (0.0, 0.504)], 5)
            spots.append(cap.rotated("x", rng.uniform(0, 180)).rotated("z", rng.uniform(0, 360)))
        parts[pick(rng, "dark", "accent", "light")] = merge(spots)
    elif kind == 3:
        parts["accent"] = lathe([(0.495, -0.09), (0.503, -0.05), (0.503, 0.05), (0.495, 0.09)], 24).rotated("x", rng.uniform(0, 90))
    return Built({k: m.moved(z=0.5) for k, m in parts.items()}, solids=[("sphere", (0.5,), (0, 0, 0.5))])


def cardboard_box(rng: Rng) -> Built:
    s = rng.uniform([0.5, 0.5, 0.35], [1.0, 0.9, 0.9])
    if chance(rng, 0.45):
        parts = {"main": box(*s, bevel=0.01)}
        tape = box(s[0] * 1.006, s[1] * rng.uniform(0.08, 0.16), s[2] * 1.006).moved(z=-0.003 * s[2])
        if chance(rng, 0.7):
            parts[pick(rng, "tape", "accent")] = tape
    else:  # open, with flaps
        t = 0.02
        walls = [box(s[0], s[1], t)]
        for sign in (-1, 1):
            walls += [box(s[0], t, s[2]).moved(y=sign * (s[1] - t) / 2), box(t, s[1], s[2]).moved(x=sign * (s[0] - t) / 2)]
            walls.append(box(s[0], s[1] * 0.45, t).moved(y=s[1] * 0.225).rotated("x", rng.uniform(-60, 60)).moved(y=s[1] / 2, z=s[2]).rotated("z", 0 if sign > 0 else 180))
            walls.append(box(s[0] * 0.4, s[1], t).moved(x=s[0] * 0.2).rotated("y", rng.uniform(-60, 60)).moved(x=s[0] / 2, z=s[2]).rotated("z", 0 if sign > 0 else 180))
        parts = {"main": merge(walls)}
    if chance(rng, 0.4):
        parts["label"] = box(s[0] * 0.35, 0.004, s[2] * 0.3).moved(x=s[0] * rng.uniform(-0.2, 0.2), y=-s[1] / 2, z=s[2] * rng.uniform(0.2, 0.6))
    return Built(parts, round_base=False, solids=[("box", (s[0] / 2, s[1] / 2, s[2] / 2), (0, 0, s[2] / 2))])


def traffic_cone(rng: Rng) -> Built:
    base, r = rng.uniform(0.6, 0.75), rng.uniform(0.22, 0.27)
    foot = box(base, base, 0.05, bevel=0.015) if chance(rng, 0.7) else cylinder(base / 2, 0.05, 8)
    top = rng.uniform(0.03, 0.06)
    body = lathe([(r, 0.04), (top, 1.0), (top * 0.7, 1.0), (0, 0.97)])
    parts = {"main": merge([foot, body])}
    bands = []
    starts = {0: [], 1: [0.45], 2: [0.3, 0.62]}[int(rng.choice([0, 1, 2], p=[0.15, 0.4, 0.45]))]
    for z in starts:
        z1 = z + rng.uniform(0.12, 0.2)
        at = lambda x: 1.02 * (r + (top - r) * (x - 0.04) / 0.96) + 0.004
        bands.append(lathe([(at(z), z), (at(z1), z1)]))
    if bands:
        parts["light"] = merge(bands)
    if chance(rng, 0.25):
        parts["dark"] = box(base * 1.01, base * 1.01, 0.04)
    return Built(parts, round_base=False, can_lie=False, solids=[("box", (base / 2, base / 2, 0.025), (0, 0, 0.025)), ("cylinder", (r * 0.6, 0.45), (0, 0, 0.5))])


def book(rng: Rng) -> Built:
    w, d, t = rng.uniform(0.6, 0.8), 1.0, rng.uniform(0.08, 0.24)
    c = 0.02
    cover = [box(w, d, c), box(w, d, c).moved(z=t - c), box(c, d, t).moved(x=-w / 2 + c / 2)]
    pages = box(w - 0.05, d - 0.05, t - 2 * c).moved(x=0.005, z=c)
    parts = {"main": merge(cover), "paper": pages}
    if chance(rng, 0.6):
        parts[pick(rng, "label", "accent")] = box(w * rng.uniform(0.4, 0.7), d * rng.uniform(0.1, 0.3), 0.004).moved(y=d * rng.uniform(-0.1, 0.3), z=t - 0.001)
    if chance(rng, 0.25):  # open book: two leaves of pages
        half = [box(w, d, 0.02).moved(x=s * w / 2) for s in (-1, 1)]
        hump = lambda v: v + np.stack([0 * v[:, 0], 0 * v[:, 0], 0.07 * np.sin(np.pi * np.clip(np.abs(v[:, 0]) / w, 0, 1)) ** 0.8], 1)
        leaves: list[Mesh] = []
        for s in (-1, 1):
            strips = [box(w * 0.94 / 6 * 1.02, d * 0.94, 0.04).moved(x=s * w * 0.94 * (i + 0.5) / 6, z=0.02) for i in range(6)]
            leaves += strips
        lines = [box(w * 0.7, 0.02, 0.004).moved(x=s * w * 0.48, y=y, z=0.058).warped(hump) for s in (-1, 1) for y in np.linspace(-0.35, 0.35, 8)]
        parts = {"main": merge(half), "paper": merge(leaves).warped(hump), "dark": merge(lines).moved(z=0.005)}
    return Built(parts, round_base=False)


def hammer(rng: Rng) -> Built:
    length, thick = 1.0, rng.uniform(0.035, 0.055)
    handle = tube([(0, 0, 0), (0.35, 0, 0), (0.7, 0, 0), (length, 0, 0)], [thick * 1.1, thick * 0.95, thick * 0.8, thick * 0.7], 10)
    head_h = rng.uniform(0.05, 0.075)
    style = rng.integers(3)
    if style == 0:  # claw
        face = tube([(length, 0.0, 0), (length, 0.18, 0), (length, 0.185, 0), (length, 0.24, 0)], [head_h * 0.8, head_h * 0.7, head_h * 1.1, head_h * 1.1], 12)
        claws = [tube([(length, 0, s * 0.02), (length, -0.12, s * 0.03), (length - 0.08, -0.25, s * 0.045)], [head_h * 0.8, head_h * 0.5, 0.012], 8) for s in (-1, 1)]
        head = merge([face] + claws)
    elif style == 1:  # sledge / mallet
        head = box(head_h * 3.4, rng.uniform(0.3, 0.42), head_h * 3, bevel=0.015).moved(x=length, z=-head_h * 1.5)
    else:  # ball peen
        head = merge([tube([(length, -0.12, 0), (length, 0.17, 0)], head_h, 12), sphere(head_h * 1.1, 12).moved(x=length, y=-0.14)])
    role = pick(rng, "metal", "metal", "dark", "light")
    parts = {"main": handle, role: head}
    if role == "light" or chance(rng, 0.1):
        parts = {"main": merge([handle, head])}
    rise = max(head_h * 1.5, thick)
    parts = {k: m.moved(x=-0.5, z=rise) for k, m in parts.items()}
    return Built(parts, round_base=False, solids=[("box", (0.5, thick, thick), (0, 0, rise)), ("box", (head_h * 1.5, 0.2, rise), (0.5, 0, rise))])


def screwdriver(rng: Rng) -> Built:
    r, grip = rng.uniform(0.055, 0.085), rng.uniform(0.38, 0.5)
    profile = smooth_profile([(r * 0.7, 0), (r, 0.05), (r * 0.92, grip * 0.6), (r * 0.62, grip * 0.85), (r * 0.8, grip)], 3)
    handle = lathe([(0, 0)] + profile + [(0, grip)], sides=int(rng.choice([6, 8, 16])))
    shaft = lathe([(0.022, grip), (0.022, 0.9), (0.03, 0.93), (0.012, 1.0), (0, 1.0)], 8)
    parts = {"main": handle, "metal": shaft}
    if chance(rng, 0.4):
        z = grip * rng.uniform(0.3, 0.6)
        parts[pick(rng, "dark", "accent")] = lathe([(r * 1.02, z), (r * 1.02, z + 0.06)], 16)
    parts = {k: m.rotated("y", 90).moved(x=-0.5, z=r) for k, m in parts.items()}
    return Built(parts, round_base=False, solids=[("box", (0.5, r * 0.8, r * 0.8), (0, 0, r))])


def banana(rng: Rng) -> Built:
    bend = rng.uniform(0.28, 0.45)
    r = rng.uniform(0.085, 0.12)
    count = int(rng.choice([1, 1, 1, 3]))
    bodies, tips = [], []
    for i in range(count):
        t = np.linspace(-1, 1, 12)
        path = np.stack([0.48 * t, bend * (t**2 - 0.5), 0 * t], 1)
        radius = r * np.array([0.3, 0.55, 0.8, 0.95, 1, 1, 1, 1, 0.95, 0.8, 0.5, 0.25])
        b = tube(path, radius, 6)
        stem = tube([path[-1], path[-1] + [0.07, 0.07, 0]], [r * 0.28, r * 0.32], 6)
        end = sphere(r * 0.28, 6).moved(*path[0])
        for m, where in ((b, bodies), (stem, bodies), (end, tips)):
            where.append(m.rotated("x", 22 * (i - (count - 1) / 2)).moved(z=r + 0.7 * r * i))
    return Built({"main": merge(bodies), "soil": merge(tips)}, round_base=False, solids=[("box", (0.4, 0.12, r * 0.9), (0, 0, r * 0.95))])


def microscope(rng: Rng) -> Built:
    w = rng.uniform(0.3, 0.4)
    base = box(w, 0.55, 0.09, bevel=0.025).moved(y=0.0)
    arm_path = [(0, 0.2, 0.08), (0, 0.26, 0.35), (0, 0.2, 0.62), (0, 0.02, 0.74)]
    arm = tube(arm_path, [0.075, 0.065, 0.065, 0.07], 10, flat=0.8)
    tilt = rng.uniform(25, 45)
    head = merge([cylinder(0.085, 0.18).moved(z=0.62), sphere(0.1, 12).moved(z=0.8)]).moved(y=-0.06)
    n_eye = int(rng.choice([1, 2]))
    eyes = [cylinder(0.045, 0.26, 12).rotated("x", -tilt).moved(x=(i - (n_eye - 1) / 2) * 0.12, y=0.0, z=0.8) for i in range(n_eye)]
    stage = box(w * 1.05, 0.34, 0.035).moved(y=-0.06, z=0.34)
    lenses = [cylinder(0.026, 0.15, 10).rotated("x", a).moved(y=-0.06, z=0.47) for a in (0, 28, -28)]
    knobs = [cylinder(0.06, 0.07, 12).rotated("y", s * 90).moved(x=s * 0.07, y=0.23, z=0.25) for s in (-1, 1)]
    dark = merge(eyes + [stage] + knobs)
    parts = {"main": merge([base, arm, head]), "dark": dark, "metal": merge(lenses), "light": cylinder(0.06, 0.03, 12).moved(y=-0.06, z=0.085)}
    return Built(parts, round_base=False)


def fire_extinguisher(rng: Rng) -> Built:
    r, h = rng.uniform(0.14, 0.19), rng.uniform(0.72, 0.8)
    body = lathe([(0, 0), (r, 0), (r, h * 0.82)] + [(r * np.cos(x), h * 0.82 + h * 0.14 * np.sin(x)) for x in np.linspace(0.3, 1.35, 5)] + [(0.05, h), (0, h)])
    valve = merge([cylinder(0.045, 0.1).moved(z=h - 0.02), box(0.3, 0.05, 0.025).rotated("y", -12).moved(x=0.1, z=h + 0.1), box(0.26, 0.05, 0.025).rotated("y", 6).moved(x=0.1, z=h + 0.05)])
    side = -1
    hose = tube([(0, 0, h + 0.04), (side * 0.16, 0, h + 0.02), (side * (r + 0.09), 0, h * 0.75), (side * (r + 0.06), 0, h * 0.4), (side * (r + 0.05), 0, h * 0.15)], [0.022, 0.022, 0.022, 0.025, 0.045], 8)
    gauge = cylinder(0.04, 0.02, 12).rotated("x", 90).moved(y=-0.045, z=h + 0.03)
    parts = {"main": body, "dark": merge([valve, hose]), "light": gauge}
    z = h * rng.uniform(0.25, 0.4)
    if chance(rng, 0.7):
        sheet = lathe([(r * 1.012, z), (r * 1.012, z + h * rng.uniform(0.2, 0.35))], 24)
        keep = np.isin(np.arange(len(sheet.f)) % 24, np.arange(11, 24))
        parts["label"] = Mesh(sheet.v, sheet.f[keep], sheet.uv)
    if chance(rng, 0.4):
        parts["metal"] = torus(r * 0.98, 0.02, 24, 6).moved(z=0.03)
    return Built(parts, can_lie=True, solids=[("cylinder", (r, h / 2), (0, 0, h / 2)), ("box", (0.12, 0.04, 0.07), (0.03, 0, h + 0.06))])
