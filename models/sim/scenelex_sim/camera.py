"""A camera on its path through a held-out scene, with ground truth: what is recorded as a bag and what is shown live."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dataset import MIN_AREA, MIN_VISIBLE, expose
from .paths import make_path
from .render import Renderer
from .taxonomy import CATEGORIES, IGNORE_CLASS, class_id
from .textures import Bank
from .world import World

SEED_SPACE = 3  # these scenes have their own seeds, apart from the data splits of `dataset.SPLITS`
FOVY = 50.0
NOISE = 1.3  # standard deviation of a pixel, in levels
TABLE_TOP = [
    "mug", "bottle", "bowl", "ball", "box", "can", "potted plant", "monitor", "lamp", "book", "laptop", "keyboard", "vase", "plate",
    "teapot", "frying pan", "hammer", "screwdriver", "banana", "flask", "microscope", "clock", "fire extinguisher", "traffic cone", "bucket",
]  # fmt: skip


def build_world(seed: int, width: int, height: int, room: bool) -> World:
    """A scene of 9 to 12 different things, each once, and an unlabelled shape or two."""
    rng = np.random.default_rng([SEED_SPACE, seed])
    names = CATEGORIES if room else TABLE_TOP
    chosen = rng.choice(len(names), int(rng.integers(9, 13)), replace=False)
    wanted = [CATEGORIES.index(names[i]) for i in chosen]
    world = World(rng, Bank(SEED_SPACE), "val", width, height, room=room, categories=wanted, distractors=int(rng.integers(1, 3)))
    world.restyle(rng)
    return world


def semantic(world: World, instance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class ids u8[H,W] and instance numbers u16[H,W] of an item image (item index + 1, 0 = none)."""
    area = np.bincount(instance.ravel(), minlength=len(world.items) + 1)
    visible = world.visible_fractions(instance)
    classes = np.zeros(len(world.items) + 1, np.uint8)
    numbers = np.zeros(len(world.items) + 1, np.uint16)
    labelled = 0
    for i, item in enumerate(world.items):
        if item.category < 0:
            continue
        labelled += 1
        doubtful = area[i + 1] < MIN_AREA * instance.size or visible[i] < MIN_VISIBLE
        classes[i + 1] = IGNORE_CLASS if doubtful else class_id(CATEGORIES[item.category])
        numbers[i + 1] = labelled
    return classes[instance], numbers[instance]


@dataclass(frozen=True)
class Shot:
    """What was asked for of one moment; the rest is None."""

    rgb: np.ndarray | None  # u8[H,W,3]
    classes: np.ndarray | None  # u8[H,W], class ids
    numbers: np.ndarray | None  # u16[H,W], instance numbers, stable along the path, 0 = none
    depth_mm: np.ndarray | None  # u16[H,W], along the optical axis, 0 = none


class Camera:
    """Renders one scene from a moving point of view. For the thread that made it, as its OpenGL context is."""

    def __init__(
        self, seed: int, width: int, height: int, path: str, seconds: float, room: bool = False, pixels: float = 110.0,
        samples: int | None = None, shadow_map: int | None = None,
    ):  # fmt: skip
        """`path`, `seconds` and `pixels` are those of `make_path`.

        `samples` a pixel and the side of the `shadow_map` replace the world's own; less of them saves time where no GPU draws.
        """
        self.rng = np.random.default_rng([SEED_SPACE, seed, 1])
        self.world = build_world(seed, width, height, room)
        quality = self.world.model.vis.quality
        quality.offsamples = quality.offsamples if samples is None else samples
        quality.shadowsize = quality.shadowsize if shadow_map is None else shadow_map
        self.renderer = Renderer(width, height)
        self.renderer.attach(self.world)
        self.path = make_path(path, self.world, self.rng, seconds, FOVY, pixels)
        self.tone: np.ndarray | None = None

    def shoot(self, t: float, colour: bool = True, labels: bool = True, depth: bool = True) -> Shot:
        """The view `t` seconds along the path; only what is wanted is drawn."""
        eye, target, roll = self.path(t)
        self.world.look(eye, target, roll, FOVY)
        rgb, instance, metres = self.renderer.draw(colour, labels, depth)
        classes = numbers = mm = None
        if rgb is not None:
            rgb = self._develop(rgb)
        if instance is not None:
            classes, numbers = semantic(self.world, instance)
        if metres is not None:
            mm = np.round(metres.astype(np.float64) * 1000)
            mm = np.where(mm < 65535, mm, 0).astype(np.uint16)
        return Shot(rgb, classes, numbers, mm)

    def _develop(self, rgb: np.ndarray) -> np.ndarray:
        if self.tone is None:  # exposure is locked on the first picture
            ramp = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)[None]
            self.tone = expose(self.rng, rgb, apply_to=ramp)[0, :, 0]
        noisy = self.tone[rgb] + self.rng.normal(0, NOISE, rgb.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position and axes of the last shot, as `Messages.transform` takes them."""
        return self.world.data.cam_xpos[0], self.world.data.cam_xmat[0].reshape(3, 3)

    def focal(self) -> float:
        """Focal length in pixels of the last shot."""
        return self.world.focal()

    def close(self) -> None:
        self.renderer.close()
