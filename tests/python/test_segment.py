"""`scenelex segment`: pictures in, overlay and JSON out, masks readable by pycocotools."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from conftest import COLOURS, END, ROOT, TINY

coco = pytest.importorskip("pycocotools.mask", reason="the Python package pycocotools is not installed")
Image = pytest.importorskip("PIL.Image", reason="the Python package pillow is not installed")
from PIL import ImageOps  # noqa: E402

HEIGHT, WIDTH = 240, 320
SCENE = {"red": np.s_[:80, :80], "blue": np.s_[80:160, 160:240]}
ORIENTATION = 0x0112  # the EXIF tag


def segment(program, environment, pictures, out):
    command = [program, "segment", *pictures, "--classes", ", ".join(COLOURS), "--models", TINY, "--out", out]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * END)


def painted():
    rgb = np.full((HEIGHT, WIDTH, 3), 70, np.uint8)
    for colour, place in SCENE.items():
        rgb[place] = COLOURS[colour]
    return rgb


def check(out):
    """What was written is the scene: its size, its objects, their masks."""
    (document,) = out.glob("*.json")
    result = json.loads(document.read_text())
    assert (result["height"], result["width"]) == (HEIGHT, WIDTH)
    assert sorted(one["label"] for one in result["instances"]) == sorted(SCENE)
    for one in result["instances"]:
        compressed = coco.frPyObjects(one["segmentation"], HEIGHT, WIDTH)
        truth = np.zeros((HEIGHT, WIDTH), np.uint8)
        truth[SCENE[one["label"]]] = 1
        (iou,) = coco.iou([compressed], [coco.encode(np.asfortranarray(truth))], [0])[0]
        assert iou > 0.9, one["label"]
        assert one["area"] == coco.area(compressed)
    (overlay,) = out.glob("*.png")
    assert Image.open(overlay).size == (WIDTH, HEIGHT)


def test_json_masks_are_coco_run_lengths(program, environment, tmp_path):
    Image.fromarray(painted()).save(tmp_path / "scene.png")
    done = segment(program, environment, [tmp_path / "scene.png"], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    check(tmp_path / "out")


@pytest.mark.parametrize(("orientation", "quarters", "suffix"), [(6, 1, "jpg"), (8, -1, "jpg"), (3, 2, "jpg"), (6, 1, "png")])
def test_a_photo_is_labelled_upright(program, environment, tmp_path, orientation, quarters, suffix):
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    # As the sensor lay when the picture was taken.
    stored = np.ascontiguousarray(np.rot90(painted(), quarters))
    Image.fromarray(stored).save(path, exif=exif, **options)
    with Image.open(path) as photo:
        seen = np.asarray(ImageOps.exif_transpose(photo))
    assert seen.shape == (HEIGHT, WIDTH, 3) and np.abs(seen.astype(int) - painted()).mean() < 5
    done = segment(program, environment, [path], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    check(tmp_path / "out")


def test_what_is_no_picture_is_named_and_the_others_are_done(program, environment, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    Image.new("RGB", (64, 48), COLOURS["green"]).save(tmp_path / "good.png")
    done = segment(program, environment, [tmp_path / "broken.jpg", tmp_path / "good.png"], tmp_path / "out")
    assert done.returncode not in (0, 101)
    assert "broken.jpg" in done.stdout + done.stderr
    assert [path.stem for path in (tmp_path / "out").glob("*.json")] == ["good"]
