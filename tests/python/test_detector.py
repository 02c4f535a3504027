"""The shipped detector: its contract, its agreement with the PyTorch network it was exported from, and the scripts that make
the models' files."""

from __future__ import annotations

import hashlib
import importlib
import io
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

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


def load(name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(BUNDLE / name), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return load("detector.onnx")


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


def test_the_processors_file_has_the_same_contract_and_says_nearly_the_same(session, manifest, feeds, golden):
    small = load(manifest["cpu_files"]["detector"]["path"])
    for of in (ort.InferenceSession.get_inputs, ort.InferenceSession.get_outputs):
        assert [(v.name, v.type, v.shape) for v in of(small)] == [(v.name, v.type, v.shape) for v in of(session)]
    errors = []
    for feed, logits, boxes in zip(feeds, golden["logits"], golden["boxes"]):
        got_logits, got_boxes = (v[0] for v in run(small, feed))
        assert np.isneginf(got_logits[:, logits.shape[1] :]).all()
        probability, got = (1 / (1 + np.exp(-np.float32(v))) for v in (logits, got_logits[:, : logits.shape[1]]))
        for row, box in zip(probability, boxes):
            if row.max() > 0.3:
                mine = partner(box, got_boxes)
                assert np.abs(got_boxes[mine] - box).max() < 0.03
                errors.append(np.abs(got[mine] - row).max())
    assert errors and np.mean(errors) < 0.05 and np.quantile(errors, 0.9) < 0.15, errors


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


@pytest.fixture
def script(monkeypatch):
    """A script of models/sim/train as a module, by its name."""
    for package in ("torch", "onnx"):
        pytest.importorskip(package, reason=f"the Python package {package} is not installed")
    monkeypatch.syspath_prepend(str(SIM / "train"))
    return importlib.import_module


def test_an_exported_file_must_have_every_query_and_no_other(script):
    compare, agree = script("export_detector").query_difference, script("export_detector").TOLERANCE
    rng = np.random.default_rng(4)
    logits, boxes = np.full((300, 256), -np.inf, np.float32), rng.uniform(0, 1, (300, 4)).astype(np.float32)
    logits[:, :9] = rng.normal(0, 4, (300, 9))
    assert compare(logits, boxes, logits, boxes) == 0
    swapped = np.r_[np.arange(280).reshape(-1, 2)[:, ::-1].ravel(), 280:300]
    assert compare(logits, boxes, logits[swapped], boxes[swapped]) == 0, "the ranking is not compared"
    assert compare(logits, boxes, logits + 0.01 * agree, boxes) <= agree
    one = np.zeros(300, int)
    assert compare(logits, boxes, logits[one], boxes[one]) > agree, "one right query, repeated"
    assert compare(logits[one], boxes[one], logits, boxes) > agree
    for broken in (np.where(np.arange(300)[:, None] == 7, np.nan, boxes), boxes + 2 * agree):
        assert not compare(logits, boxes, logits, broken) <= agree


def test_a_file_that_does_not_agree_never_reaches_the_bundle(script, monkeypatch, tmp_path):
    detector, segmenter = script("export_detector"), script("export_segmenter")

    def write(*names):
        return lambda model, out: [(out.with_name(name) if out.suffix else out / name).write_bytes(b"new") for name in names]

    monkeypatch.setattr(detector, "load_weights", lambda path: None)
    monkeypatch.setattr(detector, "export", write("detector.onnx"))
    monkeypatch.setattr(segmenter, "load", lambda *_: segmenter.Segmenter(segmenter.SegmenterConfig(size=64)))
    monkeypatch.setattr(segmenter, "export", write("image_encoder.onnx", "mask_decoder.onnx", "mask_decoder_window.onnx"))
    files = {"detector.onnx", "image_encoder.onnx", "mask_decoder.onnx", "mask_decoder_window.onnx"}
    manifest = '[files]\ndetector = { path = "detector.onnx", sha256 = "old" }\n\n[text]\nmax_tokens = 16\n'
    for name in files:
        (tmp_path / name).write_bytes(b"old")
    (tmp_path / "bundle.toml").write_text(manifest)
    for worst in (0.1, float("nan")):
        monkeypatch.setattr(detector, "difference", lambda *_, worst=worst: worst)
        monkeypatch.setattr(segmenter, "verify", lambda *_, worst=worst: {"masks": 0.0, "iou_predictions": worst})
        for arguments, main in ((["--random"], detector.main), ([], segmenter.main)):
            monkeypatch.setattr(sys, "argv", ["export", "--out", str(tmp_path), *arguments])
            with pytest.raises(SystemExit, match="do(es)? not agree with PyTorch"):
                main()
    assert {path.name for path in tmp_path.iterdir()} == files | {"bundle.toml"}
    assert all((tmp_path / name).read_bytes() == b"old" for name in files) and (tmp_path / "bundle.toml").read_text() == manifest
    digest = hashlib.sha256(b"new").hexdigest()
    monkeypatch.setattr(detector, "difference", lambda *_: 0.0)
    monkeypatch.setattr(segmenter, "verify", lambda *_: {"masks": 0.0})
    monkeypatch.setattr(segmenter, "decoder_times", lambda *_: [1.0, 1.0])
    monkeypatch.setattr(sys, "argv", ["export", "--out", str(tmp_path), "--random"])
    assert detector.main() == 0
    assert (tmp_path / "bundle.toml").read_text() == manifest.replace("old", digest)
    monkeypatch.setattr(sys, "argv", ["export", "--out", str(tmp_path)])
    segmenter.main()
    assert (tmp_path / "bundle.toml").read_text().count(digest) == 3
    assert all((tmp_path / name).read_bytes() == b"new" for name in files)


def test_eight_bit_files_are_named_when_they_agree_and_until_the_next_export(script, monkeypatch, tmp_path):
    quantise, names = script("quantise"), script("bundle_manifest")
    manifest = '[files]\ndetector = { path = "detector.onnx", sha256 = "old" }\n\n[text]\nmax_tokens = 16\n'
    (tmp_path / "bundle.toml").write_text(manifest)
    (tmp_path / "detector.onnx").write_bytes(b"exact")
    plan = quantise.Plan("detector", None, lambda rgb: rgb, None, 0.05)
    monkeypatch.setattr(quantise, "detector", lambda bundle: plan)
    monkeypatch.setattr(quantise, "pictures", lambda folder, count: list(range(count)))
    parts = []
    monkeypatch.setattr(quantise, "quantise", lambda _, exact, frames, out: parts.append(set(frames)) or out.write_bytes(b"small"))
    monkeypatch.setattr(sys, "argv", ["quantise", "--bundle", str(tmp_path), "--frames", str(tmp_path)])
    for worst in (0.06, float("nan"), 0.04):
        monkeypatch.setattr(quantise, "compare", lambda *of, worst=worst: parts.append(set(of[-1])) or (worst, [2.0, 1.0]))
        if worst != 0.04:
            with pytest.raises(SystemExit, match="does not agree with detector.onnx: expected 0.05 at most"):
                quantise.main()
            assert {path.name for path in tmp_path.iterdir()} == {"bundle.toml", "detector.onnx"}
            assert (tmp_path / "bundle.toml").read_text() == manifest
    assert parts[0] and parts[1] and not parts[0] & parts[1], "it is checked on other frames than its ranges are of"
    for content in (b"small", b"smaller"):
        monkeypatch.setattr(quantise, "quantise", lambda _, exact, frames, out, content=content: out.write_bytes(content))
        quantise.main()
        entry = {"path": "detector_int8.onnx", "sha256": hashlib.sha256(content).hexdigest()}
        found = tomllib.loads((tmp_path / "bundle.toml").read_text())
        assert found["cpu_files"] == {"detector": entry} and found["text"] == {"max_tokens": 16}
        assert found["files"]["detector"]["sha256"] == "old"
    names.pin(tmp_path, "detector")
    assert (tmp_path / "bundle.toml").read_text() == manifest.replace("old", hashlib.sha256(b"exact").hexdigest())


def test_a_restored_network_has_all_its_state_and_says_what_the_file_says(script):
    nn, made = script("torch").nn, script("from_onnx")
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    net.register_buffer("mean", script("torch").zeros(4))
    made.complain(net, {"0.weight", "0.bias", "mean"})
    with pytest.raises(SystemExit, match="not found in the file: mean$"):
        made.complain(net, {"0.weight", "0.bias"})
    made.agree({"masks": 0.1, "scores": 0.5}, {"masks": 0.1, "scores": 1.0}.get)
    for wrong in (0.2, float("nan")):
        with pytest.raises(SystemExit, match="not the network of the file: expected masks 1e-01 at most"):
            made.agree({"masks": wrong, "scores": 0.5}, {"masks": 0.1, "scores": 1.0}.get)


@pytest.mark.parametrize("resumed", [False, True])
def test_training_goes_on_only_with_the_statistics_of_the_weights(script, tmp_path, resumed):
    torch, train = script("torch"), script("detector_train")
    net = train.Detector()
    net.text.mean.copy_(torch.linspace(-2, 2, len(net.text.mean)))
    net.text.std.copy_(torch.linspace(1e-4, 3, len(net.text.std)))
    run = train.Run.__new__(train.Run)
    run.net, run.device, run.optimisers = train.Detector(), torch.device("cpu"), []
    run.average = train.Average(run.net, 0.9)
    run.args = SimpleNamespace(init=tmp_path / "ema.pt", average=0.9, text=tmp_path / "text_features.npz")
    run.state_path = tmp_path / "state.pt"
    count = {"used": 0.0, "steps": 0, "images": 7}
    full = net.state_dict()
    torch.save({"ema": {k: v.half() if v.is_floating_point() else v for k, v in full.items()}, **count}, run.args.init)
    if resumed:
        torch.save({"net": full, "optimisers": [], "ema": full, **count}, run.state_path)
    run.bank = SimpleNamespace(mean=net.text.mean.clone(), std=net.text.std.clone())
    run.restore()
    assert run.images == 7
    for name in ("mean", "std"):
        run.bank = SimpleNamespace(mean=net.text.mean.clone(), std=net.text.std.clone())
        getattr(run.bank, name)[100] *= 1.005
        with pytest.raises(SystemExit, match=f"text_features.npz .*expected the same {name} of the features, found differences up to"):
            run.restore()
