"""The node on r2r inside a real ROS 2, seen with ROS 2's own tools and from rclpy."""

from __future__ import annotations

import re
import signal
import time

import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="the Python package pycocotools is not installed")

from bags import write_bag  # noqa: E402
from conftest import COLOURS, END, TINY  # noqa: E402
from pictures import cell, mask, overlap  # noqa: E402
from ros2_support import IMAGE, NODE, Ros2, installed, needs_ros2, ros2  # noqa: E402, F401

pytestmark = needs_ros2

SIZE = (320, 240)
CELLS = {(0, 0): "red", (2, 1): "blue", (3, 2): "yellow", (1, 2): "green"}
PARAMETERS = {"models_dir": TINY, "classes": f"[{', '.join(COLOURS)}]"}
TOPICS = {
    f"{NODE}/masks": "scenelex/msg/LabeledMaskArray",
    f"{NODE}/detections": "vision_msgs/msg/Detection2DArray",
    f"{NODE}/semantic/image": "sensor_msgs/msg/Image",
    f"{NODE}/semantic/label_info": "vision_msgs/msg/LabelInfo",
    f"{NODE}/instances/image": "sensor_msgs/msg/Image",
    f"{NODE}/overlay/image": "sensor_msgs/msg/Image",
    f"{NODE}/vocabulary": "scenelex/msg/Vocabulary",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    "/rosout": "rcl_interfaces/msg/Log",
    IMAGE: "sensor_msgs/msg/Image",
}


def shown(cells=CELLS, rate=10, size=SIZE) -> list:
    """Arguments of the camera."""
    return [rate, *size, *(",".join(map(str, (*place, *COLOURS[colour]))) for place, colour in cells.items())]


def labels(message: dict) -> list[str]:
    return sorted(one["label"] for one in message["masks"])


def test_the_tools_see_the_node_and_its_topics(ros2: Ros2):  # noqa: F811
    ros2.node(PARAMETERS)
    ros2.camera(*shown())
    look = ("--no-daemon", "--spin-time", "4")
    assert NODE in ros2.tool("node", "list", *look).split()
    listed = dict(re.findall(r"^(\S+) \[(\S+)\]$", ros2.tool("topic", "list", "-t", *look), re.MULTILINE))
    assert TOPICS.items() <= listed.items(), listed
    info = ros2.tool("topic", "info", "-v", f"{NODE}/masks", *look)
    assert "Type: scenelex/msg/LabeledMaskArray" in info and "Publisher count: 1" in info, info
    assert "Node name: scenelex" in info and "Reliability: RELIABLE" in info, info
    info = ros2.tool("topic", "info", "-v", f"{NODE}/vocabulary", *look)
    assert "Durability: TRANSIENT_LOCAL" in info, info
    info = ros2.tool("node", "info", NODE, *look)
    assert f"{NODE}/set_vocabulary: scenelex/srv/SetVocabulary" in info, info


def test_results_arrive_at_the_cameras_rate(ros2: Ros2):  # noqa: F811
    ros2.node(PARAMETERS)
    ros2.camera(*shown(rate=10))
    hz = ros2.start("ros2", "topic", "hz", "--window", "20", f"{NODE}/masks")
    hz.wait_for("average rate")
    time.sleep(5)
    hz.end()
    rates = [float(rate) for rate in re.findall(r"average rate: ([\d.]+)", hz.output())]
    assert 8 < rates[-1] < 12, rates
    echoed = ros2.tool("topic", "echo", "--once", f"{NODE}/masks")
    assert all(f"label: {colour}" in echoed for colour in COLOURS), echoed[:2000]
    # Latched: who comes late gets it too.
    latched = ("--once", "--qos-durability", "transient_local", "--qos-reliability", "reliable")
    assert "label: red" in ros2.tool("topic", "echo", *latched, f"{NODE}/vocabulary")
    assert "level:" in ros2.tool("topic", "echo", "--once", "/diagnostics")


def test_an_rclpy_consumer_decodes_the_masks(ros2: Ros2):  # noqa: F811
    ros2.node(PARAMETERS)
    consumer = ros2.consumer()
    ros2.camera(*shown())
    found = consumer.next()
    width, height = SIZE
    assert (found["width"], found["height"]) == SIZE
    assert found["header"]["frame_id"] == "camera_optical_frame"
    assert labels(found) == sorted(CELLS.values())
    places = {colour: place for place, colour in CELLS.items()}
    for one in found["masks"]:
        expected = np.zeros((height, width), np.uint8)
        expected[cell(*places[one["label"]])] = 1
        assert overlap(mask(one["counts"], height, width), expected) > 0.9, one["label"]


def test_the_class_list_changes_by_service(ros2: Ros2):  # noqa: F811
    ros2.node(PARAMETERS)
    consumer = ros2.consumer()
    ros2.camera(*shown())
    assert labels(consumer.next()) == sorted(CELLS.values())
    call = ("service", "call", f"{NODE}/set_vocabulary", "scenelex/srv/SetVocabulary")
    answer = ros2.tool(*call, "{classes: [red, blue]}")
    assert "success=True" in answer and "version=2" in answer, answer
    changed = consumer.next(lambda message: message["vocabulary_version"] == 2)
    assert labels(changed) == ["blue", "red"]
    # A wrong request says why, and nothing changes.
    answer = ros2.tool(*call, "{classes: [red, red]}")
    if "success=False" in answer:
        assert "message=''" not in answer, answer
    answer = ros2.tool(*call, "{classes: ['']}")
    assert "success=False" in answer and "message=''" not in answer, answer


def test_two_cameras_share_a_node(ros2: Ros2):  # noqa: F811
    ros2.node(PARAMETERS | {"cameras": "[front, rear]"})
    consumers = {name: ros2.consumer(f"{NODE}/{name}/masks") for name in ("front", "rear")}
    ros2.camera(*shown(rate=30), topic="/front/image")
    front = consumers["front"].next()
    assert labels(front) == sorted(CELLS.values())
    assert not consumers["rear"].messages(), "nobody has sent anything there"
    ros2.camera(*shown(cells={(1, 1): "green"}, rate=5, size=(160, 120)), topic="/rear/image")
    rear = consumers["rear"].next()
    assert (labels(rear), rear["width"]) == (["green"], 160)
    assert all(labels(message) == sorted(CELLS.values()) for message in consumers["front"].messages())


def test_the_node_finds_its_class_list(ros2: Ros2):  # noqa: F811
    """By ~/refresh_vocabulary, without a language model."""
    words = f"[{', '.join(COLOURS)}]"
    refresh = {"refresh.enabled": "true", "refresh.probe.words": words, "refresh.pre_refine": "false", "classes": "[]"}
    ros2.node(PARAMETERS | refresh)
    consumer = ros2.consumer()
    ros2.camera(*shown(cells={(0, 0): "red", (2, 1): "blue"}))
    answer = ros2.tool("service", "call", f"{NODE}/refresh_vocabulary", "std_srvs/srv/Trigger")
    assert "success=True" in answer and "red" in answer and "blue" in answer, answer
    assert labels(consumer.next(lambda message: message["masks"])) == ["blue", "red"]


def test_a_node_that_is_killed_comes_back(ros2: Ros2):  # noqa: F811
    node = ros2.node(PARAMETERS)
    consumer = ros2.consumer()
    ros2.camera(*shown())
    consumer.next()
    node.kill()
    ros2.node(PARAMETERS)
    assert labels(consumer.next()) == sorted(CELLS.values())


def test_a_camera_that_is_restarted_is_heard_again(ros2: Ros2):  # noqa: F811
    ros2.node(PARAMETERS)
    consumer = ros2.consumer()
    for by in (signal.SIGINT, signal.SIGKILL):
        camera = ros2.camera(*shown())
        assert labels(consumer.next()) == sorted(CELLS.values())
        camera.end(by)
    ros2.camera(*shown(cells={(1, 1): "green"}))
    assert labels(consumer.next(lambda message: labels(message) != sorted(CELLS.values()))) == ["green"]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_it_off_the_graph_at_once(ros2: Ros2, by):  # noqa: F811
    node = ros2.node(PARAMETERS)
    look = ("node", "list", "--no-daemon", "--spin-time", "3")
    assert NODE in ros2.tool(*look).split()
    started = time.monotonic()
    node.end(by)
    assert time.monotonic() - started < END
    assert "stopped" in node.output() and "panicked" not in node.output(), node.output()[-2000:]
    # A process that just ends is seen for ten seconds more.
    assert NODE not in ros2.tool(*look).split()


def test_names_are_remapped_once(ros2: Ros2):  # noqa: F811
    # rcl knows the rules too: had it applied them to what the node has resolved, /first would end as /second.
    rules = ("-r", "__ns:=/robot", "-r", "__node:=eyes", "-r", "~/masks:=/first", "-r", "/first:=/second")
    ros2.node(PARAMETERS, *rules)
    look = ("--no-daemon", "--spin-time", "4")
    assert "/robot/eyes" in ros2.tool("node", "list", *look).split()
    topics = ros2.tool("topic", "list", *look).split()
    assert "/robot/eyes/detections" in topics
    assert "/first" in topics and "/second" not in topics, topics


def test_stamps_of_simulated_time(ros2: Ros2):  # noqa: F811
    ros2.start("ros2", "topic", "pub", "--rate", "20", "/clock", "rosgraph_msgs/msg/Clock", "{clock: {sec: 1234, nanosec: 5}}")
    ros2.node(PARAMETERS | {"use_sim_time": "true"})
    time.sleep(2)
    ros2.tool("service", "call", f"{NODE}/set_vocabulary", "scenelex/srv/SetVocabulary", "{classes: [red]}")
    latched = ("--once", "--qos-durability", "transient_local", "--qos-reliability", "reliable")
    assert "sec: 1234" in ros2.tool("topic", "echo", *latched, f"{NODE}/vocabulary")


def test_large_images_arrive(ros2: Ros2):  # noqa: F811
    """1080p rgb8, best effort at 15 Hz, with the settings of config/cyclonedds.xml."""
    # Deeper than usual: what the middleware overwrites has arrived too, but is not counted.
    node = ros2.node(PARAMETERS | {"qos.image.depth": 20})
    camera = ros2.camera(*shown(rate=15, size=(1920, 1080)))
    consumer = ros2.consumer()
    found = consumer.next()
    assert (found["width"], found["height"]) == (1920, 1080)
    time.sleep(8)
    camera.end()
    time.sleep(1)
    node.end()
    (sent,) = re.findall(r"sent (\d+)", camera.output())
    (received,) = re.findall(r"received=(\d+)", node.output())
    print(f"1080p at 15 Hz: {received} of {sent} images arrived")
    # A busy test machine may lose a packet; the defaults lose most images.
    assert int(sent) > 60 and int(received) >= 0.97 * int(sent)


def endpoints(ros2: Ros2, topic: str) -> list[str]:  # noqa: F811
    """What `ros2 topic info` tells of each end of a topic that is the node's."""
    told = ros2.tool("topic", "info", "-v", topic, "--no-daemon", "--spin-time", "4")
    return [end for end in re.split(r"\n(?=Node name: )", told) if end.startswith("Node name: scenelex\n")]


def test_the_log_is_on_rosout(ros2: Ros2):  # noqa: F811
    ros2.node(PARAMETERS)
    # One publisher, the node's own, as rclcpp and rclpy make theirs: none of rcl beside it.
    (end,) = endpoints(ros2, "/rosout")
    assert "Topic type: rcl_interfaces/msg/Log" in end and "Endpoint type: PUBLISHER" in end, end
    assert "Reliability: RELIABLE" in end and "Durability: TRANSIENT_LOCAL" in end, end
    assert "Lifespan: 10000000000 nanoseconds" in end, end
    echo = ros2.start("ros2", "topic", "echo", "/rosout")
    call = ("service", "call", f"{NODE}/set_vocabulary", "scenelex/srv/SetVocabulary")
    # Until the tool listens; what it gets of earlier lines depends on how long it took to start.
    for classes in ("[red]", "[blue]") * 4:
        ros2.tool(*call, f"{{classes: {classes}}}")
        if 'source="service"' in echo.output():
            break
    echo.end()
    # Lines from before the calls may be among them: the topic is latched.
    (message, *_) = [one for one in echo.output().split("---") if 'source="service"' in one] or [echo.output()]
    assert "level: 20" in message and "name: scenelex" in message and "vocabulary in use" in message, message
    assert "function: scenelex::ros::engine" in message and re.search(r"line: [1-9]", message), message


def test_the_log_stays_off_rosout_when_told_so(ros2: Ros2):  # noqa: F811
    ros2.node(PARAMETERS, "--disable-rosout-logs")
    # `ros2 topic info` knows of no topic that nobody has.
    told = ros2.tool("node", "info", NODE, "--no-daemon", "--spin-time", "4")
    assert f"{NODE}/masks: " in told and "/rosout" not in told, told


def test_topics_of_unknown_types_are_not_played(ros2: Ros2, tmp_path):  # noqa: F811
    odd = {"/odd": "acme_msgs/msg/Odd"}
    play = (installed("lib/scenelex/scenelex"), "play", "--quiet")
    some = ros2.start(*play, write_bag(tmp_path / "some.mcap", odd | {"/known": "std_msgs/msg/String"}))
    assert some.process.wait(END) == 0, some.output()
    some.reader.join(END)
    assert some.output().count("/odd is not played") == 1 and "acme_msgs/msg/Odd" in some.output(), some.output()
    none = ros2.start(*play, write_bag(tmp_path / "none.mcap", odd))
    assert none.process.wait(END) == 1, none.output()
    none.reader.join(END)
    assert "no topic to play" in none.output(), none.output()


@pytest.mark.parametrize("domain_id", ["999", "kitchen", "-1"])
def test_an_impossible_domain_is_named(ros2: Ros2, domain_id):  # noqa: F811
    ros2.environment["ROS_DOMAIN_ID"] = domain_id
    node = ros2.start(installed("lib/scenelex/scenelex"), "node", "--ros-args", "-p", f"models_dir:={TINY}")
    assert node.process.wait(END) == 1
    node.reader.join(END)
    assert "ROS_DOMAIN_ID" in node.output() and "panicked" not in node.output(), node.output()
