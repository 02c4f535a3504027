"""The segmenter's decoder for processors, which draws masks about their prompts only, against the one that draws all of them."""

from __future__ import annotations

import io
import tomllib

import numpy as np
import pytest

from conftest import ROOT

ort = pytest.importorskip("onnxruntime", reason="the Python package onnxruntime is not installed")
Image = pytest.importorskip("PIL.Image", reason="the Python package pillow is not installed")

FOLDER = ROOT / "models" / "sim" / "segmenter"
OUTSIDE = -10.0


@pytest.fixture(scope="module")
def manifest() -> dict:
    return tomllib.loads((FOLDER / "bundle.toml").read_text())


@pytest.fixture(scope="module")
def load(manifest):
    def load(role: str, files: str = "files"):
        return ort.InferenceSession(str(FOLDER / manifest[files][role]["path"]), providers=["CPUExecutionProvider"])

    return load


@pytest.fixture(scope="module")
def whole(load):
    return load("mask_decoder")


@pytest.fixture(scope="module")
def windowed(load):
    return load("mask_decoder", "cpu_files")


@pytest.fixture(scope="module")
def scene(demo_bag, manifest, load):
    """The embeddings of a frame, and a box around each category in it, in pixels of the resized frame."""
    prep, picture = manifest["preprocessing"], demo_bag.pictures[0]
    rgb = Image.open(io.BytesIO(picture.jpeg)).convert("RGB")
    scale = prep["longest"] / max(rgb.size)
    width, height = (round(side * scale) for side in rgb.size)
    levels = np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
    multiple = prep["multiple"]
    pixels = np.zeros((1, 3, -(-height // multiple) * multiple, -(-width // multiple) * multiple), np.float32)
    pixels[0, :, :height, :width] = ((levels - np.float32(prep["mean"])) / np.float32(prep["std"])).transpose(2, 0, 1)
    boxes = []
    for category in np.setdiff1d(np.unique(picture.truth), [0, 255]):
        rows, columns = np.nonzero(picture.truth == category)
        if len(rows) > 400:
            corners = [[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]]
            boxes.append(np.float32(corners) * scale)
    assert len(boxes) >= 2
    return load("image_encoder").run(None, {"pixel_values": pixels})[0], np.stack(boxes)


def feed(embeddings, coords, labels, mask=None) -> dict[str, np.ndarray]:
    rows, columns = embeddings.shape[2:]
    return {
        "image_embeddings": embeddings,
        "point_coords": np.float32(coords),
        "point_labels": np.broadcast_to(np.float32(labels), np.shape(coords)[:2]).copy(),
        "mask_input": np.zeros((1, 1, 4 * rows, 4 * columns), np.float32) if mask is None else mask,
        "has_mask_input": np.float32([mask is not None]),
        "orig_im_size": np.ones(2, np.float32),
    }


def run(session, feeds) -> tuple[np.ndarray, np.ndarray]:
    return tuple(session.run(["low_res_masks", "iou_predictions"], feeds))


def test_the_interface_is_the_same(whole, windowed):
    for of in (ort.InferenceSession.get_inputs, ort.InferenceSession.get_outputs):
        kinds = [[(v.name, v.type, len(v.shape)) for v in of(session)] for session in (whole, windowed)]
        assert kinds[0] == kinds[1]


def test_a_box_has_the_same_mask_and_is_not_looked_for_elsewhere(scene, whole, windowed):
    embeddings, boxes = scene
    feeds = feed(embeddings, boxes, [2, 3])
    (expected, expected_iou), (found, found_iou) = run(whole, feeds), run(windowed, feeds)
    assert found.shape == expected.shape and np.abs(found_iou - expected_iou).max() < 0.02
    for box, mine, other in zip(boxes, found, expected):
        assert ((mine[0] > 0) & (other[0] > 0)).sum() >= 0.98 * ((mine[0] > 0) | (other[0] > 0)).sum()
        # Coordinates of the logits are half those of the frame.
        start, end = box / 2
        y, x = np.indices(mine.shape[1:])
        close = (x >= start[0]) & (x < end[0]) & (y >= start[1]) & (y < end[1])
        assert np.abs(mine - other)[:, close].max() < 0.05
        away = 0.25 * (end - start) + 2 * 16 / 2
        far = (x < (start - away)[0]) | (x > (end + away)[0]) | (y < (start - away)[1]) | (y > (end + away)[1])
        assert far.any() and (mine[:, far] == OUTSIDE).all()


def test_a_foreground_point_beyond_the_box_is_looked_at_too(scene, windowed):
    embeddings, boxes = scene
    side = 8 * embeddings.shape[3]
    beyond = np.float32([side - 20, 20]) if boxes[0].mean(0)[0] < side / 2 else np.float32([20, 20])
    for label, seen in ((1, True), (0, False), (-1, False)):
        low, _ = run(windowed, feed(embeddings, [np.vstack([beyond, boxes[0]])], [label, 2, 3]))
        assert (low[0, 0, 10, int(beyond[0] // 2)] != OUTSIDE) == seen


def test_prompts_without_a_box_and_with_an_earlier_mask_see_the_whole_picture(scene, whole, windowed):
    embeddings, boxes = scene
    rows, columns = embeddings.shape[2:]
    earlier = np.random.default_rng(3).normal(size=(1, 1, 4 * rows, 4 * columns)).astype(np.float32)
    centres = boxes.mean(1, keepdims=True)
    for feeds in (feed(embeddings, centres, [1]), feed(embeddings, boxes, [2, 3], earlier)):
        for mine, other in zip(run(windowed, feeds), run(whole, feeds)):
            np.testing.assert_allclose(mine, other, atol=2e-3)


def test_a_mask_does_not_depend_on_the_others_of_its_batch(scene, windowed):
    embeddings, boxes = scene
    together, ious = run(windowed, feed(embeddings, boxes, [2, 3]))
    for box, low, iou in zip(boxes, together, ious):
        alone, alone_iou = run(windowed, feed(embeddings, [box], [2, 3]))
        np.testing.assert_allclose(alone[0], low, atol=1e-3)
        np.testing.assert_allclose(alone_iou[0], iou, atol=2e-3)
