"""`scenelex vocabulary`: the ranking of a whole recording, measured against figures computed here."""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest

from chat_server import ChatServer
from conftest import COLOURS, END, ROOT, START, TINY
from pictures import jpeg, scene

rosbags = pytest.importorskip("rosbags.rosbag2", reason="the Python package rosbags is not installed")
from rosbags.typesys import Stores, get_typestore  # noqa: E402

TOPIC = "/camera/image_raw/compressed"
# red in every picture, blue in half of them, yellow in one of eight, green never.
SCENES = [
    {(0, 0): "red"} | ({(2, 1): "blue"} if number % 2 == 0 else {}) | ({(3, 2): "yellow"} if number == 3 else {})
    for number in range(8)
]


@pytest.fixture
def bag(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = store.types["sensor_msgs/msg/CompressedImage"]
    time, header = store.types["builtin_interfaces/msg/Time"], store.types["std_msgs/msg/Header"]
    path = tmp_path / "bag"
    with rosbags.Writer(path, version=9, storage_plugin=rosbags.StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(TOPIC, kind.__msgtype__, typestore=store)
        for number, cells in enumerate(SCENES):
            data = np.frombuffer(jpeg(scene(cells)), np.uint8)
            message = kind(header=header(stamp=time(sec=number, nanosec=0), frame_id="camera"), format="jpeg", data=data)
            writer.write(connection, number * 10**9, store.serialize_cdr(message, kind.__msgtype__))
        broken = kind(header=header(stamp=time(sec=9, nanosec=0), frame_id="camera"), format="jpeg", data=data[:50])
        writer.write(connection, 9 * 10**9, store.serialize_cdr(broken, kind.__msgtype__))
    return path


def vocabulary(program, environment, bag, out, *more):
    command = [program, "vocabulary", bag, "--words", ", ".join(COLOURS), "--models", TINY, "--out", out, *map(str, more)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * END)


def test_ranking_and_its_quality(program, environment, bag, tmp_path):
    out = tmp_path / "vocabulary.json"
    done = vocabulary(program, environment, bag, out, "--truth", "red, blue|azure, green", "--lexicon", "/nonexistent")
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert (result["images"], result["refined_by"]) == (8, "proposals"), "the broken picture does not count"
    assert result["problems"] == []
    assert "left out an image" in done.stderr
    ranked = {row["label"]: row for row in result["ranking"]}
    assert [row["label"] for row in result["ranking"]] == ["red", "blue", "yellow"]
    assert [ranked[label]["images"] for label in ("red", "blue", "yellow")] == [8, 4, 1]
    for row in ranked.values():
        assert row["score"] == pytest.approx(row["images"] / 8 * row["probability"], rel=1e-4)

    right = np.cumsum([label in ("red", "blue", "green") for label in ranked])
    precision, recall = right / np.arange(1, 4), right / 3
    curve = result["quality"]["curve"]
    np.testing.assert_allclose([at["precision"] for at in curve], precision)
    np.testing.assert_allclose([at["recall"] for at in curve], recall)
    area = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
    expected = area(np.concatenate([precision[:1], precision]), np.concatenate([[0], recall]))
    assert result["quality"]["auc"] == pytest.approx(expected)


def test_what_of_the_bag_cannot_be_read_is_told(program, environment, bag, tmp_path):
    out = tmp_path / "vocabulary.json"
    # A split bag one of whose files is no bag, and an index that does not know it.
    (bag / "metadata.yaml").write_text("")
    (bag / "z_1.mcap").write_bytes(b"nothing that was ever a bag")
    done = vocabulary(program, environment, bag, out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["images"] == 8
    for name in ("metadata.yaml", "z_1.mcap"):
        assert sum(name in problem for problem in result["problems"]) == 1, result["problems"]
        assert name in done.stderr


def test_a_damaged_chunk_is_no_bad_image(program, environment, bag, tmp_path):
    reader = pytest.importorskip("mcap.reader", reason="the Python package mcap is not installed")
    writer = pytest.importorskip("mcap.writer", reason="the Python package mcap is not installed")
    (path,) = bag.glob("*.mcap")
    with path.open("rb") as source, (tmp_path / "damaged.mcap").open("wb") as file:
        # A chunk for every message, as it is.
        copy = writer.Writer(file, chunk_size=1, compression=writer.CompressionType.NONE)
        copy.start(profile="ros2", library="tests")
        channel = None
        for schema, of, message in reader.make_reader(source).iter_messages():
            if channel is None:
                channel = copy.register_channel(of.topic, "cdr", copy.register_schema(schema.name, schema.encoding, schema.data))
            copy.add_message(channel, message.log_time, message.data, message.publish_time)
        copy.finish()
    data = bytearray((tmp_path / "damaged.mcap").read_bytes())
    at = data.index(jpeg(scene(SCENES[3])))
    data[at + 200] ^= 0xFF
    (tmp_path / "damaged.mcap").write_bytes(data)
    out = tmp_path / "vocabulary.json"
    done = vocabulary(program, environment, tmp_path / "damaged.mcap", out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["images"] == 7
    assert "yellow" not in [row["label"] for row in result["ranking"]], "it was in the damaged picture only"
    (problem,) = result["problems"]
    assert "damaged.mcap: damaged at byte" in problem and problem in done.stderr
    assert done.stderr.count("left out an image") == 1, "the broken picture, and nothing else"


def test_a_language_model_groups_what_was_proposed(program, environment, bag, tmp_path):
    def group(request: dict) -> str:
        assert sorted(json.loads(request["messages"][-1]["content"])["labels"]) == ["blue", "red", "yellow"]
        classes = [
            {"label": "red", "synonyms": ["yellow", "scarlet"], "parent": ""},
            {"label": "blue", "synonyms": [], "parent": "red"},
        ]
        return json.dumps({"classes": classes})

    out, record = tmp_path / "vocabulary.json", tmp_path / "exchanges.jsonl"
    with ChatServer(answer=group) as server:
        model = ["--llm-url", server.base_url, "--llm-model", "test-model", "--llm-key-variable", ""]
        done = vocabulary(program, environment, bag, out, *model, "--llm-record", record)
        assert done.returncode == 0, done.stderr
    first = json.loads(out.read_text())
    assert first["refined_by"] == "language model"
    assert [(c["label"], c["synonyms"], c["parent"]) for c in first["classes"]] == [("red", ["yellow"], ""), ("blue", [], "red")]
    done = vocabulary(program, environment, bag, out, "--llm-replay", record, "--llm-model", "test-model")
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["classes"] == first["classes"], "the recording answers alike"


def each_alone(request: dict) -> str:
    """Answers a grouping: every label is a class."""
    labels = json.loads(request["messages"][-1]["content"])["labels"]
    return json.dumps({"classes": [{"label": label, "synonyms": [], "parent": ""} for label in labels]})


def test_the_fixed_threshold_is_about_the_probability(program, environment, bag, tmp_path):
    def ranking(*more) -> dict[str, dict]:
        out = tmp_path / "vocabulary.json"
        done = vocabulary(program, environment, bag, out, "--grid", "both", *more)
        assert done.returncode == 0, done.stderr
        return {row["label"]: row for row in json.loads(out.read_text())["ranking"]}

    # Red is in two of the five samples of each picture: the whole and one cell. The tiny detector is sure of what it sees:
    # sigmoid(4) for a pure colour.
    sure = ranking("--threshold", 0.8)
    assert sure["red"]["probability"] > 0.8 and sure["red"]["score"] < 0.5, sure
    assert set(sure) == {"red", "blue", "yellow"}
    assert ranking("--threshold", 1) == {}

    found = [ranking("--aggregation", how) for how in ("product", "min", "avg", "max")]
    product, least, mean, greatest = ([one[label]["probability"] for label in ("red", "blue", "yellow")] for one in found)
    assert all(a < b for a, b in zip(product, least, strict=True)), found
    for lower, upper in ((least, mean), (mean, greatest)):
        assert all(a <= b + 1e-6 for a, b in zip(lower, upper, strict=True)), found


def test_the_first_signal_ends_the_wait_for_a_language_model(start, bag, tmp_path):
    out = tmp_path / "vocabulary.json"
    with ChatServer(fault="hang") as server:
        model = ["--llm-url", server.base_url, "--llm-model", "test-model", "--llm-key-variable", ""]
        process = start("vocabulary", bag, "--words", ", ".join(COLOURS), "--models", TINY, "--out", out, *model)
        deadline = time.monotonic() + START
        while not server.requests:
            assert process.alive() and time.monotonic() < deadline, process.output()
            time.sleep(0.02)
        asked = time.monotonic()
        assert process.end() == 130
        assert time.monotonic() - asked < 10
    assert not out.exists()


def test_requests_go_by_the_proxy_of_the_environment(program, environment, bag, tmp_path):
    out = tmp_path / "vocabulary.json"
    clean = {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}
    with ChatServer(answer=each_alone) as server, ChatServer(answer=each_alone) as proxy:
        by_proxy = clean | {"HTTP_PROXY": f"http://127.0.0.1:{proxy.port}", "HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}

        def asked(url, variables) -> str:
            server.clear()
            proxy.clear()
            model = ["--llm-url", url, "--llm-allow-http", "--llm-model", "test-model", "--llm-key-variable", ""]
            done = vocabulary(program, variables, bag, out, *model, "--lexicon", "/nonexistent")
            assert done.returncode == 0, done.stderr
            return json.loads(out.read_text())["refined_by"]

        def paths(where) -> list[str]:
            return [request.path for request in where.all_requests]

        # No name of this machine, and yet it is here that a connection to it ends.
        away = f"http://0.0.0.0:{server.port}/v1"
        assert asked(away, by_proxy) == "language model"
        assert (paths(proxy), paths(server)) == ([f"{away}/chat/completions"], []), "in absolute form, and not past the proxy"
        assert asked(away, by_proxy | {"NO_PROXY": "example.org,0.0.0.0"}) == "language model"
        assert (paths(proxy), paths(server)) == ([], ["/v1/chat/completions"])
        assert asked(server.base_url, by_proxy) == "language model"
        assert (paths(proxy), paths(server)) == ([], ["/v1/chat/completions"]), "this machine needs no proxy"

        # What is encrypted goes through a tunnel, which this proxy refuses.
        assert asked("https://model.invalid/v1", by_proxy) == "proposals"
        assert {(request.method, request.path) for request in proxy.all_requests} == {("CONNECT", "model.invalid:443")}


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--topic", "/nowhere"], TOPIC), (["--truth", "red?"], "--truth"), (["--every", "0"], "--every"), (["--threshold", "1.1"], "--threshold")],
)
def test_wrong_arguments_are_told(program, environment, bag, tmp_path, more, says):
    done = vocabulary(program, environment, bag, tmp_path / "out.json", *more)
    assert done.returncode != 0 and says in done.stderr
