"""Names of the simulated world: categories, the words for them, colours and what is held out.

`CATEGORIES` is ordered: index ``k`` is the category number in the data shards and ``k + 1`` the class id
in ground-truth images (0 = background, 255 = ignore). The first word of each list in `TRAIN_WORDS` is
the category's own name. `HELD_OUT_WORDS` are never shown to a model in training, `HELD_OUT_PAIRS` are
(colour, category) combinations that no training frame contains.
"""

from __future__ import annotations

import colorsys

import numpy as np

TRAIN_WORDS: dict[str, list[str]] = {
    "mug": ["mug", "coffee mug", "cup", "tea cup", "drinking cup", "ceramic mug", "tea mug", "beer mug"],
    "bottle": [
        "bottle", "water bottle", "glass bottle", "plastic bottle",
        "juice bottle", "soda bottle", "beer bottle", "flagon",
    ],
    "bowl": ["bowl", "soup bowl", "salad bowl", "mixing bowl", "fruit bowl", "breakfast bowl", "basin", "noodle bowl"],
    "ball": ["ball", "toy ball", "sports ball", "beach ball", "sphere", "soccer ball", "basketball", "bouncy ball"],
    "box": ["box", "cardboard box", "carton", "package", "storage box", "delivery box", "packet", "cube"],
    "can": ["can", "soda can", "tin can", "beverage can", "drink can", "tin", "cola can", "canned drink"],
    "chair": [
        "chair", "dining chair", "wooden chair", "seat",
        "desk chair", "office chair", "armchair", "classroom chair",
    ],
    "potted plant": [
        "potted plant", "plant", "houseplant", "indoor plant",
        "pot plant", "flower pot", "flowerpot", "leafy plant",
    ],
    "monitor": [
        "monitor", "computer monitor", "computer screen", "display",
        "screen", "flat screen", "desktop monitor", "television",
    ],
    "traffic cone": [
        "traffic cone", "cone", "safety cone", "road cone",
        "warning cone", "pylon", "highway cone", "construction cone",
    ],
    "stool": [
        "stool", "bar stool", "round stool", "wooden stool",
        "footstool", "counter stool", "backless stool", "three-legged stool",
    ],
    "lamp": ["lamp", "table lamp", "desk lamp", "lampshade", "light", "floor lamp", "night light", "shaded lamp"],
    "book": ["book", "hardcover book", "textbook", "novel", "hardback", "closed book", "library book", "encyclopedia"],
    "laptop": [
        "laptop", "laptop computer", "notebook computer", "portable computer",
        "open laptop", "gaming laptop", "chromebook", "personal laptop",
    ],
    "keyboard": [
        "keyboard", "computer keyboard", "keypad", "typing keyboard",
        "desktop keyboard", "wireless keyboard", "usb keyboard", "mechanical keyboard",
    ],
    "vase": [
        "vase", "flower vase", "ceramic vase", "porcelain vase",
        "tall vase", "urn", "decorative vase", "clay vase",
    ],
    "plate": [
        "plate", "dinner plate", "dish", "serving plate",
        "side plate", "flat plate", "dessert plate", "porcelain plate",
    ],
    "bucket": ["bucket", "pail", "metal bucket", "water bucket", "plastic bucket", "paint bucket", "bin", "wash tub"],
    "teapot": [
        "teapot", "tea pot", "tea kettle", "porcelain teapot",
        "china teapot", "pot of tea", "teakettle", "pot for tea",
    ],
    "frying pan": [
        "frying pan", "pan", "skillet", "cooking pan",
        "fry pan", "cast iron pan", "griddle", "nonstick pan",
    ],
    "hammer": [
        "hammer", "claw hammer", "sledgehammer", "mallet",
        "framing hammer", "steel hammer", "gavel", "ball peen hammer",
    ],
    "screwdriver": [
        "screwdriver", "phillips screwdriver", "flathead screwdriver", "screw driver tool",
        "slotted screwdriver", "torx screwdriver", "long screwdriver", "screwdriver with a handle",
    ],
    "banana": [
        "banana", "ripe banana", "banana fruit", "plantain",
        "single banana", "sweet banana", "tropical banana", "curved fruit",
    ],
    "flask": [
        "flask", "laboratory flask", "erlenmeyer flask", "chemistry flask",
        "beaker", "volumetric flask", "round flask", "science flask",
    ],
    "microscope": [
        "microscope", "optical microscope", "laboratory microscope", "light microscope",
        "school microscope", "student microscope", "biology microscope", "stereo microscope",
    ],
    "fire extinguisher": [
        "fire extinguisher", "extinguisher", "hand-held fire extinguisher", "foam extinguisher",
        "emergency extinguisher", "portable extinguisher", "wall extinguisher", "extinguisher cylinder",
    ],
    "clock": [
        "clock", "alarm clock", "table clock", "analog clock",
        "wall clock", "round clock", "mantel clock", "ticking clock",
    ],
    "sofa": [
        "sofa", "couch", "settee", "living room sofa",
        "divan", "lounge sofa", "two-seat sofa", "upholstered sofa",
    ],
}

HELD_OUT_WORDS: dict[str, list[str]] = {
    "mug": ["teacup", "coffee cup"],
    "bottle": ["wine bottle", "drinking bottle"],
    "bowl": ["cereal bowl", "rice bowl"],
    "ball": ["rubber ball", "football"],
    "box": ["crate", "parcel"],
    "can": ["beer can", "aluminium can"],
    "chair": ["kitchen chair", "armless chair"],
    "potted plant": ["plant in a pot", "shrub"],
    "monitor": ["lcd screen", "pc monitor"],
    "traffic cone": ["pylon cone", "street cone"],
    "stool": ["barstool", "kitchen stool"],
    "lamp": ["bedside lamp", "reading lamp"],
    "book": ["paperback", "storybook"],
    "laptop": ["notebook pc", "macbook"],
    "keyboard": ["pc keyboard", "qwerty keyboard"],
    "vase": ["pottery vase", "glass vase"],
    "plate": ["platter", "saucer"],
    "bucket": ["tub", "mop bucket"],
    "teapot": ["kettle", "ceramic teapot"],
    "frying pan": ["frypan", "saucepan"],
    "hammer": ["carpenter's hammer", "hammer tool"],
    "screwdriver": ["cross-head screwdriver", "hand screwdriver"],
    "banana": ["fresh banana", "cavendish banana"],
    "flask": ["conical flask", "glass flask"],
    "microscope": ["lab microscope", "compound microscope"],
    "fire extinguisher": ["fire suppressor", "fire-fighting cylinder"],
    "clock": ["desk clock", "timepiece"],
    "sofa": ["loveseat", "futon"],
}

CATEGORIES: list[str] = list(TRAIN_WORDS)

# name -> (hue range, saturation range, value range), each 0..1; hue may run past 1 (wraps around).
COLORS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((0.975, 1.015), (0.75, 1.0), (0.50, 0.90)),
    "green": ((0.28, 0.40), (0.55, 1.0), (0.35, 0.80)),
    "blue": ((0.57, 0.66), (0.60, 1.0), (0.45, 0.95)),
    "yellow": ((0.135, 0.165), (0.70, 1.0), (0.80, 1.0)),
    "orange": ((0.055, 0.085), (0.80, 1.0), (0.85, 1.0)),
    "purple": ((0.74, 0.80), (0.50, 0.90), (0.35, 0.70)),
    "pink": ((0.90, 0.96), (0.30, 0.55), (0.90, 1.0)),
    "white": ((0.0, 1.0), (0.0, 0.05), (0.90, 1.0)),
    "black": ((0.0, 1.0), (0.0, 0.15), (0.02, 0.11)),
    "grey": ((0.0, 1.0), (0.0, 0.06), (0.35, 0.58)),
    "brown": ((0.045, 0.075), (0.55, 0.80), (0.26, 0.44)),
}
COLOR_NAMES: list[str] = list(COLORS)

# About one in eight combinations: one colour per category, a second one for every third category.
HELD_OUT_PAIRS: set[tuple[str, str]] = {
    (COLOR_NAMES[(3 * i) % len(COLOR_NAMES)], c) for i, c in enumerate(CATEGORIES)
} | {
    (COLOR_NAMES[(3 * i + 5) % len(COLOR_NAMES)], c) for i, c in enumerate(CATEGORIES) if i % 3 == 1
}

BACKGROUND_CLASS = 0
IGNORE_CLASS = 255


def class_id(category: str) -> int:
    """Class id of a category in ground-truth images and in the LabelInfo: 1-based, 0 is background."""
    return CATEGORIES.index(category) + 1


def sample_color(rng: np.random.Generator, name: str) -> tuple[float, float, float]:
    """Draws an RGB triple (0..1) that people would call `name`."""
    (h0, h1), (s0, s1), (v0, v1) = COLORS[name]
    return colorsys.hsv_to_rgb(rng.uniform(h0, h1) % 1.0, rng.uniform(s0, s1), rng.uniform(v0, v1))
