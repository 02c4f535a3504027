"""Taggers and captioners as the program runs them, against ONNX Runtime and Pillow here and what Transformers wrote
(golden/make_proposer_golden.py)."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib

import numpy as np
import pytest
from PIL import Image

from chat_server import ChatServer
from conftest import END, RESULT, ROOT, TINY

rosbags = pytest.importorskip("rosbags.rosbag2", reason="the Python package rosbags is not installed")
from rosbags.typesys import Stores, get_typestore  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"
EXPECTED = json.loads((GOLDEN / "proposers.json").read_text())
PICTURE = GOLDEN / "proposers.png"
MANIFEST = ROOT / "models" / "mobilenet_v2" / "bundle.toml"
# Beside the checkout or above it.
SHARED = next((path / "shared/data" for path in ROOT.parents if (path / "shared/data/closed_set").is_dir()), None)
needs_shared = pytest.mark.skipif(SHARED is None, reason="the folder shared/data with the tagger's weights is not there")


def bag_of(path, pictures):
    """A bag with raw pictures, so that no JPEG decoder comes between."""
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = store.types["sensor_msgs/msg/Image"]
    time, header = store.types["builtin_interfaces/msg/Time"], store.types["std_msgs/msg/Header"]
    with rosbags.Writer(path, version=9, storage_plugin=rosbags.StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/image", kind.__msgtype__, typestore=store)
        for number, rgb in enumerate(pictures):
            message = kind(
                header=header(stamp=time(sec=number, nanosec=0), frame_id="camera"), height=rgb.shape[0], width=rgb.shape[1],
                encoding="rgb8", is_bigendian=0, step=rgb.shape[1] * 3, data=rgb.reshape(-1),
            )
            writer.write(connection, number * 10**9, store.serialize_cdr(message, kind.__msgtype__))
    return path


def vocabulary(program, environment, bag, out, *more) -> dict:
    command = [program, "vocabulary", bag, "--out", out, *map(str, more)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * END)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def rgb(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="session")
def mobilenet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mobilenet_v2")
    shutil.copy(MANIFEST, folder)
    for file in tomllib.loads(MANIFEST.read_text())["files"].values():
        shutil.copy(SHARED / "closed_set" / file["path"], folder)
    return folder


@needs_shared
def test_a_real_tagger_gives_the_scores_of_onnx_runtime(program, environment, mobilenet, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the Python package onnxruntime is not installed")
    session = onnxruntime.InferenceSession(mobilenet / "mobilenet_v2_1.0_224_quant.onnx", providers=["CPUExecutionProvider"])
    names = [line.split(",")[0].lower() for line in (mobilenet / "imagenet_labels.txt").read_text().splitlines()]
    rules = tomllib.loads(MANIFEST.read_text())["tags"]
    tagged = 0
    for number, photo in enumerate(sorted((SHARED / "photos/images").glob("*.jpg"))[::5]):
        pixels = rgb(photo)
        # Along y first, as we do; Pillow does so by itself only where the height shrinks much more than the width. The order
        # moves some values by one level.
        assert pixels.shape[0] > 224
        low = Image.fromarray(pixels).resize((pixels.shape[1], 224), Image.Resampling.BILINEAR)
        small = np.asarray(low.resize((224, 224), Image.Resampling.BILINEAR))
        (scores,) = session.run(None, {session.get_inputs()[0].name: small[None]})
        probabilities = scores[0].astype(np.float32) / 256
        best = [at for at in np.argsort(-probabilities, kind="stable") if at > 0 and probabilities[at] > rules["threshold"]]
        expected = {names[at]: float(probabilities[at]) for at in best[: rules["top_k"]]}
        bag = bag_of(tmp_path / f"bag{number}", [pixels])
        result = vocabulary(program, environment, bag, tmp_path / "out.json", "--tagger", mobilenet)
        found = {row["label"]: row["probability"] for row in result["ranking"]}
        assert found == pytest.approx(expected, abs=1e-6), photo.name
        tagged += len(found)
    assert tagged > 5


def test_tags_and_captions_of_a_recording(program, environment, tmp_path):
    """Every source counts as samples of its own: one of the tagger, four of the captioner."""
    bag = bag_of(tmp_path / "bag", [rgb(PICTURE)])
    sources = ["--tagger", TINY / "ram", "--captioner", TINY / "blip", "--samples", 4]
    result = vocabulary(program, environment, bag, tmp_path / "out.json", *sources, "--temperature", 0, "--lexicon", "/nonexistent")
    found = {row["label"]: row["score"] for row in result["ranking"]}
    assert found == pytest.approx({label: probability / 5 for label, probability in EXPECTED["ram"]["tags"]}, rel=1e-4)
    assert EXPECTED["blip"]["greedy"]["text"] == "red red", "colours are no nouns, so the captions propose nothing"
    captions = vocabulary(
        program, environment, bag, tmp_path / "captions.json", *sources[2:], "--temperature", 1, "--lexicon", "/nonexistent"
    )
    assert captions["ranking"] and captions["words"] == 0
    only = vocabulary(program, environment, bag, tmp_path / "only.json", *sources, "--proposals", "tags", "--lexicon", "/nonexistent")
    assert [row["label"] for row in only["ranking"]] == [label for label, _ in EXPECTED["ram"]["tags"]]


@pytest.mark.parametrize("tells", [True, False])
def test_the_caption_goes_to_pre_refinement(node, peer, environment, tells):
    """The language model gets the caption that Transformers writes, unless that is switched off, and the tags."""
    from camera import NODE, Camera
    from peer import until
    from pictures import stamped

    asked = []

    def select(request: dict) -> str:
        asked.append(json.loads(request["messages"][-1]["content"]))
        return json.dumps({"labels": ["cup"]})

    with ChatServer(answer=select) as server:
        parameters = {
            "classes": "[]", "refresh.enabled": "true", "refresh.period": 0.5, "refresh.min_interval": 0.2,
            "refresh.proposals": "[tags, caption]", "refresh.tagger": TINY / "ram", "refresh.captioner": TINY / "blip",
            "refresh.caption.temperature": 0.0, "refresh.caption.pre_refine": str(tells).lower(),
            "refresh.targets": "[cup, mug]", "refresh.hints": "false", "refresh.lexicon": "none",
            "llm.url": server.base_url, "llm.model": "test-model", "llm.key_variable": '""',
        }
        topic = peer.subscribe(f"{NODE}/vocabulary", "scenelex/msg/Vocabulary", latched=True, depth=10)
        camera = Camera(peer, node(parameters))
        stamps = iter(range(1, 1000))

        def come():
            picture = PICTURE.read_bytes()
            camera.serve(stamped("sensor_msgs/msg/CompressedImage", next(stamps), format="png", data=picture))
            return [v for v in topic.take(0.05) if [entry.label for entry in v.entries] == ["cup"]]

        until(come, RESULT, "a class list of cup")
    assert asked[0]["caption"] == (EXPECTED["blip"]["greedy"]["text"] if tells else "")
    assert asked[0]["classes"] == ["cup", "mug"]
    assert {label for label, _ in EXPECTED["ram"]["tags"]} - {"a/c unit"} <= set(asked[0]["tags"])
