"""Things that hold something: mug, bottle, bowl, can, vase, plate, bucket, teapot, frying pan, flask."""

from __future__ import annotations

import numpy as np

from .meshes import arc, box, cylinder, lathe, merge, shell, smooth_profile, sphere, torus, tube
from .parts import Built, Rng, chance, handle_loop, pick


def mug(rng: Rng) -> Built:
    r, h = rng.uniform(0.32, 0.44), rng.uniform(0.7, 1.05)
    top = r * rng.uniform(0.92, 1.18)
    profile = [(r * rng.uniform(0.7, 1.0), 0), (r, 0.08 * h), ((r + top) / 2 * rng.uniform(0.93, 1.08), h / 2), (top, h)]
    if chance(rng, 0.5):
        profile = smooth_profile(profile, 3)
    body = shell(profile, rng.uniform(0.03, 0.05))
    z0, z1 = h * rng.uniform(0.15, 0.3), h * rng.uniform(0.7, 0.9)
    x = float(np.interp((z0 + z1) / 2, [p[1] for p in profile], [p[0] for p in profile]))
    parts = {"main": merge([body, handle_loop(rng, x, z0, z1, rng.uniform(0.2, 0.32), rng.uniform(0.035, 0.06))])}
    if chance(rng, 0.5):
        parts["drink"] = cylinder(min(r, top) * 0.88, 0.01).moved(z=h * rng.uniform(0.65, 0.88))
    if chance(rng, 0.25):
        z = h * rng.uniform(0.4, 0.6)
        parts["accent"] = lathe([(max(r, top) * 1.01, z), (max(r, top) * 1.012, z + 0.14 * h)])
    return Built(parts, can_lie=True)


def bottle(rng: Rng) -> Built:
    r, h = rng.uniform(0.14, 0.2), 1.0
    neck, shoulder = r * rng.uniform(0.3, 0.45), rng.uniform(0.5, 0.72)
    profile = [(r * 0.9, 0), (r, 0.03), (r * rng.uniform(0.88, 1.0), shoulder * 0.5), (r, shoulder), (r * 0.8, shoulder + 0.07), (neck, rng.uniform(0.78, 0.84)), (neck, 0.93)]
    profile = smooth_profile(profile, 3)
    body = lathe([(0, 0)] + profile + [(0, 0.93)], 20)
    cap = cylinder(neck * 1.25, rng.uniform(0.06, 0.1)).moved(z=0.92)
    parts = {"main": body, pick(rng, "accent", "dark", "light", "metal"): cap}
    if chance(rng, 0.55):
        z = shoulder * rng.uniform(0.2, 0.4)
        parts["label"] = lathe([(r * 1.015, z), (r * 1.015, z + shoulder * rng.uniform(0.3, 0.5))], 20)
    return Built(parts, can_lie=True, see_through=0.35)


def bowl(rng: Rng) -> Built:
    r, h = 0.5, rng.uniform(0.3, 0.5)
    foot = r * rng.uniform(0.3, 0.5)
    k = rng.uniform(0.35, 0.6)
    t = np.linspace(0, 1, 8)
    profile = [(foot, 0), (foot, 0.03)] + [(foot + (r - foot) * float(x**k), 0.03 + (h - 0.03) * float(x)) for x in t[1:]]
    parts = {"main": shell(profile, rng.uniform(0.02, 0.04))}
    if chance(rng, 0.25):
        parts["accent"] = torus(r, 0.015).moved(z=h)
    if chance(rng, 0.3):
        parts["drink"] = cylinder(r * 0.82, 0.01).moved(z=h * 0.7)
    return Built(parts)


def can(rng: Rng) -> Built:
    r, h = rng.uniform(0.24, 0.34), rng.uniform(0.75, 1.0)
    lip = r * rng.uniform(0.82, 0.95)
    body = lathe([(lip, 0.03 * h), (r, 0.07 * h), (r, 0.92 * h), (lip, 0.98 * h)])
    ends = merge([
        lathe([(0, 0), (lip, 0), (lip * 1.02, 0.035 * h)]),
        lathe([(lip * 1.02, 0.97 * h), (lip * 1.02, h), (lip * 0.93, h), (lip * 0.9, 0.97 * h), (0, 0.97 * h)]),
        box(r * 0.35, r * 0.7, 0.015).moved(z=0.975 * h, y=r * 0.1),
    ])
    parts = {"main": body, "metal": ends}
    if chance(rng, 0.4):
        z = h * rng.uniform(0.25, 0.4)
        parts[pick(rng, "label", "accent")] = lathe([(r * 1.008, z), (r * 1.008, z + h * rng.uniform(0.15, 0.35))])
    return Built(parts, can_lie=True)


def vase(rng: Rng) -> Built:
    foot, belly, neck = rng.uniform(0.12, 0.18), rng.uniform(0.26, 0.36), rng.uniform(0.07, 0.13)
    zb = rng.uniform(0.3, 0.5)
    profile = smooth_profile([(foot, 0), (foot * 1.02, 0.05), (belly, zb), (neck, rng.uniform(0.76, 0.84)), (neck * rng.uniform(1.5, 2.1), 1.0)], 5)
    body = shell(profile, 0.02, sides=int(rng.integers(6, 10)) if chance(rng, 0.15) else None)
    parts = {"main": body}
    if chance(rng, 0.4):
        stems, heads = [], []
        for _ in range(rng.integers(2, 6)):
            a, x, z = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.25), rng.uniform(1.2, 1.5)
            tip = (x * np.cos(a), x * np.sin(a), z)
            stems.append(tube([(0, 0, 0.7), (tip[0] * 0.4, tip[1] * 0.4, 1.0), tip], 0.013, 6))
            heads.append(sphere(rng.uniform(0.05, 0.09), 8).scaled(1, 1, 0.7).moved(*tip))
        parts["leaf"], parts["accent"] = merge(stems), merge(heads)
    return Built(parts, solids=[("cylinder", (belly * 0.8, 0.5), (0, 0, 0.5))])


def plate(rng: Rng) -> Built:
    r, h = 0.5, rng.uniform(0.06, 0.12)
    inner = r * rng.uniform(0.55, 0.75)
    well = rng.uniform(0.4, 0.75) * h  # height at which the flat middle turns into the rim
    body = lathe(
        [(0, 0), (inner * 0.85, 0), (inner, well * 0.8), (r, h), (r, h + 0.02), (inner * 1.02, well + 0.02), (inner * 0.98, well + 0.012)]
        + [(inner * 0.88, 0.022), (inner * 0.84, 0.018), (0, 0.018)],
        28,
    )
    parts = {"main": body}
    if chance(rng, 0.5):
        parts["accent"] = lathe([(r * 0.93, h * 0.9 + 0.012), (r * 1.005, h + 0.018), (r * 1.01, h)], 28)
    return Built(parts, solids=[("cylinder", (0.5, h / 2), (0, 0, h / 2))])


def bucket(rng: Rng) -> Built:
    r, h = rng.uniform(0.3, 0.38), rng.uniform(0.65, 0.85)
    top = r * rng.uniform(1.2, 1.4)
    body = shell([(r, 0), (r + (top - r) * 0.95, h * 0.95), (top * 1.04, h * 0.95), (top * 1.04, h)], 0.025)
    if chance(rng, 0.5):
        grip = tube(arc((0, 0, h * 0.93), top, top * 0.95, 0, 180, 14), 0.014, 6).rotated("x", rng.uniform(-15, 15))
    else:
        grip = tube(arc((0, 0, 0), top * 1.03, top * 1.03, 0, 180, 14), 0.014, 6).rotated("x", 80).moved(z=h * 0.9)
    return Built({"main": body, pick(rng, "metal", "dark", "light"): grip}, can_lie=True, solids=[("cylinder", (top, h / 2), (0, 0, h / 2))])


def teapot(rng: Rng) -> Built:
    r, h = rng.uniform(0.3, 0.36), rng.uniform(0.42, 0.58)
    profile = smooth_profile([(r * 0.6, 0), (r * 0.95, h * 0.2), (r, h * 0.5), (r * 0.75, h * 0.88), (r * 0.42, h)], 4)
    body = lathe([(0, 0)] + profile + [(0, h)])
    z = h * rng.uniform(0.25, 0.35)
    spout = tube([(r * 0.7, 0, z), (r * 1.2, 0, z + 0.08), (r * 1.45, 0, h * 0.75), (r * 1.75, 0, h * 0.98)], [0.1, 0.075, 0.05, 0.035], 10)
    if chance(rng, 0.7):
        grip = handle_loop(rng, -r * 0.85, h * 0.25, h * 0.85, -rng.uniform(0.2, 0.28), 0.035)
    else:
        grip = tube(arc((0, 0, h * 0.8), r * 0.85, h * 0.6, 0, 180, 12), 0.03, 8)
    lid = merge([lathe([(r * 0.45, h * 0.98), (r * 0.3, h * 1.08), (0, h * 1.1)]), sphere(0.055, 10).moved(z=h * 1.16)])
    parts = {"main": merge([body, spout, lid, grip])}
    if chance(rng, 0.35):
        role = pick(rng, "dark", "metal", "wood", "accent")
        parts = {"main": merge([body, spout, lid]), role: grip}
    return Built(parts, solids=[("cylinder", (r, h / 2), (0, 0, h / 2))])


def frying_pan(rng: Rng) -> Built:
    r, h = rng.uniform(0.3, 0.36), rng.uniform(0.07, 0.13)
    body = shell([(r * 0.82, 0), (r, h)], 0.02, 28)
    length = rng.uniform(0.45, 0.62)
    grip = tube([(r * 0.93, 0, h * 0.7), (r + 0.12, 0, h + 0.05), (r + length, 0, h + rng.uniform(0.04, 0.14))], [0.03, 0.028, 0.038], 8, flat=rng.uniform(0.5, 1.0))
    inside = cylinder(r * 0.78, 0.004, 28).moved(z=0.021)
    role = pick(rng, "dark", "dark", "wood", "main", "metal")
    parts = {"main": body}
    parts[role] = merge([body, grip]) if role == "main" else grip
    if "dark" not in parts and chance(rng, 0.6):
        parts["dark"] = inside
    shift = -(length / 2)
    parts = {k: m.moved(x=shift) for k, m in parts.items()}
    return Built(parts, round_base=False, solids=[("cylinder", (r, h / 2), (shift, 0, h / 2)), ("box", (length / 2, 0.03, 0.02), (r + length / 2 + shift, 0, h))])


def flask(rng: Rng) -> Built:
    neck = rng.uniform(0.09, 0.13)
    if chance(rng, 0.65):  # conical
        r = rng.uniform(0.33, 0.42)
        profile = [(r * 0.92, 0), (r, 0.04), (neck, 0.7), (neck, 0.95), (neck * 1.3, 1.0)]
        fill = lambda z: r + (neck - r) * (z - 0.04) / 0.66
        level = rng.uniform(0.15, 0.4)
        liquid = lathe([(0, 0.02), (r * 0.94, 0.03), (fill(level) * 0.95, level), (0, level)])
    else:  # round bottom, flattened foot
        r = rng.uniform(0.3, 0.36)
        t = np.linspace(-1.2, 1.15, 12)
        profile = [(r * np.cos(x), r * 0.93 + r * np.sin(x)) for x in t] + [(neck, 0.95), (neck * 1.3, 1.0)]
        level = r * rng.uniform(0.7, 1.1)
        u = np.linspace(-1.2, np.arcsin(np.clip(level / r - 0.93, -1, 1)), 7)
        liquid = lathe([(0, 0.01)] + [(0.94 * r * np.cos(x), r * 0.93 + 0.95 * r * np.sin(x)) for x in u] + [(0, r * 0.93 + 0.95 * r * np.sin(u[-1]))])
    # The colour of a flask is that of its content, or of the whole flask where that is opaque.
    if chance(rng, 0.4):
        parts = {"main": shell(profile, 0.015)}
        see = 0.5
    else:
        parts = {"main": liquid, "glass": shell(profile, 0.015)}
        see = 0.0
    if chance(rng, 0.35):
        parts[pick(rng, "dark", "wood", "accent")] = cylinder(neck * 0.95, 0.12, 14, neck * 1.15).moved(z=0.96)
    return Built(parts, see_through=see, solids=[("cylinder", (r, 0.18), (0, 0, 0.18)), ("cylinder", (neck, 0.3), (0, 0, 0.65))])
