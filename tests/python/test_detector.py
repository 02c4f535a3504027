"""The shipped detector.onnx: its contract, and its agreement with the PyTorch network it was exported from."""

from __future__ import annotations

import hashlib
import io
import tomllib
from pathlib import Path

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime", reason="the Python package onnxruntime is not installed")
mcap_reader = pytest.importorskip("mcap_ros2.reader", reason="the Python package mcap-ros2-support is not installed")
Image = pytest.importorskip("PIL.Image", reason="the Python package pillow is not installed")

SIM = Path(__file__).resolve().parents[2] / "models" / "sim"
BUNDLE = SIM / "detector"
INPUTS = ["pixel_values", "pixel_mask", "input_ids", "attention_mask", "text_features"]
DELIMITERS = (101, 102, 1012, 1029)


@pytest.fixture(scope="module")
def manifest() -> dict:
    return tomllib.loads((BUNDLE / "bundle.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(BUNDLE / "detector_golden.npz") as z:
        return {k: z[k] for k in z.files}


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(BUNDLE / "detector.onnx"), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def feeds(manifest, golden) -> list[dict[str, np.ndarray]]:
    """The golden pictures, letterboxed as bundle.toml says, with the golden caption."""
    prep = manifest["preprocessing"]
    (path,) = (SIM / "demo_bag").glob("*.mcap")
    stream = mcap_reader.read_ros2_messages(str(path), topics=["/camera/image_raw/compressed"])
    data = {i: bytes(m.ros_msg.data) for i, m in enumerate(stream) if i in golden["frames"]}
    out = []
    for number in golden["frames"]:
        picture = Image.open(io.BytesIO(data[number])).convert("RGB")
        scale = min(prep["width"] / picture.width, prep["height"] / picture.height)
        w, h = round(picture.width * scale), round(picture.height * scale)
        small = np.asarray(picture.resize((w, h), Image.Resampling.BILINEAR), np.float32) / 255
        pixels = np.zeros((1, 3, prep["height"], prep["width"]), np.float32)
        pixels[0, :, :h, :w] = ((small - np.float32(prep["mean"])) / np.float32(prep["std"])).transpose(2, 0, 1)
        mask = np.zeros((1, prep["height"], prep["width"]), np.int64)
        mask[:, :h, :w] = 1
        ids = golden["input_ids"]
        features = golden["text_features"].astype(np.float32)
        out.append(dict(zip(INPUTS, (pixels, mask, ids, np.ones_like(ids), features))))
    return out


def run(session, feed) -> tuple[np.ndarray, np.ndarray]:
    return tuple(session.run(["logits", "pred_boxes"], feed))


def partner(box: np.ndarray, boxes: np.ndarray) -> int:
    """The query with the same box; the ranking may differ where scores are almost equal."""
    return int(np.abs(boxes - box).max(1).argmin())


def test_the_file_is_the_one_the_manifest_and_the_recording_name(manifest, golden):
    digest = hashlib.sha256((BUNDLE / "detector.onnx").read_bytes()).hexdigest()
    assert digest == manifest["files"]["detector"]["sha256"]
    assert digest == str(golden["onnx_sha256"]), "record anew with models/sim/train/make_detector_golden.py"


def test_inputs_and_outputs(session, manifest):
    prep = manifest["preprocessing"]
    shapes = {v.name: (v.type, v.shape) for v in session.get_inputs()}
    assert list(shapes) == INPUTS
    assert shapes["pixel_values"] == ("tensor(float)", ["b", 3, prep["height"], prep["width"]])
    assert shapes["pixel_mask"] == ("tensor(int64)", ["b", prep["height"], prep["width"]])
    assert shapes["input_ids"] == shapes["attention_mask"] == ("tensor(int64)", ["b", "T"])
    assert shapes["text_features"] == ("tensor(float)", ["b", "T", 384])
    outputs = {v.name: (v.type, v.shape) for v in session.get_outputs()}
    assert outputs == {"logits": ("tensor(float)", ["b", 300, 256]), "pred_boxes": ("tensor(float)", ["b", 300, 4])}


def test_it_says_what_the_trained_network_said(session, feeds, golden):
    for feed, logits, boxes in zip(feeds, golden["logits"], golden["boxes"]):
        got_logits, got_boxes = (v[0] for v in run(session, feed))
        assert logits.max() > 0, "the recording names nothing in this picture"
        for row, box in zip(logits, boxes):
            mine = partner(box, got_boxes)
            assert np.abs(got_boxes[mine] - box).max() < 0.004
            seen = row > -8  # below, probabilities under 1/3000 are rounded off on both sides
            assert np.abs(got_logits[mine, : len(row)] - row)[seen].max(initial=0.0) < 0.1


def test_columns_without_a_word_name_nothing(session, feeds, golden):
    ids = golden["input_ids"][0]
    for feed in feeds:
        logits, boxes = (v[0] for v in run(session, feed))
        assert np.isneginf(logits[:, len(ids) :]).all()
        delimiter = np.isin(ids, DELIMITERS)
        assert logits[:, : len(ids)][:, delimiter].max() < -15
        assert np.isfinite(logits[:, : len(ids)]).all()
        low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
        assert low.min() > -1e-5 and high.max() < 1 + 1e-5


def test_a_phrase_does_not_depend_on_its_neighbours(session, feeds, golden):
    ids = golden["input_ids"][0]
    closing = np.flatnonzero(ids == 1012)
    best = int(golden["logits"][0].max(0).argmax())
    last = int((closing < best).sum())
    start = int(closing[last - 1]) + 1 if last else 1
    columns = np.r_[0, start : closing[last] + 1, len(ids) - 1]
    alone = dict(feeds[0])
    for name in INPUTS[2:]:
        alone[name] = feeds[0][name][:, columns]
    few_logits, few_boxes = (v[0] for v in run(session, alone))
    all_logits, all_boxes = (v[0] for v in run(session, feeds[0]))
    queries = np.argsort(-all_logits[:, best])[:20]
    assert all_logits[queries[0], best] > 0
    for q in queries:
        mine = partner(all_boxes[q], few_boxes)
        words = np.arange(start, closing[last])
        assert np.abs(few_logits[mine, words - start + 1] - all_logits[q, words]).max() < 1e-3


def test_pictures_in_a_batch_do_not_mix(session, feeds):
    both = {k: np.concatenate([f[k] for f in feeds]) for k in INPUTS}
    logits, boxes = run(session, both)
    for i, feed in enumerate(feeds):
        one_logits, one_boxes = (v[0] for v in run(session, feed))
        np.testing.assert_allclose(boxes[i][:50], one_boxes[:50], atol=1e-4)
        real = np.isfinite(one_logits[:50])
        np.testing.assert_allclose(logits[i][:50][real], one_logits[:50][real], atol=1e-3)
