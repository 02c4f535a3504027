"""Several cameras of one node: topics, slots and counts of their own, turns on the models, one class list."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from camera import LATCHED, NODE, PER_FRAME, Camera  # noqa: E402
from conftest import RESULT  # noqa: E402
from idl_from_msg import default  # noqa: E402
from peer import until  # noqa: E402
from pictures import HEIGHT, WIDTH, compressed, jpeg, mask, scene, stamp_ns  # noqa: E402
from test_refresh import PARAMETERS as REFRESH  # noqa: E402
from test_refresh import Vocabulary  # noqa: E402

RED, BLUE = jpeg(scene({(0, 0): "red"})), jpeg(scene({(2, 1): "blue", (3, 2): "blue"}))
CAMERAS = {"cameras": "[front, rear]", "diagnostics.period": 0.2}


def labels(masks) -> list[str]:
    return [one.label for one in masks.masks]


def statuses(topic, condition) -> dict[str, dict]:
    """Values, level and message of each camera's part of /diagnostics, once `condition` holds."""

    def come():
        for array in topic.take(timeout=0.3):
            found = {}
            for status in array.status:
                name = status.name.rpartition(": frames of ")[2]
                found[name] = {pair.key: pair.value for pair in status.values}
                found[name] |= {"level": status.level, "message": status.message}
            if condition(found):
                return found
        return None

    return until(come, RESULT, "both cameras on /diagnostics")


@pytest.mark.parametrize("batch", [1, 2])
def test_each_camera_has_topics_of_its_own(node, peer, batch):
    running = node(CAMERAS | {"image_batch": batch})
    front, rear = (Camera(peer, running, name=name, outputs=tuple(PER_FRAME)) for name in ("front", "rear"))
    label_info = [
        peer.subscribe(f"{NODE}/{name}/semantic/label_info", LATCHED["semantic/label_info"], latched=True)
        for name in ("front", "rear")
    ]
    # Another size and frame than the other's, and stamps that tell them apart.
    small = jpeg(scene({(2, 1): "blue", (3, 2): "blue"})[::2, ::2])
    for turn in range(10):
        at_front, at_rear = compressed(RED, 1000 + turn), compressed(small, 2000 + turn)
        at_front.header.frame_id, at_rear.header.frame_id = "front_optical", "rear_optical"
        if turn == 0:
            front.serve(at_front), rear.serve(at_rear)
            continue
        front.send(at_front), rear.send(at_rear)
        for outputs, frame, size, seen in (
            (front.result(1000 + turn), "front_optical", (HEIGHT, WIDTH), ["red"]),
            (rear.result(2000 + turn), "rear_optical", (HEIGHT // 2, WIDTH // 2), ["blue"] * 2),
        ):
            masks = outputs["masks"]
            assert (masks.header.frame_id, masks.height, masks.width, labels(masks)) == (frame, *size, seen)
            assert all(mask(one.counts, *size).sum() > 0 for one in masks.masks)
            assert len(outputs["detections"].detections) == len(seen)
            for image in ("semantic/image", "instances/image"):
                assert (outputs[image].header.frame_id, outputs[image].height, outputs[image].width) == (frame, *size)
    assert all(stamp < 2000 for stamp in front.kept["masks"]) and all(stamp >= 2000 for stamp in rear.kept["masks"])
    for topic in label_info:
        assert {entry.class_name for entry in topic.wait(lambda _: True, RESULT).class_map} >= {"red", "blue"}


def test_a_fast_camera_leaves_a_slow_one_its_turn(node, peer):
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)
    running = node(CAMERAS)
    fast, slow = (Camera(peer, running, name=name) for name in ("front", "rear"))
    fast.serve(compressed(RED, 1)), slow.serve(compressed(BLUE, 1))
    sent = 20
    shown = itertools.count(10**9)
    for turn in range(1, sent + 1):
        slow.send(compressed(BLUE, 10**6 + turn))
        # More than the models can do, without a pause in which nobody else would want them.
        deadline = time.monotonic() + RESULT
        while 10**6 + turn not in slow.kept["masks"]:
            assert time.monotonic() < deadline, f"image {turn} of the slow camera is not served while the fast one sends"
            fast.stream([compressed(RED, next(shown)) for _ in range(20)], rate=2000)
            slow.collect()

    def all_served(found):
        return found["rear"]["received"] == found["rear"]["processed"] and int(found["rear"]["received"]) > sent

    got = statuses(diagnostics, all_served)
    assert got["rear"]["dropped"] == "0", "none of the slow camera's images was replaced"
    assert int(got["front"]["dropped"]) > 0


def test_a_dead_or_broken_camera_does_not_touch_the_other(node, peer):
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)
    running = node(CAMERAS | {"image_batch": 2})
    front, rear = (Camera(peer, running, name=name) for name in ("front", "rear"))
    for stamp in range(1, 20):
        rear.send(compressed(b"\xff\xd8\xff rubbish", stamp))
        assert labels(front.serve(compressed(RED, stamp))["masks"]) == ["red"]

    def all_counted(found):
        # Each broken one once: as bad, or as dropped where the next came before it was looked at.
        front, rear = found["front"], found["rear"]
        return int(rear["bad_images"]) + int(rear["dropped"]) == 19 <= int(front["processed"])

    got = statuses(diagnostics, all_counted)
    assert got["rear"]["processed"] == "0" and got["rear"]["lost"] == "0"
    assert got["rear"]["bad_images.codec"] == got["rear"]["bad_images"] and int(got["rear"]["dropped"]) < 5
    assert got["front"]["bad_images"] == "0"
    # Now it is silent.
    shown = iter(range(100, 10**6))

    def silent(found):
        front.serve(compressed(RED, next(shown)))
        return "no image on /rear/image" in found["rear"]["message"] and found["front"]["level"] == 0

    got = statuses(diagnostics, silent)
    assert float(got["rear"]["image_age_s"]) > 3 > float(got["front"]["image_age_s"])


def test_the_last_image_of_a_camera_is_segmented(node, peer):
    running = node(CAMERAS)
    for name, picture, stamp in (("front", RED, 5), ("rear", jpeg(scene({})[::2]), 6)):
        Camera(peer, running, name=name).serve(compressed(picture, stamp))

    def segment(camera):
        prompt = default("scenelex/msg/SegmentPrompt", label="a box")
        prompt.box.width = prompt.box.height = 50
        return peer.call(f"{NODE}/segment", "scenelex/srv/Segment", timeout=RESULT, camera=camera, prompts=[prompt])

    for name, height, stamp in (("front", HEIGHT, 5), ("rear", HEIGHT // 2, 6)):
        answer = segment(name)
        assert answer.success, answer.message
        assert (stamp_ns(answer.masks), answer.masks.height) == (stamp, height)
        assert np.isclose(mask(answer.masks.masks[0].counts, height, WIDTH).sum(), 2500, rtol=0.1)
    for wrong in ("", "roof"):
        assert f'one of front, rear; found "{wrong}"' in segment(wrong).message


def test_the_list_is_one_for_what_all_cameras_see(node, peer):
    vocabulary = Vocabulary(peer)
    running = node(REFRESH | CAMERAS)
    front, rear = (Camera(peer, running, name=name) for name in ("front", "rear"))
    shown = iter(range(1, 10**6))

    def show(at_rear):
        def come():
            stamp = next(shown)
            front.serve(compressed(RED, stamp))
            if at_rear:
                rear.serve(compressed(at_rear, stamp))
            for one in vocabulary.topic.take(0.05):
                vocabulary.last = sorted(entry.label for entry in one.entries)
            return getattr(vocabulary, "last", None)

        return come

    both = show(BLUE)
    until(lambda: both() == ["blue", "red"], RESULT, "a list of what both see")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert both() == ["blue", "red"], "looks at one camera drop nothing that the other sees"
    one = show(None)
    until(lambda: one() == ["red"], RESULT, "what a camera saw that has fallen silent is forgotten")
