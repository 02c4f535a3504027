"""The layouts for RViz and Foxglove in config/ show what the node publishes; no ROS 2 is needed for it."""

from __future__ import annotations

import json

import pytest

from conftest import ROOT

yaml = pytest.importorskip("yaml", reason="the Python package PyYAML is not installed")
CONFIG = ROOT / "config"
NODE = "/scenelex"


def test_foxglove_has_panels_of_the_node():
    panels = json.loads((CONFIG / "foxglove.json").read_text())
    assert any(NODE in str(panel) for panel in panels["configById"].values())


def test_rviz_shows_camera_and_results():
    displays = yaml.safe_load((CONFIG / "scenelex.rviz").read_text())["Visualization Manager"]["Displays"]
    # simulation.launch.py remaps each of them.
    shown = {display["Topic"]["Value"] for display in displays}
    assert shown == {"/camera/image_raw", f"{NODE}/overlay/image", f"{NODE}/instances/image"}
    # Whoever asks for reliable gets nothing of a best-effort publisher.
    assert {display["Topic"]["Reliability Policy"] for display in displays} == {"Best Effort"}
