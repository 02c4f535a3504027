"""Furniture and devices: chair, stool, sofa, lamp, potted plant, monitor, laptop, keyboard, clock."""

from __future__ import annotations

import numpy as np

from .meshes import arc, box, cylinder, lathe, leaf, merge, shell, smooth_profile, sphere, torus, tube
from .parts import Built, Rng, chance, four_legs, key_rows, pick


def chair(rng: Rng) -> Built:
    w, d, seat = rng.uniform(0.42, 0.55), rng.uniform(0.42, 0.52), rng.uniform(0.42, 0.5)
    t, back, lean = rng.uniform(0.03, 0.07), rng.uniform(0.38, 0.55), rng.uniform(0, 14)
    top = [box(w, d, t, bevel=0.012).moved(z=seat)]
    style = rng.integers(3)
    if style == 0:
        rest = [box(w, t * 0.8, back, bevel=0.012)]
    elif style == 1:
        rest = [box(t, t, back).moved(x=s * (w / 2 - t / 2)) for s in (-1, 1)]
        rest += [box(w, t * 0.6, back * 0.16).moved(z=back * z) for z in (0.3, 0.55, 0.8)]
    else:
        rest = [box(t, t, back).moved(x=x) for x in np.linspace(-w / 2 + t, w / 2 - t, 6)] + [box(w, t, back * 0.15).moved(z=back * 0.9)]
    rest = merge(rest).rotated("x", -lean).moved(y=d / 2 - t / 2, z=seat + t * 0.5)
    if chance(rng, 0.25):  # office chair
        stem = [cylinder(0.03, seat).moved(z=0.04)]
        star = [tube([(0, 0, 0.09), (0.27, 0, 0.04)], [0.03, 0.02], 6).rotated("z", 72 * i) for i in range(5)]
        wheels = [sphere(0.035, 8).moved(x=0.27, z=0.035).rotated("z", 72 * i) for i in range(5)]
        legs = merge(stem + star + wheels)
    else:
        legs = four_legs(rng, w, d, seat, rng.uniform(0.018, 0.032), rng.uniform(-0.01, 0.06))
    main = top + [rest]
    parts = {"main": merge(main)}
    leg_role = pick(rng, "main", "wood", "metal", "dark")
    parts[leg_role] = merge([parts["main"], legs]) if leg_role == "main" else legs
    if chance(rng, 0.2):
        arms = [merge([box(0.04, d * 0.8, 0.03).moved(x=s * w / 2, z=seat + 0.2), box(0.03, 0.03, 0.2).moved(x=s * w / 2, y=-d * 0.35, z=seat)]) for s in (-1, 1)]
        parts["main"] = merge([parts["main"]] + arms)
    return Built(parts, round_base=False)


def stool(rng: Rng) -> Built:
    r, h, t = rng.uniform(0.2, 0.27), rng.uniform(0.5, 0.85), rng.uniform(0.04, 0.1)
    seat = cylinder(r, t, 24, r * rng.uniform(0.9, 1.05)).moved(z=h)
    n = int(rng.choice([3, 4]))
    out, thick = r * rng.uniform(0.9, 1.25), rng.uniform(0.018, 0.03)
    legs = [tube([(out, 0, 0), (r * 0.7, 0, h)], thick, 8).rotated("z", 360 / n * i) for i in range(n)]
    if chance(rng, 0.7):
        z = h * rng.uniform(0.25, 0.45)
        legs.append(torus(out + (r * 0.7 - out) * z / h, thick * 0.6, 20, 6).moved(z=z))
    role = pick(rng, "main", "wood", "metal", "dark")
    parts = {"main": seat}
    parts[role] = merge([seat] + legs) if role == "main" else merge(legs)
    return Built(parts)


def sofa(rng: Rng) -> Built:
    w, d, seat = rng.uniform(1.0, 1.5), rng.uniform(0.5, 0.6), rng.uniform(0.22, 0.28)
    arm, back = rng.uniform(0.1, 0.18), rng.uniform(0.28, 0.4)
    soft = rng.uniform(0.03, 0.06)
    body = [box(w, d, seat * 0.75, bevel=soft).moved(z=0.05), box(w, 0.16, seat + back, bevel=soft).moved(y=d / 2 - 0.06, z=0.05)]
    body += [box(arm, d, seat + back * 0.45, bevel=soft).moved(x=s * (w / 2 - arm / 2), z=0.05) for s in (-1, 1)]
    n = int(rng.integers(2, 4))
    cw = (w - 2 * arm) / n
    for i in range(n):
        x = -w / 2 + arm + (i + 0.5) * cw
        body.append(box(cw * 0.97, d * 0.8, 0.1, bevel=0.04).moved(x=x, y=-0.03, z=seat * 0.75 + 0.03))
        body.append(box(cw * 0.95, 0.12, back * 0.9, bevel=0.05).rotated("x", -10).moved(x=x, y=d / 2 - 0.16, z=seat + 0.05))
    feet = [cylinder(0.03, 0.06, 8).moved(x=sx * (w / 2 - 0.07), y=sy * (d / 2 - 0.07)) for sx in (-1, 1) for sy in (-1, 1)]
    parts = {"main": merge(body), pick(rng, "wood", "dark", "metal"): merge(feet)}
    if chance(rng, 0.35):
        parts["accent"] = box(0.24, 0.08, 0.24, bevel=0.04).rotated("x", -25).moved(x=rng.uniform(-0.3, 0.3), y=0.05, z=seat + 0.08)
    return Built(parts, round_base=False, solids=[("box", (w / 2, d / 2, seat / 2), (0, 0, seat / 2)), ("box", (w / 2, 0.08, back / 2), (0, d / 2 - 0.06, seat + back / 2))])


def lamp(rng: Rng) -> Built:
    base = rng.uniform(0.15, 0.22)
    if chance(rng, 0.65):  # table lamp with a fabric shade
        h0, h1 = rng.uniform(0.45, 0.6), 1.0
        r0, r1 = rng.uniform(0.26, 0.36), rng.uniform(0.12, 0.24)
        shade = lathe([(r0, h0), (r1, h1), (r1 - 0.015, h1), (r0 - 0.015, h0), (r0, h0)])
        if chance(rng, 0.5):
            body = lathe([(0, 0)] + smooth_profile([(base * 0.8, 0), (base * 0.7, 0.05), (base * rng.uniform(0.3, 0.9), 0.2), (0.03, 0.42), (0.02, h0 + 0.25)]))
        else:
            body = merge([cylinder(base, 0.04), cylinder(0.022, h0 + 0.2)])
        parts = {"main": shade, pick(rng, "wood", "metal", "accent", "dark"): body, "glow": sphere(0.06, 10).moved(z=h0 + 0.15)}
    else:  # jointed desk lamp
        x, z = rng.uniform(0.15, 0.3), rng.uniform(0.4, 0.55)
        arms = merge([tube([(0, 0, 0.03), (-x, 0, z)], 0.018, 8), tube([(-x, 0, z), (x * 0.8, 0, 0.9)], 0.018, 8), sphere(0.03, 8).moved(x=-x, z=z)])
        head = lathe([(0.04, 0.16), (0.07, 0.12), (0.17, 0), (0.16, 0), (0.05, 0.11)]).rotated("y", -rng.uniform(20, 60)).moved(x=x * 0.9, z=0.8)
        bulb = sphere(0.055, 10).moved(x=x * 0.95, z=0.84)
        foot = cylinder(base, 0.035)
        if chance(rng, 0.6):
            parts = {"main": merge([arms, head, foot]), "glow": bulb}
        else:
            parts = {"main": merge([head, foot]), "metal": arms, "glow": bulb}
    return Built(parts)


def potted_plant(rng: Rng) -> Built:
    r, h = rng.uniform(0.16, 0.22), rng.uniform(0.26, 0.36)
    pot = shell([(r * rng.uniform(0.6, 0.85), 0), (r, h * 0.8), (r * 1.12, h * 0.82), (r * 1.12, h)], 0.02)
    soil = cylinder(r * 0.98, 0.01).moved(z=h * 0.88)
    leaves, stems = [], []
    style = rng.integers(3)
    if style == 0:  # broad leaves from the centre
        for _ in range(rng.integers(12, 22)):
            size = rng.uniform(0.3, 0.6)
            leaves.append(leaf(size, size * rng.uniform(0.25, 0.45), rng.uniform(0.1, 0.9)).rotated("y", -rng.uniform(0, 50)).rotated("z", rng.uniform(0, 360)).moved(z=h * 0.88))
    elif style == 1:  # bush of small leaves
        for _ in range(40):
            size = rng.uniform(0.1, 0.18)
            a, up, out = rng.uniform(0, 360), rng.uniform(0.05, 0.55), rng.uniform(0.0, 0.22)
            leaves.append(leaf(size, size * 0.6, rng.uniform(0, 0.8)).moved(x=out * np.sin(np.pi * min(up / 0.6 + 0.2, 1))).rotated("z", a).moved(z=h + up))
        for _ in range(5):
            a = rng.uniform(0, 2 * np.pi)
            stems.append(tube([(0, 0, h * 0.8), (0.1 * np.cos(a), 0.1 * np.sin(a), h + 0.35)], 0.012, 6))
    else:  # cactus or succulent column
        body = smooth_profile([(0.06, 0), (rng.uniform(0.09, 0.14), 0.2), (rng.uniform(0.08, 0.13), 0.4), (0.0, 0.5)], 4)
        leaves.append(lathe([(0, 0)] + body, sides=int(rng.integers(7, 12))).moved(z=h * 0.85))
        for s in (-1, 1):
            if chance(rng, 0.7):
                leaves.append(tube([(0, 0, h + 0.15), (s * 0.2, 0, h + 0.17), (s * 0.22, 0, h + rng.uniform(0.3, 0.4))], [0.045, 0.05, 0.04], 8))
    parts = {"main": pot, "soil": soil, "leaf": merge(leaves)}
    if stems:
        parts["wood"] = merge(stems)
    return Built(parts, solids=[("cylinder", (r * 1.05, h / 2), (0, 0, h / 2)), ("cylinder", (0.12, 0.2), (0, 0, h + 0.2))])


def monitor(rng: Rng) -> Built:
    w, h, t = 1.0, rng.uniform(0.52, 0.68), rng.uniform(0.04, 0.1)
    lift, b = rng.uniform(0.12, 0.24), rng.uniform(0.03, 0.06)
    frame = box(w, t, h, bevel=0.012).moved(z=lift)
    screen = box(w - 2 * b, 0.01, h - 2 * b).moved(y=-t / 2, z=lift + b)
    stem = box(rng.uniform(0.06, 0.16), 0.05, lift + h * 0.4).moved(y=t / 2 + 0.02)
    foot = box(rng.uniform(0.32, 0.45), 0.26, 0.025, bevel=0.008) if chance(rng, 0.6) else cylinder(rng.uniform(0.16, 0.2), 0.025)
    stand = merge([stem, foot.moved(y=0.03)])
    parts = {"screen": screen}
    if chance(rng, 0.7):
        parts["main"] = merge([frame, stand])
    else:
        parts["main"], parts["metal"] = frame, stand
    return Built(parts, round_base=False)


def laptop(rng: Rng) -> Built:
    w, d, t = 1.0, rng.uniform(0.62, 0.74), rng.uniform(0.025, 0.05)
    angle = rng.uniform(0, 35)
    lid = box(w, t * 0.7, d, bevel=0.008).rotated("x", -angle).moved(y=d / 2, z=t)
    screen = box(w * 0.9, 0.006, d * 0.84).moved(y=-t * 0.36, z=d * 0.08).rotated("x", -angle).moved(y=d / 2, z=t)
    deck = box(w, d, t, bevel=0.008)
    keys = key_rows(rng, w * 0.88, d * 0.48, 5, t - 0.01).moved(y=d * 0.15)
    pad = box(w * 0.28, d * 0.22, 0.006).moved(y=-d * 0.3, z=t - 0.002)
    parts = {"main": merge([lid, deck]), "screen": screen, pick(rng, "dark", "dark", "light"): merge([keys, pad])}
    solids = [("box", (w / 2, d / 2, t / 2), (0, 0, t / 2)), ("box", (w / 2, 0.02, d * 0.4), (0, d / 2 + 0.02, d * 0.45))]
    return Built(parts, round_base=False, solids=solids)


def keyboard(rng: Rng) -> Built:
    w, d, t = 1.2, rng.uniform(0.36, 0.46), rng.uniform(0.03, 0.06)
    case = box(w, d, t, bevel=0.012)
    keys = key_rows(rng, w * 0.95, d * 0.86, int(rng.integers(5, 7)), t - 0.004)
    role = pick(rng, "main", "dark", "light", "light")
    parts = {"main": case}
    parts[role] = merge([case, keys]) if role == "main" else keys
    return Built(parts, round_base=False)


def clock(rng: Rng) -> Built:
    r, t = 0.42, rng.uniform(0.1, 0.2)
    square = chance(rng, 0.3)
    if square:
        case = box(2 * r, t, 2 * r, bevel=0.05).moved(z=0.06)
    else:
        case = lathe([(0, 0), (r, 0), (r, t), (r * 0.9, t), (r * 0.88, t * 0.8), (0, t * 0.8)], 28).rotated("x", 90).moved(y=t / 2, z=r + 0.06)
    front = -t / 2 + (0.0 if square else t * 0.2)
    face = cylinder(r * 0.86, 0.012, 28).rotated("x", 90).moved(y=front, z=r + 0.06)
    marks = [box(0.025 if i % 3 else 0.045, 0.008, 0.09).moved(z=r * 0.62).rotated("y", 30 * i).moved(y=front - 0.016, z=r + 0.06) for i in range(12)]
    hands = [box(w, 0.01, length).rotated("y", rng.uniform(0, 360)).moved(y=front - 0.022, z=r + 0.06) for w, length in ((0.05, 0.2), (0.035, 0.3))]
    feet = [tube([(s * 0.22, 0, 0), (s * 0.2, 0, 0.2)], 0.04, 8) for s in (-1, 1)]
    parts = {"paper": face, "dark": merge(marks + hands), "main": merge([case] + feet)}
    if not square and chance(rng, 0.5):
        bells = [lathe([(0.13, 0), (0.1, 0.08), (0, 0.12)], 14).rotated("y", s * 32).moved(x=s * 0.24, z=2 * r + 0.02) for s in (-1, 1)]
        parts["metal"] = merge(bells + [tube(arc((0, 0, 2 * r + 0.1), 0.13, 0.13, 0, 180, 8), 0.018, 6)])
    return Built(parts, round_base=False)
