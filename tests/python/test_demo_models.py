"""The models that ship, on the bundled bag, over the wire: masks against ground truth, judged by pycocotools."""

from __future__ import annotations

import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from camera import Camera  # noqa: E402
from conftest import ROOT  # noqa: E402
from pictures import Score, compressed, painted  # noqa: E402


def test_masks_agree_with_the_ground_truth(node, peer, demo_bag):
    classes = demo_bag.classes()
    camera = Camera(peer, node({"models_dir": ROOT / "models" / "sim", "classes": f"[{', '.join(classes)}]"}))
    score = Score(demo_bag.names)
    for picture in demo_bag.pictures[::10]:
        masks = camera.serve(compressed(picture.jpeg, picture.stamp_ns))["masks"]
        found = painted(masks.masks, *picture.truth.shape, lambda one: classes.index(one.label) + 1)
        score.add(picture.truth, found, dict(enumerate(classes, start=1)))
    # A floor under what the shipped models reach on these frames, 0.348; the demo's goal of 0.70 is theirs to reach.
    # Masks in the wrong place or under the wrong label would fall far below.
    assert score.mean() >= 0.30, {n: round(score.intersection[n] / u, 2) for n, u in score.union.items() if u}
