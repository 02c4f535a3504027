"""A contact sheet of the world: three random instances of each category, then frames of the held-out split.

``python -m scenelex_sim.sheet --out models/sim/world.jpg``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .dataset import expose, render_small
from .render import Renderer
from .taxonomy import CATEGORIES
from .textures import Bank
from .world import World

CELL_W, CELL_H = 100, 88
SCENE_W, SCENE_H = 300, 225


def portrait(renderer: Renderer, bank: Bank, category: int, number: int) -> np.ndarray:
    """One object of a category, alone on a table; u8[H,W,3]."""
    rng = np.random.default_rng([9, category, number])
    world = World(rng, bank, "val", renderer.width, renderer.height, room=False, categories=[category], distractors=0)
    world.relight(rng)
    item = world.items[0]
    centre = world.data.xpos[item.body] + [0, 0, 0.4 * item.size]
    azimuth, elevation = np.radians(world.sector + rng.uniform(-40, 40)), np.radians(rng.uniform(15, 45))
    away = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    world.look(centre + 2.1 * item.size * away, centre, 0.0, 36.0)
    renderer.attach(world)
    return expose(rng, renderer.draw()[0])


def main() -> None:
    p = argparse.ArgumentParser(description="Draw a contact sheet of the simulated world.")
    p.add_argument("--out", type=Path, required=True, help="a .jpg or .png file")
    out = p.parse_args().out
    columns, rows = 4, -(-len(CATEGORIES) // 4)
    sheet = Image.new("RGB", (columns * 3 * CELL_W, rows * CELL_H + 2 * SCENE_H))
    renderer, bank = Renderer(2 * CELL_W, 2 * CELL_H), Bank(9)
    for c, name in enumerate(CATEGORIES):
        x, y = (c % columns) * 3 * CELL_W, (c // columns) * CELL_H
        for n in range(3):
            picture = Image.fromarray(portrait(renderer, bank, c, n)).resize((CELL_W, CELL_H), Image.Resampling.BOX)
            sheet.paste(picture, (x + n * CELL_W, y))
        ImageDraw.Draw(sheet).text((x + 4, y + 3), name, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
    renderer.close()
    frames = render_small("val", 64)["rgb"][4::8]
    for n, frame in enumerate(frames[:8]):
        picture = Image.fromarray(frame).resize((SCENE_W, SCENE_H), Image.Resampling.BICUBIC)
        sheet.paste(picture, ((n % 4) * SCENE_W, rows * CELL_H + (n // 4) * SCENE_H))
    sheet.save(out, quality=82)


if __name__ == "__main__":
    main()
