"""What the launch files read of a parameter file and of the cameras' names; no ROS 2 is needed for it."""

from __future__ import annotations

import sys

import pytest

from conftest import ROOT

pytest.importorskip("yaml", reason="the Python package PyYAML is not installed")
sys.path.insert(0, str(ROOT / "launch"))
import scenelex_inputs as inputs  # noqa: E402


def given(**arguments: str):
    """Values of launch arguments by their names, as the launch files have them."""
    return lambda name: arguments.get(name, "scenelex" if name == "name" else "")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        # As rcl's rcl_yaml_param_parser and src/ros/parameters.rs have it.
        ("scenelex", "/scenelex", True),
        ("scenelex", "/robot/scenelex", False),
        ("/robot/scenelex", "/robot/scenelex", True),
        ("/**", "/robot/arm/scenelex", True),
        ("/*", "/scenelex", True),
        ("/*", "/robot/scenelex", False),
        ("/*/scenelex", "/robot/scenelex", True),
        ("/**/scenelex", "/scenelex", True),
        ("/**/scenelex", "/a/b/scenelex", True),
        ("/**/other", "/a/b/scenelex", False),
        ("/scene", "/scenelex", False),
    ],
)
def test_node_patterns_are_those_of_rcl(pattern, name, expected):
    assert inputs.matches(inputs.parts(pattern), inputs.parts(name)) == expected


@pytest.mark.parametrize(
    ("text", "namespace", "expected"),
    [
        ("/**: {ros__parameters: {classes: [a]}}", "", {"classes": ["a"]}),
        ("robot: {scenelex: {ros__parameters: {classes: [a]}}}", "/robot", {"classes": ["a"]}),
        ("robot: {scenelex: {ros__parameters: {classes: [a]}}}", "", {}),
        ("other: {ros__parameters: {classes: [a]}}", "", {}),
        # Later sections win.
        ("scenelex: {ros__parameters: {device: 1, classes: [a]}}\n/**: {ros__parameters: {device: 2}}", "", {"device": 2, "classes": ["a"]}),
        ("scenelex: {ros__parameters: }", "", {}),
        ("", "", {}),
        ("- no parameter file", "", {}),
    ],
)
def test_a_file_says_what_it_says_for_this_node(tmp_path, text, namespace, expected):
    path = tmp_path / "parameters.yaml"
    path.write_text(text)
    assert inputs.file_values(given(params_file=str(path), namespace=namespace)) == expected


@pytest.mark.parametrize("text", ["a: [", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    path = tmp_path / "parameters.yaml"
    if text:
        path.write_text(text)
    with pytest.raises(RuntimeError, match="params_file: cannot read .*parameters.yaml"):
        inputs.file_values(given(params_file=str(path)))


@pytest.mark.parametrize(
    ("arguments", "values", "expected"),
    [
        ({}, {}, {"image": "/camera/image_raw"}),
        ({"image": "/eye"}, {}, {"image": "/eye"}),
        ({"image": "/eye"}, {"image_transport": "compressed"}, {"image": "/eye/compressed"}),
        ({"image": "/eye", "image_transport": "raw"}, {"image_transport": "compressed"}, {"image": "/eye"}),
        ({"image": "/eye/compressed", "image_transport": "compressed"}, {}, {"image": "/eye/compressed"}),
        ({"cameras": "a=/eye, b=/ear"}, {}, {"a/image": "/eye", "b/image": "/ear"}),
        ({"cameras": "a=/eye", "image_transport": "compressed"}, {"cameras": ["c"]}, {"a/image": "/eye/compressed"}),
        ({}, {"cameras": ["front", "rear"]}, {"front/image": "front/image", "rear/image": "rear/image"}),
        ({"image": "/eye"}, {"cameras": []}, {"image": "/eye"}),
    ],
)
def test_every_input_has_its_topic(arguments, values, expected):
    assert inputs.image_topics(given(**arguments), values) == expected


def test_one_topic_for_several_cameras_is_refused():
    with pytest.raises(RuntimeError, match='image:=/eye .*front, rear.*cameras:="front=TOPIC, rear=TOPIC"'):
        inputs.image_topics(given(image="/eye", params_file="some.yaml"), {"cameras": ["front", "rear"]})


@pytest.mark.parametrize("text", ["front", "=/eye", "front=", "front=/eye, front=/ear"])
def test_cameras_are_named_once_and_with_a_topic(text):
    with pytest.raises(RuntimeError, match="expected NAME=TOPIC"):
        inputs.image_topics(given(cameras=text), {})
