"""The launch files, really launched in a real ROS 2."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from conftest import COLOURS, ROOT, TINY
from ros2_support import NODE, Ros2, installed, needs_ros2, ros2  # noqa: F401

pytestmark = needs_ros2

PERCEPTION = (
    *("image", "cameras", "image_transport", "params_file", "classes", "namespace", "use_sim_time", "overlay", "log_level"),
    "autostart",
)
REPLAY = ("bag", "record", "rate", "player", "topics", "also_play", "image", "cameras", "image_transport", "params_file")
SIMULATION = (
    *("seed", "rate", "width", "height", "path", "classes", "params_file", "use_sim_time", "namespace", "overlay", "log_level"),
    *("image_transport", "rviz", "python"),
)
MODELS = f"models_dir:={TINY}"
CLASSES = f"classes:={', '.join(COLOURS)}"
LATCHED = ("--once", "--qos-durability", "transient_local", "--qos-reliability", "reliable")
DEMO_BAG = "share/scenelex/models/sim/demo_bag"


def described(shown: str) -> dict[str, str]:
    """Arguments in the output of --show-args with the text below each name."""
    parts = re.split(r"^    '(\w+)':\s*", shown, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize(
    ("file", "arguments"), [("perception", PERCEPTION), ("replay", REPLAY), ("simulation", SIMULATION)]
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
    vocabulary = ros2.tool("topic", "echo", *LATCHED, f"/robot{NODE}/vocabulary")
    # What is given on the command line wins over the file.
    assert re.findall(r"label: (\w+)", vocabulary) == list(COLOURS)
    assert launched.end(signal.SIGINT) == 0, launched.output()
    assert "panicked" not in launched.output()


def test_the_compressed_topic_is_named_as_image_transport_names_it(ros2: Ros2):  # noqa: F811
    launched = ros2.start(
        "ros2", "launch", "scenelex", "perception.launch.py", "image_transport:=compressed", CLASSES, MODELS
    )
    assert "/camera/image_raw/compressed" in launched.wait_for("waiting for images")


@pytest.mark.parametrize("section", ["/**", "/robot/scenelex"])
def test_what_is_not_given_is_as_the_file_says(ros2: Ros2, tmp_path, section):  # noqa: F811
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(f"{section}:\n  ros__parameters:\n    image_transport: compressed\n    use_sim_time: true\n")
    arguments = [f"params_file:={parameters}", "namespace:=robot", CLASSES, MODELS]
    launched = ros2.start("ros2", "launch", "scenelex", "perception.launch.py", *arguments)
    ready = launched.wait_for("waiting for images")
    assert "/camera/image_raw/compressed" in ready and "sensor_msgs/msg/CompressedImage" in ready
    assert "True" in ros2.tool("param", "get", f"/robot{NODE}", "use_sim_time")


def test_one_image_topic_is_refused_for_the_cameras_of_a_file(ros2: Ros2, tmp_path):  # noqa: F811
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    cameras: [front, rear]\n")
    arguments = [f"params_file:={parameters}", "image:=/front/image", CLASSES, MODELS]
    refused = ros2.start("ros2", "launch", "scenelex", "perception.launch.py", *arguments)
    assert 'cameras:="front=TOPIC, rear=TOPIC"' in refused.wait_for("front, rear")
    assert refused.end(by=0) == 1 and "scenelex-1" not in refused.output(), refused.output()


def test_a_parameter_file_that_is_not_there_is_named(ros2: Ros2, tmp_path):  # noqa: F811
    # launch_ros itself only warns and starts the node without it.
    missing = tmp_path / "nothing.yaml"
    refused = ros2.start("ros2", "launch", "scenelex", "perception.launch.py", f"params_file:={missing}", CLASSES, MODELS)
    assert "params_file" in refused.wait_for(str(missing))
    assert refused.end(by=0) == 1 and "scenelex-1" not in refused.output(), refused.output()


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


def replay(ros2: Ros2, *arguments, bag=None):  # noqa: F811
    """replay.launch.py on the demo bag, or on another."""
    return ros2.start(
        *("ros2", "launch", "scenelex", "replay.launch.py", f"bag:={bag or installed(DEMO_BAG)}", CLASSES, MODELS), *arguments
    )


def recorded(bag: Path) -> dict[str, int]:
    """Topics of a bag that was recorded, with the number of messages of each."""
    written = (bag / "metadata.yaml").read_text()
    return {name: int(n) for name, n in re.findall(r"name: (\S+)\n(?:.*\n)*?.*message_count: (\d+)", written)}


def has_rosbag2() -> bool:
    marker = "share/ament_index/resource_index/packages/rosbag2_storage_mcap"
    return any((Path(prefix) / marker).exists() for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(":"))


@pytest.mark.parametrize("player", ["scenelex", "auto"])
def test_a_bag_is_played_through_the_node_into_another(ros2: Ros2, tmp_path, player):  # noqa: F811
    out = tmp_path / "results"
    replayed = replay(ros2, f"record:={out}", "image_transport:=compressed", f"player:={player}")
    assert replayed.end(by=0, timeout=180) == 0, replayed.output()
    assert "panicked" not in replayed.output()
    counts = recorded(out)
    assert counts.get(f"{NODE}/masks", 0) > 10, counts
    assert counts.get(f"{NODE}/vocabulary", 0) == 1, counts


@pytest.mark.parametrize("player", ["scenelex", "auto"])
def test_a_bag_is_played_through_several_cameras(ros2: Ros2, tmp_path, player):  # noqa: F811
    # The bag has one camera; that two look through it is nothing to the node.
    out = tmp_path / "results"
    cameras = "cameras:=front=/camera/image_raw, rear=/camera/image_raw"
    replayed = replay(ros2, f"record:={out}", "image_transport:=compressed", f"player:={player}", cameras)
    assert replayed.end(by=0, timeout=180) == 0, replayed.output()
    counts = recorded(out)
    for camera in ("front", "rear"):
        for topic, least in (("masks", 10), ("detections", 10), ("semantic/label_info", 1)):
            assert counts.get(f"{NODE}/{camera}/{topic}", 0) >= least, (topic, counts)
    assert counts.get(f"{NODE}/vocabulary", 0) == 1, counts


@pytest.mark.skipif(not has_rosbag2(), reason="rosbag2 with MCAP storage is not installed")
def test_results_of_an_earlier_run_stay_in_the_bag(ros2: Ros2, tmp_path):  # noqa: F811
    first, second = tmp_path / "first", tmp_path / "second"
    image, classes = "/camera/image_raw/compressed", "/ground_truth/label_info"
    arguments = ("image_transport:=compressed", "player:=rosbag2", "rate:=2.0")
    kept = f"topics:=masks vocabulary {image} {classes}"
    replayed = replay(ros2, f"record:={first}", kept, *arguments)
    assert replayed.end(by=0, timeout=180) == 0, replayed.output()
    before = recorded(first)
    # What is named with a slash in front is played, or there was nothing to record.
    assert before.get(image, 0) > 50 and before.get(classes, 0) == 1 and before.get(f"{NODE}/masks", 0) > 5, before
    replayed = replay(ros2, f"record:={second}", *arguments, bag=first)
    assert replayed.end(by=0, timeout=180) == 0, replayed.output()
    after = recorded(second)
    assert after.get(f"{NODE}/vocabulary", 0) == 1, "the one of the first run is there too"
    assert 5 < after.get(f"{NODE}/masks", 0) <= before[image], (before, after)


def test_a_replay_takes_transport_from_the_file_and_starts_the_node_itself(ros2: Ros2, tmp_path):  # noqa: F811
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    image_transport: compressed\n    autostart: false\n")
    replayed = replay(ros2, f"params_file:={parameters}", "player:=scenelex", "rate:=4.0")
    assert replayed.end(by=0) == 0, replayed.output()
    assert "[player-" in replayed.output()


def test_the_compressed_topic_can_be_named_in_full(ros2: Ros2):  # noqa: F811
    named = "image:=/camera/image_raw/compressed"
    replayed = replay(ros2, named, "image_transport:=compressed", "player:=scenelex", "rate:=4.0")
    assert replayed.end(by=0) == 0, replayed.output()
    assert "compressed/compressed" not in replayed.output()


def test_a_bag_that_exists_is_not_recorded_into(ros2: Ros2, tmp_path):  # noqa: F811
    replayed = replay(ros2, f"record:={tmp_path}", "image_transport:=compressed")
    assert "exists already" in replayed.wait_for(str(tmp_path))
    assert replayed.end(by=0) == 1, replayed.output()
    assert "scenelex-1" not in replayed.output(), "the node was started"


def test_a_bag_that_is_not_there_is_named(ros2: Ros2, tmp_path):  # noqa: F811
    replayed = replay(ros2, bag=tmp_path / "nothing")
    assert "does not exist" in replayed.wait_for(str(tmp_path / "nothing"))
    assert replayed.end(by=0) == 1, replayed.output()
    assert "scenelex-1" not in replayed.output(), "the node was started"


@pytest.mark.parametrize("player", ["scenelex", "auto"])
def test_images_that_are_not_in_the_bag_are_an_error(ros2: Ros2, player):  # noqa: F811
    replayed = replay(ros2, "image:=/kitchen/image_raw", f"player:={player}")
    assert replayed.end(by=0) == 1, replayed.output()
    # Beside what was looked for stands what the bag has.
    assert re.search(r"/kitchen/image_raw.*/camera/image_raw/compressed", replayed.output()), replayed.output()


def test_a_node_that_dies_ends_the_replay(ros2: Ros2):  # noqa: F811
    # The bag would go on for 100 s.
    replayed = replay(ros2, "image_transport:=compressed", "player:=scenelex", "rate:=0.1")
    replayed.wait_for("[player-")
    node = re.search(r"\[scenelex-\d+\]: process started with pid \[(\d+)\]", replayed.output())
    os.kill(int(node[1]), signal.SIGKILL)
    assert replayed.end(by=0) == 1, replayed.output()
    assert "the node has ended before the bag" in replayed.output()


@pytest.mark.parametrize("level", ["warn", "error", "fatal"])
def test_a_replay_that_could_not_hear_the_node_is_refused(ros2: Ros2, tmp_path, level):  # noqa: F811
    # At these levels the node does not say that it is ready, which the player waits for.
    replayed = ros2.start("ros2", "launch", "scenelex", "replay.launch.py", f"bag:={tmp_path}", CLASSES, MODELS, f"log_level:={level}")
    refused = replayed.wait_for('"log_level"')
    assert f'"{level}" is not valid' in refused and "['debug', 'info']" in refused
    assert replayed.end(by=0) == 1, replayed.output()
    assert "scenelex-1" not in replayed.output(), "the node was started"


def program(path: Path, *lines: str) -> Path:
    """A shell script in some program's place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def test_the_simulation_heeds_the_file_and_other_names(ros2: Ros2, tmp_path):  # noqa: F811
    """The file's classes are looked for, and rviz2 shows what the names given here make of the layout's topics."""
    prefix, said = tmp_path / "prefix", tmp_path / "said"
    marker = prefix / "share/ament_index/resource_index/packages/rviz2"
    marker.parent.mkdir(parents=True)
    marker.touch()
    program(prefix / "lib/rviz2/rviz2", f'printf "%s\\n" "$@" >{said}.part', f"mv {said}.part {said}", "exec sleep 300")
    ros2.environment["AMENT_PREFIX_PATH"] = f"{prefix}:{ros2.environment['AMENT_PREFIX_PATH']}"
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    classes: [red, blue]\n    image_transport: compressed\n")
    # The camera is not asked for pictures.
    camera = program(tmp_path / "python", "exec sleep 300")
    names = ("namespace:=robot", "name:=eyes", "camera:=head")
    arguments = (f"python:={camera}", f"params_file:={parameters}", MODELS, *names, "rviz:=true")
    launched = ros2.start("ros2", "launch", "scenelex", "simulation.launch.py", *arguments)
    assert "/robot/head/image_raw/compressed" in launched.wait_for("waiting for images")
    vocabulary = ros2.tool("topic", "echo", *LATCHED, "/robot/eyes/vocabulary")
    assert re.findall(r"label: (\w+)", vocabulary) == ["red", "blue"]
    assert set(re.findall(r"^(/\S+):=(\S+)$", said.read_text(), flags=re.MULTILINE)) == {
        ("/camera/image_raw", "/robot/head/image_raw"),
        ("/scenelex/overlay/image", "/robot/eyes/overlay/image"),
        ("/scenelex/instances/image", "/robot/eyes/instances/image"),
    }
    assert launched.end(signal.SIGINT) == 0, launched.output()


@pytest.mark.parametrize("name", ["foxglove.json", "scenelex.rviz"])
def test_layouts_for_people_are_installed(name):
    # test_layouts.py looks into them.
    assert installed("share/scenelex/config", name).read_bytes() == (ROOT / "config" / name).read_bytes()
