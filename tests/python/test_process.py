"""`scenelex node` as a process: how it ends, and what it says about a wrong command line."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import END, IMAGE, ROOT


def refused(program, environment, *arguments) -> str:
    """Run `scenelex node` with arguments it must refuse; what it says."""
    command = [program, "node", "--ros-args", "-r", f"image:={IMAGE}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=END)
    assert done.returncode not in (0, 101), f"status {done.returncode}\n{done.stderr}"
    assert "panicked" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_without_losing_a_result(node, peer, by):
    from camera import Camera
    from pictures import compressed, jpeg, scene

    running = node()
    camera = Camera(peer, running)
    picture = jpeg(scene({(1, 1): "red"}))
    camera.serve(compressed(picture, 1))
    camera.stream([compressed(picture, stamp) for stamp in range(2, 100)], rate=100)
    assert running.end(by) == 0, running.output()[-2000:]
    camera.collect(1.0)
    (counts,) = re.findall(r"received=(\d+) processed=(\d+) dropped=(\d+) bad=(\d+)", running.output())
    received, processed, dropped, bad = map(int, counts)
    assert received == processed + dropped + bad
    # The first picture's result has been taken by serve().
    came = len(camera.kept["masks"]) + 1
    assert came <= processed <= came + camera.lost, "every image that was processed since the first result has its own"


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for a signal."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_a_signal_ends_it_while_models_are_being_loaded(start):
    """A loader that cannot be interrupted must not be at work in a library that is being taken down."""
    from peer import until

    for turn in range(12):
        running = start("node", "--ros-args", "-p", "classes:=[mug]", "-r", f"image:={IMAGE}")
        until(lambda pid=running.process.pid: catches(pid, signal.SIGINT), END, "a handler of SIGINT")
        time.sleep(turn * 0.1)
        assert running.end() == 0, f"after {turn * 0.1:.1f} s: {running.output()[-2000:]}"
        assert "panicked" not in running.output()


@pytest.mark.parametrize(
    ("assignment", "nearest"),
    [("box_treshold:=0.3", "box_threshold"), ("clases:=[mug]", "classes"), ("image_transprot:=raw", "image_transport")],
)
def test_an_unknown_parameter_names_the_nearest_known_one(program, environment, assignment, nearest):
    said = refused(program, environment, "-p", assignment)
    assert assignment.split(":=")[0] in said
    assert nearest in said


@pytest.mark.parametrize("assignment", ["box_threshold:=high", "classes:=3", "n_points:=2.5", "image_transport:=smoke", "cameras:=[a, a]", "cameras:=[a/b]"])
def test_an_ill_typed_parameter_is_named(program, environment, assignment):
    assert assignment.split(":=")[0] in refused(program, environment, "-p", assignment)


def test_unusable_environment_and_models_are_named(program, environment, tmp_path):
    assert "ROS_DOMAIN_ID" in refused(program, environment | {"ROS_DOMAIN_ID": "999"})
    assert str(tmp_path) in refused(program, environment, "-p", f"models_dir:={tmp_path}")
    assert "no_such_file.yaml" in refused(program, environment, "--params-file", "no_such_file.yaml")
