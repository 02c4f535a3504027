"""The managed node seen from another ROS 2 implementation: life cycle, parameters and ~/enable, with the definitions of
lifecycle_msgs and rcl_interfaces as rosbags has them."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter

import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from camera import NODE, Camera  # noqa: E402
from conftest import RESULT, TINY  # noqa: E402
from idl_from_msg import default  # noqa: E402
from peer import until  # noqa: E402
from pictures import compressed, jpeg, scene  # noqa: E402

PICTURE = jpeg(scene({(0, 0): "red", (2, 1): "blue"}))
# What `ros2 param` sends for each type.
BOOL, INTEGER, DOUBLE, STRING, STRING_ARRAY = (1, "bool"), (2, "integer"), (3, "double"), (4, "string"), (9, "string_array")
UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED = (1, "unconfigured"), (2, "inactive"), (3, "active"), (4, "finalized")


class Manager:
    """What a lifecycle manager does."""

    def __init__(self, peer):
        self.peer = peer
        self.events = peer.subscribe(f"{NODE}/transition_event", "lifecycle_msgs/msg/TransitionEvent", depth=50)

    def state(self) -> tuple[int, str]:
        state = self.peer.call(f"{NODE}/get_state", "lifecycle_msgs/srv/GetState").current_state
        return state.id, state.label

    def change(self, label="", number=0) -> bool:
        transition = default("lifecycle_msgs/msg/Transition", id=number, label=label)
        return self.peer.call(f"{NODE}/change_state", "lifecycle_msgs/srv/ChangeState", timeout=RESULT, transition=transition).success

    def ways(self, service="get_available_transitions") -> list[tuple]:
        found = self.peer.call(f"{NODE}/{service}", "lifecycle_msgs/srv/GetAvailableTransitions").available_transitions
        return [(w.transition.id, w.transition.label, w.start_state.label, w.goal_state.label) for w in found]

    def told(self, count: int) -> list[tuple]:
        """So many transition events."""
        seen = []
        until(lambda: seen.extend(self.events.take(0.1)) or len(seen) >= count, RESULT, f"{count} transition events")
        return [(event.transition.id, event.start_state.label, event.goal_state.label) for event in seen]


def set_parameter(peer, name, kind, value) -> tuple[bool, str]:
    number, field = kind
    held = default("rcl_interfaces/msg/ParameterValue", type=number, **{f"{field}_value": value})
    wanted = default("rcl_interfaces/msg/Parameter", name=name, value=held)
    (result,) = peer.call(f"{NODE}/set_parameters", "rcl_interfaces/srv/SetParameters", parameters=[wanted]).results
    return result.successful, result.reason


def get_parameter(peer, name):
    (value,) = peer.call(f"{NODE}/get_parameters", "rcl_interfaces/srv/GetParameters", names=[name]).values
    return value


def life_cycle(peer, condition):
    """The life cycle's part of /diagnostics, once `condition` holds for it."""
    topic = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)

    def come():
        found = [status for array in topic.take(0.3) for status in array.status if status.name == "scenelex: life cycle"]
        return next((status for status in found if condition(status)), None)

    return until(come, RESULT, "the life cycle on /diagnostics")


def test_the_whole_life_cycle(node, peer):
    manager = Manager(peer)
    process = node({"autostart": "false", "diagnostics.period": 0.2})
    assert manager.state() == UNCONFIGURED
    assert manager.ways() == [(1, "configure", "unconfigured", "configuring"), (5, "shutdown", "unconfigured", "shuttingdown")]
    states = peer.call(f"{NODE}/get_available_states", "lifecycle_msgs/srv/GetAvailableStates").available_states
    assert {state.id for state in states} == {*range(5), *range(10, 16)} and states[3].label == "active"
    graph = manager.ways("get_transition_graph")
    assert len(graph) == 25 and (31, "transition_failure", "activating", "inactive") in graph
    assert not manager.change("activate"), "not from here"
    assert not manager.change("fly")
    assert manager.state() == UNCONFIGURED
    until(manager.events.matched, RESULT, "transition_event")

    assert manager.change("configure") and manager.state() == INACTIVE
    assert manager.told(2) == [(1, "unconfigured", "configuring"), (10, "configuring", "inactive")]
    results = peer.subscribe(f"{NODE}/masks", "scenelex/msg/LabeledMaskArray", depth=100)
    until(results.matched, RESULT, "the result topics of an inactive node")
    assert "rt/camera/image_raw/compressed" not in peer.topics(), "an inactive node takes no images"

    assert manager.change(number=3) and manager.state() == ACTIVE
    camera = Camera(peer, process)
    assert len(camera.serve(compressed(PICTURE, 1))["masks"].masks) == 2
    life_cycle(peer, lambda status: status.level == 0 and status.message == "active")

    assert manager.change("deactivate") and manager.state() == INACTIVE
    until(lambda: not camera.images.matched(), RESULT, "the camera's subscriber to leave")
    assert manager.change("activate")
    until(camera.connected, RESULT, "the camera's subscriber")
    assert len(camera.serve(compressed(PICTURE, 2))["masks"].masks) == 2, "ready at once: nothing was loaded anew"

    memory = lambda: next(int(line.split()[1]) for line in open(f"/proc/{process.process.pid}/status") if line.startswith("VmData"))
    loaded = memory()
    assert manager.change("deactivate") and manager.change("cleanup") and manager.state() == UNCONFIGURED
    until(lambda: not results.matched(), RESULT, "the result topics to go")
    assert memory() < loaded, "models are freed"
    assert manager.change("configure") and manager.change("activate")
    until(camera.connected, RESULT, "the camera's subscriber")
    assert len(camera.serve(compressed(PICTURE, 3))["masks"].masks) == 2

    assert manager.change("shutdown") and manager.state() == FINALIZED
    assert manager.ways() == [] and not manager.change("configure")
    assert process.alive() and process.end() == 0


def test_a_failing_configure_leaves_it_unconfigured_and_says_why(node, peer):
    manager = Manager(peer)
    node({"autostart": "false", "models_dir": "/nowhere", "diagnostics.period": 0.2})
    assert not manager.change("configure")
    assert manager.state() == UNCONFIGURED
    status = life_cycle(peer, lambda status: status.level == 2)
    assert "/nowhere has no detector/bundle.toml" in status.message
    assert set_parameter(peer, "models_dir", STRING, str(TINY)) == (True, "")
    assert manager.change("configure"), "what was wrong can be mended"
    life_cycle(peer, lambda status: status.level == 0 and status.message == "inactive")


def test_parameters_change_between_two_frames_or_not_at_all(node, peer):
    camera = Camera(peer, node())
    events = peer.subscribe("/parameter_events", "rcl_interfaces/msg/ParameterEvent", depth=10)
    until(events.matched, RESULT, "/parameter_events")
    found = lambda stamp: sorted(one.label for one in camera.serve(compressed(PICTURE, stamp))["masks"].masks)
    assert found(1) == ["blue", "red"]
    label_info = peer.subscribe(f"{NODE}/semantic/label_info", "vision_msgs/msg/LabelInfo", latched=True, depth=10)
    assert set_parameter(peer, "box_threshold", DOUBLE, 1.0) == (True, "")
    assert found(2) == []
    label_info.wait(lambda info: info.threshold == 1.0, RESULT)
    assert set_parameter(peer, "box_threshold", DOUBLE, 0.5)[0] and found(3) == ["blue", "red"]
    assert set_parameter(peer, "classes", STRING_ARRAY, ["red"])[0] and found(4) == ["red"]
    assert peer.call(f"{NODE}/set_vocabulary", "scenelex/srv/SetVocabulary", classes=["blue"]).success and found(5) == ["blue"]
    assert set_parameter(peer, "classes", STRING_ARRAY, ["red"])[0] and found(6) == ["red"], "another list was in force"
    assert list(get_parameter(peer, "classes").string_array_value) == ["red"]
    event = events.wait(lambda event: event.changed_parameters[0].name == "classes", RESULT)
    assert event.node == NODE

    for name, kind, value, reason in [
        ("box_treshold", DOUBLE, 0.5, 'did you mean "box_threshold"?'),
        ("box_threshold", STRING, "high", "is a double"),
        ("box_threshold", DOUBLE, 2.0, "from -1 to 1"),
        ("n_points", INTEGER, 0, "must be at least 1"),
        ("use_box", BOOL, False, ""),
        ("use_points", BOOL, False, "at least one of use_points and use_box"),
        ("classes", STRING_ARRAY, ["red", "?"], "classes"),
        ("threads.detector", INTEGER, 2, "unconfigured"),
        ("use_sim_time", BOOL, True, "when the node starts"),
    ]:
        successful, told = set_parameter(peer, name, kind, value)
        assert (successful, reason in told) == (not reason, True), f"{name}: {told}"
    assert found(7) == ["red"], "what was refused changed nothing"

    names = peer.call(f"{NODE}/list_parameters", "rcl_interfaces/srv/ListParameters").result.names
    assert {"classes", "autostart", "refresh.period"} <= set(names)
    (descriptor,) = peer.call(f"{NODE}/describe_parameters", "rcl_interfaces/srv/DescribeParameters", names=["box_threshold"]).descriptors
    assert (descriptor.type, descriptor.floating_point_range[0].to_value) == (3, 1.0) and descriptor.description


def test_an_empty_list_is_a_change_only_where_one_is_in_force(node, peer):
    node({"classes": "[]"})
    assert set_parameter(peer, "classes", STRING_ARRAY, []) == (True, "")
    assert peer.call(f"{NODE}/set_vocabulary", "scenelex/srv/SetVocabulary", classes=["blue"]).success
    successful, told = set_parameter(peer, "classes", STRING_ARRAY, [])
    assert not successful and told.startswith("classes: ")


def test_the_first_answer_to_a_client_is_sent_again(node, peer):
    """What Cyclone gets while it still connects a reader, it throws away: an answer among it would never come."""
    node()
    name, kind = f"{NODE}/get_state", "lifecycle_msgs/srv/GetState"
    heard = peer.answers(name, kind)
    peer.call(name, kind)
    # It is connected now, so that it hears all answers to others.
    peer.clients.clear()
    first, second = peer.call(name, kind), peer.call(name, kind)
    times = Counter()
    until(lambda: times.update(a.sequence for a in heard.take(0.1)) or times[second.sequence], RESULT, "the answers")
    times.update(a.sequence for a in heard.take(0.5))
    assert (times[first.sequence], times[second.sequence]) == (2, 1)


def test_what_is_set_while_models_are_loaded_comes_into_force(node, peer, tmp_path):
    recording = tmp_path / "recording"
    os.mkfifo(recording)  # who loads it waits until it is closed
    label_info = peer.subscribe(f"{NODE}/semantic/label_info", "vision_msgs/msg/LabelInfo", latched=True, depth=10)
    loop = {"refresh.enabled": "true", "refresh.probe.words": "[red]", "refresh.pre_refine": "false", "refresh.lexicon": "none"}
    process = node(loop | {"classes": "[red]", "llm.replay": recording})

    def reached():
        process.alive()
        with contextlib.suppress(OSError):  # nobody reads it yet
            return os.open(recording, os.O_WRONLY | os.O_NONBLOCK)

    held = until(reached, RESULT, "the node to load its models")
    try:
        assert Manager(peer).state() == (10, "configuring")
        assert set_parameter(peer, "box_threshold", DOUBLE, 1.0) == (True, "")
        assert set_parameter(peer, "classes", STRING_ARRAY, ["blue"]) == (True, "")
        successful, told = set_parameter(peer, "threads.detector", INTEGER, 2)
        assert not successful and "under way" in told
    finally:
        os.close(held)
    names = lambda info: [one.class_name for one in info.class_map]
    label_info.wait(lambda info: (info.threshold, names(info)) == (1.0, ["blue"]), RESULT)
    assert get_parameter(peer, "box_threshold").double_value == 1.0
    successful, told = set_parameter(peer, "threads.detector", INTEGER, 2)
    assert not successful and "under way" not in told, "that is over"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core to take away")
def test_parameters_change_also_when_the_number_of_cores_has(node, peer):
    process = node()
    camera = Camera(peer, process)
    assert camera.serve(compressed(PICTURE, 1))["masks"].masks
    core = min(os.sched_getaffinity(0))
    for thread in os.listdir(f"/proc/{process.process.pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), [core])
    assert set_parameter(peer, "box_threshold", DOUBLE, 1.0) == (True, "")
    assert camera.serve(compressed(PICTURE, 2))["masks"].masks == []


def test_enable_lets_images_pass_and_takes_them_again(node, peer):
    camera = Camera(peer, node())
    enable = lambda data: peer.call(f"{NODE}/enable", "std_srvs/srv/SetBool", data=data)
    assert camera.serve(compressed(PICTURE, 1))["masks"].masks
    answer = enable(False)
    assert answer.success and "let pass" in answer.message
    for stamp in range(10, 15):
        camera.send(compressed(PICTURE, stamp))
        time.sleep(0.05)
    assert enable(True).success
    assert camera.serve(compressed(PICTURE, 20))["masks"].masks
    camera.collect(0.2)
    assert not any(10 <= stamp < 15 for stamp in camera.kept["masks"]), "images that were let pass have no results"
