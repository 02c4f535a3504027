"""The launch files, really launched in a real ROS 2."""

from __future__ import annotations

import json
import re
import signal

import pytest

from conftest import COLOURS, TINY
from ros2_support import NODE, Ros2, installed, needs_ros2, ros2  # noqa: F401

pytestmark = needs_ros2

PERCEPTION = ("image", "cameras", "image_transport", "params_file", "classes", "namespace", "use_sim_time", "overlay", "log_level")
SIMULATION = (
    *("seed", "rate", "width", "height", "path", "classes", "params_file", "use_sim_time", "namespace", "overlay", "log_level"),
    *("image_transport", "rviz", "python"),
)
MODELS = f"models_dir:={TINY}"
CLASSES = f"classes:={', '.join(COLOURS)}"


def described(shown: str) -> dict[str, str]:
    """Arguments in the output of --show-args with the text below each name."""
    parts = re.split(r"^    '(\w+)':\s*", shown, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize(
    ("file", "arguments"), [("perception", PERCEPTION), ("replay", ("bag", "record", "rate", "player")), ("simulation", SIMULATION)]
)
def test_every_argument_is_described(ros2: Ros2, file, arguments):  # noqa: F811
    texts = described(ros2.tool("launch", "scenelex", f"{file}.launch.py", "--show-args"))
    assert set(arguments) <= texts.keys(), texts
    assert not [name for name, text in texts.items() if "No description given" in text]


def test_perception_takes_its_arguments(ros2: Ros2, tmp_path):  # noqa: F811
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    classes: [red]\n    diagnostics: {period: 0.5}\n")
    arguments = ["image:=/front/image", f"params_file:={parameters}", CLASSES, MODELS, "namespace:=robot", "overlay:=2.0"]
    launched = ros2.start("ros2", "launch", "scenelex", "perception.launch.py", *arguments, "log_level:=debug")
    assert "/front/image" in launched.wait_for("waiting for images")
    latched = ("--once", "--qos-durability", "transient_local", "--qos-reliability", "reliable")
    vocabulary = ros2.tool("topic", "echo", *latched, f"/robot{NODE}/vocabulary")
    # What is given on the command line wins over the file.
    assert re.findall(r"label: (\w+)", vocabulary) == list(COLOURS)
    assert launched.end(signal.SIGINT) == 0, launched.output()
    assert "panicked" not in launched.output()


def test_the_compressed_topic_is_named_as_image_transport_names_it(ros2: Ros2):  # noqa: F811
    launched = ros2.start(
        "ros2", "launch", "scenelex", "perception.launch.py", "image_transport:=compressed", CLASSES, MODELS
    )
    assert "/camera/image_raw/compressed" in launched.wait_for("waiting for images")


def test_several_cameras_get_the_topics_named_for_them(ros2: Ros2):  # noqa: F811
    named = "cameras:=front=/front_camera/image_raw, rear=/rear_camera/image_raw"
    launched = ros2.start("ros2", "launch", "scenelex", "perception.launch.py", named, CLASSES, MODELS)
    for topic in ("/front_camera/image_raw", "/rear_camera/image_raw"):
        assert "waiting for images" in launched.wait_for(topic)
    wrong = ros2.start("ros2", "launch", "scenelex", "perception.launch.py", "cameras:=front", CLASSES, MODELS)
    assert "expected NAME=TOPIC" in wrong.wait_for("cameras:")


def test_every_parameter_file_is_one_for_rcl_too(ros2: Ros2):  # noqa: F811
    # rcl reads the same file with a parser of its own and ends the process where it cannot.
    for file in sorted(installed("share/scenelex/config").glob("*.yaml")):
        command = ("node", "--ros-args", "--params-file", file, "-p", "models_dir:=/nowhere", "-r", "__node:=scenelex")
        node = ros2.start("ros2", "run", "scenelex", "scenelex", *command)
        node.wait_for("/nowhere")
        assert "panicked" not in node.output(), f"{file}: {node.output()}"


@pytest.mark.parametrize("player", ["scenelex", "auto"])
def test_a_bag_is_played_through_the_node_into_another(ros2: Ros2, tmp_path, player):  # noqa: F811
    bag, out = installed("share/scenelex/models/sim/demo_bag"), tmp_path / "results"
    arguments = [f"bag:={bag}", f"record:={out}", "image_transport:=compressed", CLASSES, MODELS, f"player:={player}"]
    replayed = ros2.start("ros2", "launch", "scenelex", "replay.launch.py", *arguments)
    assert replayed.end(by=0, timeout=180) == 0, replayed.output()
    assert "panicked" not in replayed.output()
    written = (out / "metadata.yaml").read_text()
    counts = dict(re.findall(r"name: (\S+)\n(?:.*\n)*?.*message_count: (\d+)", written))
    assert int(counts.get(f"{NODE}/masks", 0)) > 10, written
    assert int(counts.get(f"{NODE}/vocabulary", 0)) == 1, written


@pytest.mark.parametrize("level", ["warn", "error", "fatal"])
def test_a_replay_that_could_not_hear_the_node_is_refused(ros2: Ros2, tmp_path, level):  # noqa: F811
    # At these levels the node does not say that it is ready, which the player waits for.
    replayed = ros2.start("ros2", "launch", "scenelex", "replay.launch.py", f"bag:={tmp_path}", CLASSES, MODELS, f"log_level:={level}")
    refused = replayed.wait_for('"log_level"')
    assert f'"{level}" is not valid' in refused and "['debug', 'info']" in refused
    assert replayed.end(by=0) == 1, replayed.output()
    assert "scenelex-1" not in replayed.output(), "the node was started"


def test_layouts_for_people_are_well_formed():
    yaml = pytest.importorskip("yaml", reason="the Python package PyYAML is not installed")
    config = installed("share/scenelex/config")
    panels = json.loads((config / "foxglove.json").read_text())
    assert any(NODE in str(panel) for panel in panels["configById"].values())
    displays = yaml.safe_load((config / "scenelex.rviz").read_text())["Visualization Manager"]["Displays"]
    assert f"{NODE}/overlay/image" in [display["Topic"]["Value"] for display in displays]
