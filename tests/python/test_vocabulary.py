"""The class list changed while the node runs, by topic and by service."""

from __future__ import annotations

import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from camera import NODE, Camera  # noqa: E402
from conftest import RESULT, START  # noqa: E402
from idl_from_msg import default  # noqa: E402
from peer import until  # noqa: E402
from pictures import compressed, jpeg, scene  # noqa: E402

SERVICE = "scenelex/srv/SetVocabulary"


def labels(vocabulary) -> list[str]:
    return [entry.label for entry in vocabulary.entries]


PICTURE = jpeg(scene({(0, 0): "red", (2, 1): "blue", (3, 2): "yellow"}))


def found(camera, stamp: int):
    """Version and labels of a frame's result."""
    masks = camera.serve(compressed(PICTURE, stamp))["masks"]
    return masks.vocabulary_version, sorted(one.label for one in masks.masks)


def test_service_answers_once_the_new_list_is_in_force(node, peer):
    camera = Camera(peer, node({"classes": "[red, green]"}))
    latched = peer.subscribe(f"{NODE}/vocabulary", "scenelex/msg/Vocabulary", latched=True)
    first = latched.wait(timeout=START)
    assert labels(first) == ["red", "green"]
    assert found(camera, 1) == (1, ["red"])

    answer = peer.call(f"{NODE}/set_vocabulary", SERVICE, classes=["Blue", "red"])
    assert answer.success, answer.message
    assert answer.version == 2
    assert [entry.label for entry in answer.entries] == ["blue", "red"]
    ids = {entry.label: entry.class_id for entry in first.entries}
    assert {e.label: e.class_id for e in answer.entries}["red"] == ids["red"], "a label keeps its id"
    published = latched.wait(lambda v: v.version == 2, RESULT)
    assert labels(published) == ["blue", "red"]
    assert published.source == "service"
    assert found(camera, 2) == (2, ["blue", "red"])


@pytest.mark.parametrize(
    "classes",
    [[], [""], ["a" * 10_000], ["red", "bl\x07ue"], [f"class {n}" for n in range(5000)], ["red", "杯", "椅"]],
)
def test_a_refused_list_changes_nothing(node, peer, classes):
    camera = Camera(peer, node({"classes": "[red]"}))
    answer = peer.call(f"{NODE}/set_vocabulary", SERVICE, classes=classes)
    assert not answer.success
    assert answer.message
    if "杯" in classes:
        assert '"杯", "椅"' in answer.message, "the names that the tokenizer does not know"
    assert [entry.label for entry in answer.entries] == ["red"]
    assert answer.version == 1
    assert found(camera, 1) == (1, ["red"])


def test_topic_changes_the_list(node, peer):
    running = node({"classes": "[red]"})
    camera = Camera(peer, running)
    latched = peer.subscribe(f"{NODE}/vocabulary", "scenelex/msg/Vocabulary", latched=True)
    wishes = peer.publisher(f"{NODE}/set_vocabulary", "std_msgs/msg/String")
    until(lambda: running.alive() and wishes.matched(), START, "the vocabulary's subscriber")
    for refused in ("", ", ,", "x" * 10_000):
        wishes.send(default("std_msgs/msg/String", data=refused))
    wishes.send(default("std_msgs/msg/String", data="yellow,  Green , blue"))
    changed = latched.wait(lambda v: v.version == 2, RESULT)
    assert changed.source == "topic"
    assert labels(changed) == ["yellow", "green", "blue"]
    assert found(camera, 1) == (2, ["blue", "yellow"])


def test_synonyms_and_subclasses_answer_to_their_label(node, peer):
    camera = Camera(peer, node({"classes": "[green]"}))
    entries = [
        default("scenelex/msg/VocabularyEntry", label="fire", synonyms=["red"]),
        default("scenelex/msg/VocabularyEntry", label="sky", subclasses=["blue"]),
    ]
    answer = peer.call(f"{NODE}/set_vocabulary", SERVICE, entries=entries, classes=["yellow"])
    assert answer.success, answer.message
    masks = camera.serve(compressed(PICTURE, 1))["masks"].masks
    assert sorted((one.label, one.phrase) for one in masks) == [("fire", "red"), ("sky", "blue"), ("yellow", "yellow")]
