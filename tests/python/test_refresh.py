"""The vocabulary loop: the class list follows what the camera sees, and no fault of a language model can stop a frame or
spoil a good list. The language model is a server on this machine whose protocol the official client understands
(test_chat_server.py); what it answers is written in the tests."""

from __future__ import annotations

import json
import threading
import time

import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from camera import NODE, Camera  # noqa: E402
from chat_server import ChatServer  # noqa: E402
from conftest import RESULT, START, TINY  # noqa: E402
from peer import until  # noqa: E402
from pictures import compressed, jpeg, scene  # noqa: E402

TRIGGER = "std_srvs/srv/Trigger"
WORDS = ["red", "green", "blue", "yellow"]
FIRST = jpeg(scene({(0, 0): "red", (2, 1): "blue"}))
SECOND = jpeg(scene({(3, 2): "green", (1, 1): "green", (0, 2): "yellow"}))
KEY = "sk-test-0123456789abcdefghij"

PARAMETERS = {
    "classes": "[]",
    "refresh.enabled": "true",
    "refresh.probe.words": f"[{', '.join(WORDS)}]",
    "refresh.pre_refine": "false",
    "refresh.period": 0.5,
    "refresh.min_interval": 0.2,
    "refresh.keep": 0,
    "diagnostics.period": 0.2,
}


class Vocabulary:
    """What came on ~/vocabulary."""

    def __init__(self, peer):
        self.topic = peer.subscribe(f"{NODE}/vocabulary", "scenelex/msg/Vocabulary", latched=True, depth=10)

    def becomes(self, labels, camera, picture, first_stamp) -> object:
        """Show the picture until a list with these labels is in force."""
        shown = first_stamp

        def come():
            nonlocal shown
            camera.serve(compressed(picture, shown))
            shown += 1
            for vocabulary in self.topic.take(0.05):
                self.last = vocabulary
                if sorted(entry.label for entry in vocabulary.entries) == sorted(labels):
                    return vocabulary
            return None

        return until(come, RESULT, f"a class list of {labels}")


def diagnostics(peer):
    return peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)


def refresh_status(topic, condition):
    """The values of the loop's part of /diagnostics, and its level and message, once `condition` holds."""

    def come():
        for array in topic.take(timeout=0.3):
            for status in array.status:
                if status.name.endswith(": refresh"):
                    values = {pair.key: pair.value for pair in status.values}
                    values |= {"level": status.level, "message": status.message}
                    if condition(values):
                        return values
        return None

    return until(come, RESULT, "the refresh status on /diagnostics")


def test_the_list_follows_the_camera(node, peer):
    vocabulary = Vocabulary(peer)
    camera = Camera(peer, node(PARAMETERS))
    seen = vocabulary.becomes(["red", "blue"], camera, FIRST, 1)
    assert seen.source == "refresh"
    assert all(0 < entry.score <= 1 for entry in seen.entries)
    ids = {entry.label: entry.class_id for entry in seen.entries}
    masks = camera.serve(compressed(FIRST, 1000))["masks"]
    assert sorted(one.label for one in masks.masks) == ["blue", "red"]
    vocabulary.becomes(["green", "yellow"], camera, SECOND, 2000)
    again = vocabulary.becomes(["red", "blue"], camera, FIRST, 3000)
    assert {entry.label: entry.class_id for entry in again.entries} == ids, "a label keeps its id over time"


def test_a_missed_sighting_drops_nothing(node, peer):
    vocabulary = Vocabulary(peer)
    camera = Camera(peer, node(PARAMETERS | {"refresh.keep": 1000}))
    vocabulary.becomes(["red", "blue"], camera, FIRST, 1)
    vocabulary.becomes(["red", "blue", "green", "yellow"], camera, SECOND, 1000)


def test_a_list_set_by_hand_is_where_the_loop_goes_on(node, peer):
    vocabulary = Vocabulary(peer)
    camera = Camera(peer, node(PARAMETERS | {"refresh.keep": 1000, "refresh.period": 0, "refresh.scene_change": 0.2}))
    vocabulary.becomes(["red", "blue"], camera, FIRST, 1)
    answer = peer.call(f"{NODE}/set_vocabulary", "scenelex/srv/SetVocabulary", classes=["mug", "red"])
    assert answer.success
    # The next look keeps what was set and adds what it sees.
    vocabulary.becomes(["mug", "red", "green", "yellow"], camera, SECOND, 1000)


def test_the_service_calls_for_a_look_and_tells_what_came_of_it(node, peer):
    camera = Camera(peer, node(PARAMETERS | {"refresh.period": 0, "refresh.scene_change": 0, "refresh.unmatched": 0}))
    camera.serve(compressed(FIRST, 1))  # the first image is always looked at
    stamp = iter(range(2, 1000))

    answers = []
    caller = threading.Thread(target=lambda: answers.append(peer.call(f"{NODE}/refresh_vocabulary", TRIGGER)))
    caller.start()
    until(lambda: camera.serve(compressed(SECOND, next(stamp))) and answers, RESULT, "an answer")
    caller.join()
    assert answers[0].success, answers[0].message
    assert "green" in answers[0].message and "yellow" in answers[0].message


def test_targets_bound_the_list_and_nothing_seen_changes_nothing(node, peer):
    vocabulary = Vocabulary(peer)
    status = diagnostics(peer)
    camera = Camera(peer, node(PARAMETERS | {"refresh.targets": "[red, green]"}))
    vocabulary.becomes(["red"], camera, FIRST, 1)
    grey = jpeg(scene({}))
    for stamp in range(1000, 1010):
        camera.serve(compressed(grey, stamp))
        time.sleep(0.1)
    found = refresh_status(status, lambda values: "failures.nothing_recognised" in values)
    assert "stays as it is" in found["message"]
    later = [[entry.label for entry in one.entries] for one in vocabulary.topic.take()]
    assert all(labels == ["red"] for labels in later), "no other list came"
    masks = camera.serve(compressed(FIRST, 2000))["masks"]
    assert [one.label for one in masks.masks] == ["red"], "the list is still in force"


def test_the_last_good_list_is_in_force_from_the_start(node, peer, tmp_path):
    store = tmp_path / "list.json"
    first = node(PARAMETERS | {"refresh.store": store})
    vocabulary = Vocabulary(peer)
    vocabulary.becomes(["red", "blue"], Camera(peer, first), FIRST, 1)
    assert first.end() == 0
    node(PARAMETERS | {"refresh.store": store})
    kept = Vocabulary(peer).topic.wait(lambda v: v.source == "stored", START)
    assert sorted(entry.label for entry in kept.entries) == ["blue", "red"]


def test_a_list_set_by_hand_is_kept_too(node, peer, tmp_path):
    store = tmp_path / "list.json"
    parameters = PARAMETERS | {"refresh.store": store, "refresh.period": 0, "refresh.scene_change": 0, "refresh.unmatched": 0}
    first = node(parameters)
    Vocabulary(peer).becomes(["red", "blue"], Camera(peer, first), FIRST, 1)
    # The first image is the only one that is looked at: no look sees this list.
    assert peer.call(f"{NODE}/set_vocabulary", "scenelex/srv/SetVocabulary", classes=["mug"]).success
    assert first.end() == 0
    node(parameters)
    kept = Vocabulary(peer).topic.wait(lambda v: v.source == "stored", START)
    assert [entry.label for entry in kept.entries] == ["mug"]


def test_fixed_classes_need_nobody_who_sees_them(node, peer):
    node(PARAMETERS | {"refresh.fixed": "[mug]", "refresh.confirm": 3})
    found = Vocabulary(peer).topic.wait(lambda v: v.entries, START)
    assert [entry.label for entry in found.entries] == ["mug"]


# --- with a language model -----------------------------------------------------------------------


def refine(request: dict) -> str:
    """Answers a selection among targets with those the tags name, and hints with none."""
    data = json.loads(request["messages"][-1]["content"])
    if "tags" in data:
        return json.dumps({"labels": [label for label in data["classes"] if label in data["tags"]]})
    return json.dumps({"hints": []})


@pytest.fixture
def chat(environment):
    environment["SCENELEX_TEST_KEY"] = KEY
    with ChatServer(answer=refine, key=KEY) as server:
        yield server


def with_model(server, **more):
    return PARAMETERS | {
        "refresh.pre_refine": "true",
        "refresh.targets": f"[{', '.join(WORDS)}]",
        # What follows is about the model; without it the list would go on by the lexicon.
        "refresh.lexicon": "none",
        "llm.url": server.base_url,
        "llm.model": "test-model",
        "llm.key_variable": "SCENELEX_TEST_KEY",
        "llm.read_timeout": 1.0,
        "llm.total_timeout": 1.5,
        "llm.requests_per_hour": 100000,
    } | more


def test_a_language_model_refines_and_the_exchange_can_be_replayed(node, peer, chat, tmp_path):
    record = tmp_path / "exchanges.jsonl"
    vocabulary = Vocabulary(peer)
    status = diagnostics(peer)
    first = node(with_model(chat, **{"llm.record": record}))
    camera = Camera(peer, first)
    vocabulary.becomes(["red", "blue"], camera, FIRST, 1)
    values = refresh_status(status, lambda values: values.get("last.refined_by") == "language model")
    assert int(values["llm.replies"]) >= 2 and values["llm.breaker"] == "closed"
    vocabulary.becomes(["green", "yellow"], camera, SECOND, 1000)
    assert first.end() == 0
    assert KEY not in first.output() and KEY not in record.read_text()

    asked = len(chat.all_requests)
    replaying = with_model(chat, **{"llm.replay": record, "llm.url": '""'})
    second = node(replaying)
    camera = Camera(peer, second)
    vocabulary.becomes(["red", "blue"], camera, FIRST, 2000)
    vocabulary.becomes(["green", "yellow"], camera, SECOND, 3000)
    assert len(chat.all_requests) == asked, "a replay asks nobody"


def grouping(first: str):
    """Answers a grouping with red and blue as names of one thing, called `first`."""

    def answer(request: dict) -> str:
        labels = json.loads(request["messages"][-1]["content"])["labels"]
        other = {"red": "blue", "blue": "red"}[first]
        alone = [label for label in labels if label not in (first, other)]
        classes = [{"label": first, "synonyms": [other], "parent": ""}, *({"label": label, "synonyms": [], "parent": ""} for label in alone)]
        return json.dumps({"classes": classes})

    return answer


def test_a_class_that_gets_another_name_keeps_its_own(node, peer, chat):
    vocabulary = Vocabulary(peer)
    chat.set_answer(grouping("red"))
    camera = Camera(peer, node(with_model(chat, **{"refresh.targets": "[]", "refresh.keep": 1000})))
    vocabulary.becomes(["red"], camera, FIRST, 1)
    chat.set_answer(grouping("blue"))
    more = jpeg(scene({(0, 0): "red", (2, 1): "blue", (3, 2): "green"}))
    found = vocabulary.becomes(["red", "green"], camera, more, 1000)
    assert [list(entry.synonyms) for entry in found.entries if entry.label == "red"] == [["blue"]]


def test_one_odd_label_does_not_keep_the_others_out(node, peer, chat):
    vocabulary = Vocabulary(peer)
    status = diagnostics(peer)
    # The tiny tokenizer does not know the character: the detector could not be asked for it.
    chat.set_answer(lambda request: json.dumps({"objects": [{"label": label, "probability": 0.9} for label in ("red", "杯")]}))
    camera = Camera(peer, node(PARAMETERS | {
        "refresh.proposals": "[look]", "llm.url": chat.base_url, "llm.model": "test-model", "llm.key_variable": "SCENELEX_TEST_KEY",
    }))
    found = vocabulary.becomes(["red"], camera, FIRST, 1)
    values = refresh_status(status, lambda values: int(values["refreshes"]) >= 1)
    assert int(values["refused_labels"]) >= 1 and int(values["changes"]) == 1, values
    # The same again makes no new version.
    stamps = iter(range(1000, 10_000))

    def looked_again(values):
        camera.serve(compressed(SECOND, next(stamps)))
        return int(values["refreshes"]) >= 2

    values = refresh_status(status, looked_again)
    assert int(values["changes"]) == 1, values
    assert all(one.version == found.version for one in vocabulary.topic.take())


def test_a_fixed_class_is_nobodys_synonym(node, peer, chat):
    vocabulary = Vocabulary(peer)
    chat.set_answer(grouping("red"))
    camera = Camera(peer, node(with_model(chat, **{"refresh.targets": "[]", "refresh.fixed": "[blue]"})))
    stamp = iter(range(1, 10_000))

    def named():
        camera.serve(compressed(FIRST, next(stamp)))
        lists = [[(entry.label, list(entry.synonyms)) for entry in found.entries] for found in vocabulary.topic.take(0.05)]
        return [("blue", ["red"])] in lists

    until(named, RESULT, "the fixed class with the other name")


def test_a_scene_that_stays_the_same_is_asked_about_once(node, peer, chat):
    status = diagnostics(peer)
    camera = Camera(peer, node(with_model(chat)))
    stamp = iter(range(1, 10_000))

    def looked():
        camera.serve(compressed(FIRST, next(stamp)))
        return [array for array in status.take(0) if any(number(part, "refreshes") >= 4 for part in array.status)]

    def number(part, key):
        return next((int(pair.value) for pair in part.values if pair.key == key), 0)

    until(looked, RESULT, "four looks")
    selections = [request for request in chat.all_requests if '"tags"' in request.body["messages"][-1]["content"]]
    assert len(selections) == 1


def test_subclasses_are_asked_for_once_and_for_all(node, peer, chat, tmp_path):
    def answer(request: dict) -> str:
        data = json.loads(request["messages"][-1]["content"])
        if "tags" in data or "subclasses" not in request["messages"][0]["content"]:
            return refine(request)
        return json.dumps({"classes": [{"label": name, "subclasses": [f"dark {name}"]} for name in data["classes"]]})

    def questions():
        return sum("subclasses" in request.body["messages"][0]["content"] for request in chat.all_requests)

    chat.set_answer(answer)
    parameters = with_model(chat, **{"refresh.subclasses": "true", "refresh.store": tmp_path / "list.json"})
    first = node(parameters)
    vocabulary = Vocabulary(peer)
    found = vocabulary.becomes(["red", "blue"], Camera(peer, first), FIRST, 1)
    assert {entry.label: list(entry.subclasses) for entry in found.entries} == {"red": ["dark red"], "blue": ["dark blue"]}
    assert first.end() == 0
    asked = questions()
    assert asked

    # The list that is in force at first has them too; that of the next scene has to be made anew.
    second = node(parameters)
    vocabulary = Vocabulary(peer)
    camera = Camera(peer, second)
    chat.set_answer(refine)
    vocabulary.becomes(["red"], camera, jpeg(scene({(0, 0): "red"})), 1000)
    assert [list(entry.subclasses) for entry in vocabulary.last.entries] == [["dark red"]]
    assert questions() == asked


# Each fault with the words under which diagnostics count it; one of them has to appear.
FAULTS = {
    "refuse": ("transport", "open"),
    "hang": ("timeout_read", "timeout_total", "open"),
    "rate_limit": ("rate_limited", "timeout_total", "open"),
    "server_error": ("server_error", "timeout_total", "open"),
    "truncated": ("malformed", "open"),
    "huge": ("too_large", "open"),
    "html": ("content_type", "open"),
    "wrong_schema": ("reply",),
    "injected": ("reply",),
    "long_labels": ("reply",),
    "duplicate_keys": ("reply",),
    "unauthorised": ("unauthorised", "open"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_language_model_stops_no_frame_and_spoils_no_list(node, peer, chat, fault):
    vocabulary = Vocabulary(peer)
    status = diagnostics(peer)
    process = node(with_model(chat))
    camera = Camera(peer, process)
    vocabulary.becomes(["red", "blue"], camera, FIRST, 1)
    before = refresh_status(status, lambda values: values["level"] == 0 and int(values["refreshes"]) > 0)

    chat.set_fault(fault)
    failed = lambda values: {k: int(v) for k, v in values.items() if k.startswith("failures.")}  # noqa: E731
    counts = failed(before)
    stamp, end = 1000, time.monotonic() + RESULT
    found = None
    while found is None and time.monotonic() < end:
        masks = camera.serve(compressed(SECOND, stamp))["masks"]
        stamp += 1
        assert sorted({one.label for one in masks.masks}) == [], "the list is still the good one, of red and blue"
        for array in status.take(0):
            for part in array.status:
                values = {pair.key: pair.value for pair in part.values} | {"message": part.message}
                if part.name.endswith(": refresh") and failed(values) != counts:
                    found = values
    assert found, f"no failure was counted; {process.output()[-2000:]}"
    kinds = {kind.removeprefix("failures.") for kind, count in failed(found).items() if count > counts.get(kind, 0)}
    assert kinds & set(FAULTS[fault]), (kinds, found)
    assert KEY not in process.output() and KEY not in json.dumps(found)

    chat.set_fault("none")
    vocabulary.becomes(["green", "yellow"], camera, SECOND, 100_000)
    assert process.end() == 0


def test_the_lexicon_takes_over_where_it_is_there(node, peer, chat):
    vocabulary = Vocabulary(peer)
    status = diagnostics(peer)
    parameters = with_model(chat)
    del parameters["refresh.lexicon"]
    camera = Camera(peer, node(parameters))
    chat.set_fault("server_error")
    vocabulary.becomes(["red", "blue"], camera, FIRST, 1)
    values = refresh_status(status, lambda values: values.get("last.refined_by") == "lexicon")
    assert "went on without" in values["message"]


def test_a_phrase_of_the_detectors_own_becomes_one_class(node, peer, chat):
    """Yellow looks like red and like green to the tiny detector: its label is no phrase of the list."""
    asked = []

    def assign(request: dict) -> str:
        data = json.loads(request["messages"][-1]["content"])
        if "phrases" not in data:
            return refine(request)
        asked.extend(data["phrases"])
        return json.dumps({"assignments": [{"phrase": phrase, "label": "green"} for phrase in data["phrases"]]})

    chat.set_answer(assign)
    parameters = with_model(chat, **{"label_rule": "token_labels", "refresh.targets": "[red, green]", "refresh.keep": 1000})
    parameters |= {"classes": "[red, green]", "text_threshold": 0.2, "box_threshold": 0.2, "refresh.unmatched": 0}
    # Otherwise the tiny encoder finds the phrase like enough to a class by itself.
    parameters |= {"refresh.similarity": 1.0}
    camera = Camera(peer, node(parameters))
    picture = jpeg(scene({(1, 1): "yellow"}))
    stamp = iter(range(1, 10_000))

    def labelled():
        masks = camera.serve(compressed(picture, next(stamp)))["masks"].masks
        assert all(set(one.phrase.split()) <= {"red", "green"} for one in masks)
        return masks and [(one.phrase, one.label, one.class_id) for one in masks if one.label == "green"]

    found = until(labelled, RESULT, "a class for the phrase")
    assert set(found[0][0].split()) == {"red", "green"}, "the detector's own words are kept"
    assert set(asked) == {found[0][0]}


def test_sentence_similarity_gives_a_class_where_words_do_not(node, peer):
    parameters = PARAMETERS | {"label_rule": "token_labels", "refresh.targets": "[red, green]", "refresh.lexicon": "none"}
    parameters |= {"refresh.keep": 1000, "refresh.unmatched": 0}
    parameters |= {"classes": "[red, green]", "text_threshold": 0.2, "box_threshold": 0.2, "refresh.similarity": 0.3}
    camera = Camera(peer, node(parameters))
    picture = jpeg(scene({(1, 1): "yellow"}))
    stamp = iter(range(1, 10_000))

    def labelled():
        masks = camera.serve(compressed(picture, next(stamp)))["masks"].masks
        return [one.label for one in masks if set(one.phrase.split()) == {"red", "green"} and one.label]

    assert until(labelled, RESULT, "a class for the phrase")[0] in ("red", "green")


def test_it_ends_while_the_model_hangs(node, peer, chat):
    """Long before the model's time is up: `end` waits a tenth of it."""
    process = node(with_model(chat, **{"llm.read_timeout": 300.0, "llm.total_timeout": 600.0}))
    camera = Camera(peer, process)
    chat.set_fault("hang")
    stamp = iter(range(1, 10_000))
    until(lambda: camera.serve(compressed(FIRST, next(stamp))) and chat.all_requests, RESULT, "a question")
    assert process.end() == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"refresh.proposals": "[crystal_ball]"}, "must be probe, look, tags or caption"),
        ({"refresh.proposals": "[tags]"}, "refresh.tagger"),
        ({"refresh.proposals": "[caption]", "refresh.captioner": "/nonexistent"}, "/nonexistent"),
        ({"refresh.proposals": "[tags]", "refresh.tagger": TINY / "blip"}, "expected classifier, found blip"),
        ({"refresh.proposals": "[look]", "llm.url": '""'}, "set llm.url"),
        ({"llm.url": "http://example.com/v1"}, "http"),
        ({"llm.url": "https://user:secret@example.com/v1"}, "password"),
        ({"refresh.lexicon": "/nonexistent"}, "/nonexistent"),
        ({"refresh.targets": '["red?"]'}, "refresh.targets"),
        ({"refresh.keep": -1}, "refresh.keep"),
    ],
)
def test_wrong_settings_are_told(node, chat, changes, says):
    process = node(with_model(chat) | changes)
    assert process.process.wait(timeout=START) != 0
    assert says in process.output(), process.output()
    assert "secret" not in process.output()
