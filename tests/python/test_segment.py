"""`scenelex segment`: pictures in, overlay and JSON out, masks readable by pycocotools."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from conftest import COLOURS, END, ROOT, TINY

coco = pytest.importorskip("pycocotools.mask", reason="the Python package pycocotools is not installed")
Image = pytest.importorskip("PIL.Image", reason="the Python package pillow is not installed")


def segment(program, environment, pictures, out):
    command = [program, "segment", *pictures, "--classes", ", ".join(COLOURS), "--models", TINY, "--out", out]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * END)


def test_json_masks_are_coco_run_lengths(program, environment, tmp_path):
    height, width = 240, 320
    rgb = np.full((height, width, 3), 70, np.uint8)
    expected = {"red": np.s_[:80, :80], "blue": np.s_[80:160, 160:240]}
    for colour, place in expected.items():
        rgb[place] = COLOURS[colour]
    Image.fromarray(rgb).save(tmp_path / "scene.png")
    done = segment(program, environment, [tmp_path / "scene.png"], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (document,) = (tmp_path / "out").glob("*.json")
    result = json.loads(document.read_text())
    assert (result["height"], result["width"]) == (height, width)
    assert sorted(one["label"] for one in result["instances"]) == sorted(expected)
    for one in result["instances"]:
        compressed = coco.frPyObjects(one["segmentation"], height, width)
        truth = np.zeros((height, width), np.uint8)
        truth[expected[one["label"]]] = 1
        (iou,) = coco.iou([compressed], [coco.encode(np.asfortranarray(truth))], [0])[0]
        assert iou > 0.9, one["label"]
        assert one["area"] == coco.area(compressed)
    (overlay,) = (tmp_path / "out").glob("*.png")
    assert Image.open(overlay).size == (width, height)


def test_what_is_no_picture_is_named_and_the_others_are_done(program, environment, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    Image.new("RGB", (64, 48), COLOURS["green"]).save(tmp_path / "good.png")
    done = segment(program, environment, [tmp_path / "broken.jpg", tmp_path / "good.png"], tmp_path / "out")
    assert done.returncode not in (0, 101)
    assert "broken.jpg" in done.stdout + done.stderr
    assert [path.stem for path in (tmp_path / "out").glob("*.json")] == ["good"]
