"""~/segment from another ROS 2 implementation. The tiny mask decoder's answers are known (golden/make_tiny_models.py): inside a
box, all of it, with a predicted IoU of 0.9 less 0.001 for each point on the thing; around points without a box, a square of
12 px of its 128 px input to each side, or of 8 px and an IoU of 0.8 where a single point leaves open what is meant."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from camera import NODE, Camera  # noqa: E402
from conftest import RESULT  # noqa: E402
from idl_from_msg import default  # noqa: E402
from pictures import HEIGHT, WIDTH, compressed, jpeg, mask, overlap, raw, scene, stamp_ns  # noqa: E402

PICTURE = scene({(0, 0): "red"})
INPUT = 128
SCALE = max(WIDTH, HEIGHT) / INPUT


def prompt(box=None, on=(), beside=(), label=""):
    """A prompt; box by its corners."""
    points = [default("geometry_msgs/msg/Point", x=float(x), y=float(y)) for x, y in [*on, *beside]]
    made = default("scenelex/msg/SegmentPrompt", label=label, points=points, point_labels=[1] * len(on) + [0] * len(beside))
    if box:
        made.box.x_offset, made.box.y_offset = box[:2]
        made.box.width, made.box.height = box[2] - box[0], box[3] - box[1]
    return made


def area(x0, y0, x1, y1, size=(HEIGHT, WIDTH)) -> np.ndarray:
    """A rectangle as a mask."""
    made = np.zeros(size, np.uint8)
    made[max(round(y0), 0) : round(y1), max(round(x0), 0) : round(x1)] = 1
    return made


def around(x, y, radius) -> np.ndarray:
    reach = radius * SCALE
    return area(x - reach, y - reach, x + reach, y + reach)


@pytest.fixture
def segment(peer):
    return lambda **request: peer.call(f"{NODE}/segment", "scenelex/srv/Segment", timeout=RESULT, **request)


def test_boxes_and_points_on_an_image_and_on_the_last_frame(node, peer, segment):
    camera = Camera(peer, node())
    prompts = [
        prompt((10, 5, 70, 60), label="a box"),
        prompt(on=[(100, 90)], label="a point"),
        prompt(on=[(90, 90), (130, 90)], beside=[(5, 5)], label="points"),
        prompt((30, 20, 90, 80), on=[(50, 40)], beside=[(80, 70)], label="both"),
    ]
    expected = [area(10, 5, 70, 60), around(100, 90, 8), around(110, 90, 12), area(30, 20, 90, 80)]

    assert "no image has come" in segment(prompts=prompts).message
    with_image = segment(image=raw(PICTURE, 77), prompts=prompts)
    camera.serve(compressed(jpeg(PICTURE), 99))
    of_last_frame = segment(prompts=prompts)
    for answer, stamp in ((with_image, 77), (of_last_frame, 99)):
        assert answer.success, answer.message
        masks = answer.masks
        assert (masks.height, masks.width, stamp_ns(masks)) == (HEIGHT, WIDTH, stamp)
        assert [one.label for one in masks.masks] == ["a box", "a point", "points", "both"]
        assert [one.class_id for one in masks.masks] == [65535] * 4
        assert np.allclose([one.mask_score for one in masks.masks], [0.9, 0.8, 0.898, 0.899], atol=1e-4)
        for one, there in zip(masks.masks, expected, strict=True):
            assert overlap(mask(one.counts, HEIGHT, WIDTH), there) > 0.85, one.label
        assert (masks.masks[0].bbox.x_offset, masks.masks[0].bbox.width) == (10, 60)
        for one in masks.masks[1:3]:  # without a box of their own: the smallest around the mask
            rows, columns = np.nonzero(mask(one.counts, HEIGHT, WIDTH))
            found = (one.bbox.x_offset, one.bbox.y_offset, one.bbox.width, one.bbox.height)
            assert found == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1), one.label
    assert len(camera.serve(compressed(jpeg(PICTURE), 100))["masks"].masks) == 1, "frames go on"


def test_many_prompts_and_those_beside_the_image_keep_their_order(node, segment):
    node()
    prompts = [prompt((x, 10, x + 80, 90), label=str(x)) for x in range(0, 100)]
    prompts[50] = prompt((WIDTH + 50, 10, WIDTH + 130, 90), label="50")
    answer = segment(image=raw(PICTURE, 1), prompts=prompts)
    assert [one.label for one in answer.masks.masks] == [str(x) for x in range(100)]
    for x, one in enumerate(answer.masks.masks):
        found = mask(one.counts, HEIGHT, WIDTH)
        assert (found.sum() == 0 and one.mask_score == 0) if x == 50 else overlap(found, area(x, 10, x + 80, 90)) > 0.8, x


def test_what_is_wrong_is_said(node, peer, segment):
    camera = Camera(peer, node())
    image = raw(PICTURE, 1)
    mislabelled = prompt(on=[(5, 5)])
    mislabelled.point_labels = [7]
    unlabelled = prompt(on=[(5, 5)])
    unlabelled.point_labels = []
    short = raw(PICTURE, 1, data=b"12345")
    for request, reason in [
        ({"image": image, "prompts": []}, "1 to 256 prompts are expected, found 0"),
        ({"image": image, "prompts": [prompt((0, 0, 5, 5))] * 257}, "found 257"),
        ({"image": image, "prompts": [prompt((0, 0, 5, 5)), prompt()]}, "prompt 1: neither a box nor a point"),
        ({"image": image, "prompts": [prompt(beside=[(5, 5)])]}, "neither a box nor a point"),
        ({"image": image, "prompts": [prompt(on=[(float("nan"), 5)])]}, "a point at (NaN, 5)"),
        ({"image": image, "prompts": [mislabelled]}, "found 7"),
        ({"image": image, "prompts": [unlabelled]}, "1 points have 0 labels"),
        ({"image": image, "prompts": [prompt(on=[(1, 1)] * 257)]}, "at most 256 points"),
        ({"image": short, "prompts": [prompt((0, 0, 5, 5))]}, "5"),
        ({"image": raw(PICTURE, 1, encoding="rgb8"), "prompts": [prompt((0, 0, 5, 5))]}, ""),
    ]:
        answer = segment(**request)
        assert answer.success == (reason == ""), reason
        assert reason in answer.message, answer.message
        assert answer.success or not answer.masks.masks
    assert camera.serve(compressed(jpeg(PICTURE), 5))["masks"].masks
