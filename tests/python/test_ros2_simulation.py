"""simulation.launch.py in a real ROS 2: the simulated camera live, its ground truth, and what the node makes of it."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="the Python package pycocotools is not installed")
pillow = pytest.importorskip("PIL.Image", reason="the Python package pillow is not installed")

from conftest import END, ROOT  # noqa: E402
from pictures import Score  # noqa: E402
from ros2_support import HERE, IMAGE, NODE, Ros2, installed, needs_ros2, ros2, ros_python  # noqa: E402, F401

sys.path.insert(0, str(ROOT / "models" / "sim"))
from scenelex_sim.taxonomy import CATEGORIES  # noqa: E402

pytestmark = needs_ros2

FRAMES = 30
# Random labels of 28 classes would be at about 0.01.
CLEARLY_ABOVE_CHANCE = 0.2
PROBE = "import rclpy; from scenelex_sim import live, render; render.Renderer(32, 32).close()"


@pytest.fixture(scope="module")
def python() -> str:
    """A Python with both ROS 2 and MuJoCo: the one that `python3` is, or the tests' own."""
    said = []
    for candidate in (shutil.which("python3"), sys.executable):
        probe = subprocess.run([str(candidate), "-c", PROBE], capture_output=True, text=True)
        if probe.returncode == 0:
            return str(candidate)
        said += [f"{candidate}: {line}" for line in probe.stderr.strip().splitlines()[-1:]]
    pytest.skip(f"no Python has rclpy, MuJoCo and offscreen OpenGL: {'; '.join(said)}")


def camera(ros2: Ros2, python: str, *parameters: str):  # noqa: F811
    """The camera alone."""
    arguments = [part for parameter in parameters for part in ("-p", parameter)]
    return ros2.start(python, installed("lib/scenelex/sim_camera"), "--ros-args", *arguments)


def launched(ros2: Ros2, *arguments: str):  # noqa: F811
    running = ros2.start("ros2", "launch", "scenelex", "simulation.launch.py", *arguments)
    running.wait_for("waiting for images")
    return running


def recorded(ros2: Ros2, out: Path, prefix: str = "", frames: int = FRAMES, reliability: str = "reliable") -> dict:  # noqa: F811
    """Moments of which camera, ground truth and node have said everything."""
    topics = (f"{prefix}/camera", f"{prefix}/ground_truth", f"{prefix}{NODE}")
    recorder = ros2.start(ros_python(), HERE / "ros2_simulation_recorder.py", out, frames, reliability, *topics)
    recorder.wait_for("written", timeout=60 + 10 * frames)
    with np.load(out, allow_pickle=True) as values:
        found = {key: values[key] for key in values.files}
    names = json.loads(str(found.pop("names")))
    return found | {key: {int(number): name for number, name in classes.items()} for key, classes in names.items()}


def test_what_the_node_finds_is_there(ros2: Ros2, tmp_path, python):  # noqa: F811
    """Once round the table; every topic, one stamp for each moment, and masks that lie on what they name."""
    running = launched(ros2, f"python:={python}", "path_seconds:=5", "overlay:=0")
    masks = ros2.consumer()
    seen = recorded(ros2, tmp_path / "moments.npz")
    size = (FRAMES, 480, 640)
    assert list(seen["frames"]) == ["camera_optical_frame"]
    encodings = {"image": "rgb8", "depth": "16UC1", "classes": "mono8", "instances": "mono16", "overlay": "rgb8"}
    for name, encoding in encodings.items():
        assert list(seen[f"{name}_encoding"]) == [encoding] and seen[name].shape[:3] == size, name
    assert (np.diff(seen["stamps"]) > 0).all()
    assert abs(seen["stamps"][-1] * 1e-9 - time.time()) < 60

    # The pictures show the world, and it moves.
    assert seen["image"].std(axis=(1, 2, 3)).min() > 10
    assert all((a != b).mean() > 0.5 for a, b in zip(seen["image"], seen["image"][1:]))
    for jpeg, image in list(zip(seen["jpeg"], seen["image"]))[::10]:
        decoded = np.asarray(pillow.open(io.BytesIO(jpeg)), float)
        assert np.abs(decoded - image).mean() < 6
    for name in ("info", "depth_info"):
        assert (seen[f"{name}_size"] == (640, 480)).all()
        fx, _, cx, _, fy, cy, *_ = seen[f"{name}_k"][0]
        assert fx == fy and (cx, cy) == (319.5, 239.5)
    depth = seen["depth"][..., 0][seen["classes"][..., 0] > 0]
    assert 200 < depth.min() and depth.max() < 5000, "things on a table lie within arm's reach or a few metres"

    # Ground truth.
    names = seen["class_names"]
    assert [names[k + 1] for k in range(len(CATEGORIES))] == CATEGORIES
    assert ((seen["classes"] == 0) == (seen["instances"] == 0)).all()
    there = set(np.unique(seen["classes"])) - {0, 255}
    assert len(there) >= 8

    # Results.
    score = Score({number: name for number, name in names.items() if number in there or name == "ignore"})
    for truth, found in zip(seen["classes"][..., 0], seen["found"][..., 0]):
        score.add(truth, found, seen["found_names"])
    each = ", ".join(f"{name} {score.intersection[name] / union:.2f}" for name, union in score.union.items() if union)
    print(f"mIoU {score.mean():.3f} over {FRAMES} live frames: {each}")
    pillow.fromarray(seen["overlay"][0]).save(tmp_path / "overlay.png")
    print(f"overlay: {tmp_path / 'overlay.png'}")
    assert score.mean() > CLEARLY_ABOVE_CHANCE
    labels = {mask["label"] for message in masks.messages() for mask in message["masks"]}
    assert labels & {names[number] for number in there} and labels <= set(CATEGORIES)

    assert running.end(signal.SIGINT) == 0, running.output()
    assert "Traceback" not in running.output() and "panicked" not in running.output(), running.output()
    print(*re.findall(r"[\d.]+ pictures a second.*", running.output()), sep="\n")


def test_simulated_time_in_a_namespace(ros2: Ros2, tmp_path, python):  # noqa: F811
    arguments = ["namespace:=/robot", "use_sim_time:=true", "seed:=7", "path:=handheld", "width:=320", "height:=240", "rate:=20"]
    launched(ros2, f"python:={python}", "overlay:=0", "classes:=mug, red ball", "reliability:=best_effort", *arguments)
    seen = recorded(ros2, tmp_path / "moments.npz", prefix="/robot", frames=5, reliability="best_effort")
    assert seen["image"].shape == (5, 240, 320, 3)
    assert seen["found_names"] == {1: "mug", 2: "red ball"}
    assert 0 < seen["stamps"][0] < seen["stamps"][-1] < 300e9, "time begins with the camera"
    clock = re.search(r"sec: (\d+)", ros2.tool("topic", "echo", "--once", "/clock"))
    assert clock is not None and seen["stamps"][-1] // 10**9 <= int(clock[1]) < 300


def test_nothing_is_drawn_for_nobody(ros2: Ros2, python):  # noqa: F811
    alone = camera(ros2, python, "width:=160", "height:=120", "rate:=20.0")
    alone.wait_for("drawn while somebody subscribes")
    time.sleep(7)
    assert "pictures a second" not in alone.output(), alone.output()
    hz = ros2.start("ros2", "topic", "hz", IMAGE)
    alone.wait_for("pictures a second")
    hz.end()
    listed = ros2.tool("param", "describe", "/sim_camera", "path_seconds", "publish_clock")
    assert "Duration of one pass" in listed and "source of simulated time" in listed, listed


def test_the_cameras_pose_is_on_tf(ros2: Ros2, python):  # noqa: F811
    alone = camera(ros2, python, "frame_id:=front")
    alone.wait_for("drawn while somebody subscribes")
    if "no /tf" in alone.output():
        pytest.skip("the package tf2_msgs is not there")
    pose = ros2.tool("topic", "echo", "--once", "/tf")
    assert "frame_id: world" in pose and "child_frame_id: front" in pose, pose


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_camera(ros2: Ros2, python, by):  # noqa: F811
    watched = camera(ros2, python, "publish_clock:=true")
    ros2.start("ros2", "topic", "hz", IMAGE)
    watched.wait_for("pictures a second")
    started = time.monotonic()
    assert watched.end(by) == 0, watched.output()
    took = time.monotonic() - started
    print(f"ended after {took:.2f} s")
    assert took < END, "a second, on a machine that does nothing else"
    assert "Traceback" not in watched.output(), watched.output()


@pytest.mark.parametrize(
    ("parameter", "complaint"), [("path:=sideways", "orbit, handheld, drive"), ("width:=3", "width"), ("rate:='fast'", "rate")]
)
def test_a_wrong_parameter_is_named(ros2: Ros2, python, parameter, complaint):  # noqa: F811
    wrong = camera(ros2, python, parameter)
    assert wrong.process.wait(END) == 1
    wrong.reader.join(END)
    assert complaint in wrong.output() and "Traceback" not in wrong.output(), wrong.output()


def test_a_missing_package_is_named(ros2: Ros2, python):  # noqa: F811
    script = installed("lib/scenelex/sim_camera")
    without = f"import runpy, sys; sys.modules['mujoco'] = None; runpy.run_path({str(script)!r})"
    done = subprocess.run([python, "-c", without], env=ros2.environment, capture_output=True, text=True, timeout=END)
    assert done.returncode == 1 and "pip install mujoco" in done.stderr and "Traceback" not in done.stderr, done.stderr
