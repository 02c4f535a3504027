"""`/rosout`: what the node logs to stderr, on the graph for another ROS 2 implementation."""

from __future__ import annotations

import re
import time

import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from conftest import COLOURS, RESULT, ROOT, START, TINY  # noqa: E402
from idl_from_msg import default  # noqa: E402
from peer import until  # noqa: E402

DEBUG, INFO, WARN, ERROR = 10, 20, 30, 40
LEVELS = {"TRACE": DEBUG, "DEBUG": DEBUG, "INFO": INFO, "WARN": WARN, "ERROR": ERROR}
# As `tracing` writes a line: when, level, target, text.
LINE = re.compile(r"^\S+ +(TRACE|DEBUG|INFO|WARN|ERROR) ([\w:]+): (.*)$", re.MULTILINE)
READY = "waiting for images"


@pytest.fixture
def rosout(peer):
    """A subscription as rqt_console's."""
    return lambda: peer.subscribe("/rosout", "rcl_interfaces/msg/Log", latched=True, depth=1000)


@pytest.fixture
def node(start):
    """Starts a node called /robot/arm/eyes with these ROS arguments."""

    def starter(*arguments):
        names = ("-r", "__ns:=/robot/arm", "-r", "__node:=eyes", "-p", f"models_dir:={TINY}", "-p", f"classes:=[{', '.join(COLOURS)}]")
        return start("node", "--ros-args", *names, *arguments)

    return starter


def logged(process) -> list[tuple[int, str, str]]:
    """Level, module and text of the node's own lines on stderr."""
    lines = [(LEVELS[level], target, text) for level, target, text in LINE.findall(process.output())]
    return [line for line in lines if line[1].split("::")[0] == "scenelex"]


def ready(process):
    until(lambda: process.alive() and READY in process.output(), START, READY)


def take(topic, count: int) -> list:
    """So many messages, and no more."""
    found = []
    until(lambda: found.extend(topic.take(0.2)) or len(found) >= count, RESULT, f"{count} lines on /rosout")
    return found + topic.take(0.5)


def test_who_comes_late_gets_the_log_from_its_start(node, rosout):
    begun = time.time()
    running = node("-p", "use_sim_time:=true")
    ready(running)
    expected = logged(running)
    assert {READY in text for _, _, text in expected} == {True, False}, "too little is logged to tell anything"
    found = take(rosout(), len(expected))
    assert [(m.level, m.function, m.msg) for m in found] == expected
    assert {m.name for m in found} == {"robot.arm.eyes"}
    # The system's time, as rcl stamps its lines, although the node's own time has not begun.
    stamps = [m.stamp.sec + m.stamp.nanosec * 1e-9 for m in found]
    assert stamps == sorted(stamps) and begun - 1 < stamps[0] and stamps[-1] < time.time() + 1
    for message in found:
        lines = (ROOT / message.file).read_text().splitlines()
        assert re.search(r"tracing::\w+!\(", lines[message.line - 1]), (message.file, message.line)


def test_lines_come_as_they_are_logged_up_to_the_last(node, rosout, peer):
    running = node()
    topic = rosout()
    topic.wait(lambda m: READY in m.msg, START)
    answer = peer.call("/robot/arm/eyes/set_vocabulary", "scenelex/srv/SetVocabulary", classes=["mug"])
    assert answer.success
    changed = topic.wait(lambda m: "classes=1" in m.msg, RESULT)
    said = 'vocabulary in use version=2 classes=1 source="service" detector_runs_per_frame=1'
    assert (changed.level, changed.msg) == (INFO, said)
    assert running.end() == 0
    last = topic.wait(lambda m: m.msg.startswith("stopped"), RESULT)
    assert (last.level, last.function, last.msg) == logged(running)[-1]


def test_why_a_transition_failed_is_told(node, rosout, peer):
    running = node("-p", "models_dir:=/nonexistent", "-p", "autostart:=false")
    topic = rosout()
    configure = default("lifecycle_msgs/msg/Transition", label="configure")
    answer = peer.call("/robot/arm/eyes/change_state", "lifecycle_msgs/srv/ChangeState", START, transition=configure)
    assert not answer.success
    found = topic.wait(lambda m: m.level == ERROR, RESULT)
    assert (found.level, found.function, found.msg) in logged(running) and "/nonexistent" in found.msg
    assert running.end() == 0


def test_the_log_level_holds_for_it_too(node, rosout):
    # An empty class list is worth a warning.
    running = node("--log-level", "warn", "-p", "classes:=[]")
    until(lambda: running.alive() and "no classes are set" in running.output(), START, "the warning")
    expected = logged(running)
    found = take(rosout(), len(expected))
    assert [(m.level, m.function, m.msg) for m in found] == expected
    assert {m.level for m in found} == {WARN}


def test_it_is_off_when_told_so(node, peer):
    running = node("--disable-rosout-logs")
    ready(running)
    topics = until(lambda: (found := peer.topics()).get("rt/robot/arm/eyes/masks") and found, RESULT, "the node's topics")
    assert "rt/rosout" not in topics
    assert running.end() == 0


def test_it_may_be_remapped(node, peer):
    running = node("-r", "/rosout:=/robot/log")
    topic = peer.subscribe("/robot/log", "rcl_interfaces/msg/Log", latched=True, depth=1000)
    topic.wait(lambda m: READY in m.msg, START)
    assert running.end() == 0


def test_only_the_node_is_on_it(start, peer, tmp_path):
    """A tool's log is for the terminal it was called from."""
    recorder = start("record", "/sound:std_msgs/msg/String", "--out", tmp_path / "bag")
    topics = until(lambda: recorder.alive() and (found := peer.topics()).get("rt/sound") and found, START, "the recorder")
    assert "rt/rosout" not in topics
