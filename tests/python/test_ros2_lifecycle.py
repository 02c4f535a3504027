"""The managed node inside a real ROS 2: life cycle and parameters with ROS 2's own tools, against rclpy's lifecycle node."""

from __future__ import annotations

import json
import subprocess

import pytest

from conftest import COLOURS, TINY
from ros2_support import HERE, IMAGE, NODE, TOOL, Ros2, needs_ros2, ros2, ros_python  # noqa: F401
from test_ros2_node import labels, shown

pytestmark = needs_ros2

PARAMETERS = {"models_dir": TINY, "classes": f"[{', '.join(COLOURS)}]"}


def started(ros2: Ros2, **parameters):  # noqa: F811
    """A node that waits for its life cycle to be managed."""
    command = ["ros2", "run", "scenelex", "scenelex", "node", "--ros-args", "-r", f"image:={IMAGE}"]
    for name, value in (PARAMETERS | {"autostart": "false"} | parameters).items():
        command += ["-p", f"{name}:={value}"]
    return ros2.start(*command)


def test_the_state_machine_is_rcl_lifecycles(ros2: Ros2):  # noqa: F811
    script = HERE / "ros2_state_machine.py"
    ros2.start(ros_python(), script, "serve", "reference").wait_for("serving")
    started(ros2)

    def asked(name: str) -> dict:
        process = ros2.start(ros_python(), script, "ask", name)
        line = process.wait_for("{")
        process.process.wait(TOOL)
        return json.loads(line)

    reference, ours = asked("reference"), asked("scenelex")
    assert sorted(ours["states"]) == sorted(reference["states"])
    assert sorted(ours["now"]) == sorted(reference["now"])
    assert sorted(ours["graph"]) == sorted(reference["graph"])


def test_the_lifecycle_tool_manages_the_node(ros2: Ros2):  # noqa: F811
    node = started(ros2)
    look = ("--spin-time", "4")
    assert NODE in ros2.tool("lifecycle", "nodes", *look).split()
    get = lambda: ros2.tool("lifecycle", "get", NODE, *look).strip()
    step = lambda label: ros2.tool("lifecycle", "set", NODE, label, *look)
    assert get() == "unconfigured [1]"
    listed = ros2.tool("lifecycle", "list", NODE, *look)
    assert "- configure [1]" in listed and "Goal: configuring" in listed, listed
    assert "Transitioning successful" in step("configure") and get() == "inactive [2]"
    assert "Transitioning successful" in step("activate") and get() == "active [3]"
    ros2.camera(*shown())
    consumer = ros2.consumer()
    consumer.next(lambda message: labels(message) == sorted(COLOURS))
    assert "Transitioning successful" in step("deactivate") and "Transitioning successful" in step("cleanup")
    assert get() == "unconfigured [1]"
    assert "Transitioning successful" in step("shutdown") and get() == "finalized [4]"
    assert node.end() == 0


def test_nav2s_lifecycle_manager_manages_the_node(ros2: Ros2):  # noqa: F811
    manager = "nav2_lifecycle_manager"
    if subprocess.run(["ros2", "pkg", "prefix", manager], env=ros2.environment, capture_output=True).returncode:
        pytest.skip(f"{manager} is not in the sourced workspace")
    node = started(ros2)
    names = ("-p", "node_names:=[scenelex]", "-p", "autostart:=true", "-p", "bond_timeout:=0.0")
    told = ros2.start("ros2", "run", manager, "lifecycle_manager", "--ros-args", *names)
    told.wait_for("Managed nodes are active")
    state = lambda: ros2.tool("lifecycle", "get", NODE, "--spin-time", "4").strip()
    assert state() == "active [3]"
    manage = ("service", "call", "/lifecycle_manager/manage_nodes", "nav2_msgs/srv/ManageLifecycleNodes")
    # Numbers of ManageLifecycleNodes.srv.
    for command, number, expected in (
        ("PAUSE", 1, "inactive [2]"),
        ("RESUME", 2, "active [3]"),
        ("RESET", 3, "unconfigured [1]"),
        ("STARTUP", 0, "active [3]"),
        ("SHUTDOWN", 4, "finalized [4]"),
    ):
        assert "success=True" in ros2.tool(*manage, f"{{command: {number}}}"), told.output()
        assert state() == expected, command
    assert node.end() == 0


def test_parameters_and_enable_with_ros2s_tools(ros2: Ros2):  # noqa: F811
    ros2.node(PARAMETERS)
    ros2.camera(*shown())
    consumer = ros2.consumer()
    everything = lambda message: labels(message) == sorted(COLOURS)
    consumer.next(everything)
    look = ("--spin-time", "4")
    assert "box_threshold" in ros2.tool("param", "list", NODE, *look).split()
    assert "Set parameter successful" in ros2.tool("param", "set", NODE, "box_threshold", "1.0", *look)
    consumer.next(lambda message: not message["masks"])
    assert "Double value is: 1.0" in ros2.tool("param", "get", NODE, "box_threshold", *look)
    told = ros2.tool("param", "describe", NODE, "box_threshold", *look)
    assert "Type: double" in told and "Detections with a score above it are kept" in told and "Max value: 1.0" in told, told
    assert "Set parameter successful" in ros2.tool("param", "set", NODE, "box_threshold", "0.5", *look)
    assert "Set parameter successful" in ros2.tool("param", "set", NODE, "classes", "[red]", *look)
    consumer.next(lambda message: labels(message) == ["red"])
    for name, value, reason in [("threads.detector", "2", "unconfigured"), ("n_points", "0", "at least 1")]:
        refused = ros2.tool("param", "set", NODE, name, value, *look)
        assert "failed" in refused and reason in refused, refused
    dumped = ros2.tool("param", "dump", NODE, *look)
    assert "ros__parameters" in dumped and "max_rate" in dumped, dumped

    answer = ros2.tool("service", "call", f"{NODE}/enable", "std_srvs/srv/SetBool", "{data: false}")
    assert "success=True" in answer, answer
    box = "{prompts: [{label: mine, box: {x_offset: 20, y_offset: 20, width: 90, height: 90}}]}"
    answer = ros2.tool("service", "call", f"{NODE}/segment", "scenelex/srv/Segment", box)
    assert "success=True" in answer and "mine" in answer, answer
