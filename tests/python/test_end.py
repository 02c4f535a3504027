"""`scenelex node` ends within a second of a signal, whoever it would have to wait for."""

from __future__ import annotations

import signal
import time

import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from camera import Camera  # noqa: E402
from conftest import IMAGE, ROOT, START  # noqa: E402
from peer import until  # noqa: E402
from pictures import compressed, jpeg, scene  # noqa: E402

# A second, and what a busy test machine adds.
SOON = 1.5


def seconds_to_end(running) -> float:
    start = time.monotonic()
    assert running.end() == 0, running.output()[-2000:]
    return time.monotonic() - start


def test_subscribers_that_stand_still_are_not_waited_for(node, start, peer, tmp_path):
    running = node({"classes": "[red]"})
    recorder = start("record", "/scenelex/masks", "--out", tmp_path / "bag")
    camera = Camera(peer, running)
    picture = jpeg(scene({(1, 1): "red"}))
    camera.serve(compressed(picture, 1))
    until(lambda: recorder.alive() and (tmp_path / "bag").exists(), START, "the recorder")
    time.sleep(2)
    recorder.process.send_signal(signal.SIGSTOP)
    camera.stream([compressed(picture, stamp) for stamp in range(2, 40)], rate=60)
    assert seconds_to_end(running) < SOON
    assert "did not confirm the last result" in running.output(), "the recorder subscribed, and stood still"


def test_a_long_class_list_is_not_encoded_to_its_end(start, tmp_path):
    """With the shipped text encoder: that many names take it many seconds."""
    classes = [f"thing number {number}" for number in range(4000)]
    parameters = tmp_path / "many.yaml"
    parameters.write_text(f"/**:\n  ros__parameters:\n    max_classes: 4096\n    classes: {classes}\n", encoding="utf-8")
    running = start("node", "--ros-args", "--params-file", parameters, "-p", f"models_dir:={ROOT / 'models' / 'sim'}", "-r", f"image:={IMAGE}")
    until(lambda: "models loaded" in running.output(), START, "the models")
    time.sleep(0.5)
    assert seconds_to_end(running) < SOON
    assert "vocabulary in use" not in running.output(), "it was not done when the signal came"
