"""models/sim/evaluate.py: which frames it measures, and what it counts; the models are played."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

np = pytest.importorskip("numpy", reason="the Python package numpy is not installed")
for package in ("onnxruntime", "PIL", "pycocotools"):
    pytest.importorskip(package, reason=f"the Python package {package} is not installed")

SIM = Path(__file__).resolve().parents[2] / "models" / "sim"


@pytest.fixture
def evaluate(monkeypatch):
    """The script as a module. What the played models have no use for may be absent."""
    for package in ("tokenizers", "scipy"):
        if importlib.util.find_spec(package) is None:
            monkeypatch.setitem(sys.modules, package, MagicMock())
    monkeypatch.setattr(sys, "path", [str(SIM), str(SIM / "train"), *sys.path])
    for module in ("evaluate", "evaluate_pipeline", "eval_masks"):  # not for anyone else with those stand-ins
        monkeypatch.delitem(sys.modules, module, raising=False)
    yield importlib.import_module("evaluate")
    for module in ("evaluate", "evaluate_pipeline", "eval_masks"):
        sys.modules.pop(module, None)


def called(evaluate, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    evaluate.main()


def frames(count: int) -> dict[str, np.ndarray]:
    """What render_small returns: a ball and a bottle, of which the bottle counts neither way."""
    instance = np.zeros((count, 60, 80), np.uint8)
    instance[:, 10:40, 10:30], instance[:, 10:40, 50:70] = 1, 2
    return {
        "rgb": np.zeros((count, 60, 80, 3), np.uint8),
        "instance": instance,
        "category": np.tile(np.array([3, 1, -1], np.int16), (count, 1)),
        "color": np.full((count, 3), -1, np.int16),
        "ignore": np.tile(np.array([0, 1, 0], np.uint8), (count, 1)),
    }


@pytest.fixture
def rendered(monkeypatch):
    """Splits and counts that were asked of the renderer, which gives whole scenes."""
    monkeypatch.syspath_prepend(str(SIM))
    from scenelex_sim import dataset

    asked = []

    def render_small(split, count, *size):
        asked.append((split, count))
        return frames(-(-count // dataset.VIEWS) * dataset.VIEWS)

    monkeypatch.setattr(dataset, "render_small", render_small)
    return asked


def test_the_segmenter_is_measured_on_frames_of_its_own(evaluate, rendered, monkeypatch, tmp_path, capsys):
    masks = importlib.import_module("eval_masks")
    monkeypatch.setattr(masks, "Bundle", lambda *_: None)
    monkeypatch.setattr(masks, "measure_image", lambda bundle, rgb, wanted, rng, tally: [tally.add("box", 0.5) for _ in wanted])
    called(evaluate, monkeypatch, "--only", "segmenter", "--frames", "12", "--json", str(tmp_path / "figures.json"))
    assert rendered == [("val", 12)]
    result = json.loads((tmp_path / "figures.json").read_text())
    assert result["segmenter"]["frames"]["objects"] == 12, "one ball a frame, and no frame more than was asked for"
    assert "| box | 0.500 |" in capsys.readouterr().out
    # Shards that are given are taken instead.
    np.savez(tmp_path / "shard_00000.npz", **frames(3))
    called(evaluate, monkeypatch, "--only", "segmenter", "--val", str(tmp_path))
    assert len(rendered) == 1 and "3 objects" in capsys.readouterr().out


def test_no_figure_is_of_a_frame_the_threshold_was_chosen_on(evaluate, monkeypatch):
    measured, chosen_on = set(), set()
    measure = lambda bundle, val, pairs, limit, threads: measured.update(range(limit))  # noqa: E731
    choose = lambda bundle, val, limit, skip, threads: chosen_on.update(range(skip, skip + limit))  # noqa: E731
    monkeypatch.setattr(evaluate, "evaluate_detector", measure)
    monkeypatch.setattr(evaluate, "choose_threshold", choose)
    monkeypatch.setattr(evaluate, "detector_table", str)
    examples = [shlex.split(line, comments=True) for line in evaluate.__doc__.splitlines() if line.startswith("    python ")]
    assert len(examples) >= 4
    for _, _, *arguments in [*examples, ["python", "evaluate.py", "--choose-threshold"]]:
        called(evaluate, monkeypatch, *arguments, "--only", "detector")
    assert set(range(256, 368)) <= chosen_on, "the shipped threshold's"
    assert len(measured) >= 200 and not measured & chosen_on


def shard(folder: Path, number: int, scenes: np.ndarray) -> None:
    """`scenes` of every frame."""
    folder.mkdir(exist_ok=True)
    part = frames(len(scenes)) | {"scene": scenes.astype(np.int32)}
    part["rgb"][:] = scenes.reshape(-1, 1, 1, 1)
    np.savez(folder / f"shard_{number:05d}.npz", **part)


def test_scenes_of_the_figures_and_of_the_threshold_are_kept_apart(evaluate, rendered, monkeypatch, tmp_path):
    """Whatever is asked for: scenes 0 to 31 of val are for the figures, those from 32 on for the threshold."""
    low, high, both = (np.repeat(np.arange(*scenes), 8) for scenes in ((0, 25), (32, 46), (30, 34)))
    for name, scenes in (("low", low), ("high", high), ("both", both)):
        shard(tmp_path / name, 1, scenes)
    quiet = lambda rgb, phrases, threshold: {p: evaluate.Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)) for p in phrases}  # noqa: E731
    played = SimpleNamespace(thresholds={"box": 0.5}, captions=lambda phrases: phrases, detect=quiet)
    monkeypatch.setattr(evaluate, "DetectorPipeline", lambda *_: played)
    measure = lambda val, limit: evaluate.evaluate_detector(SIM / "detector", val, tmp_path / "high", limit, 1)  # noqa: E731
    choose = lambda val, limit, skip: evaluate.choose_threshold(SIM / "detector", val, limit, skip, 1)  # noqa: E731
    assert measure(tmp_path / "low", 200)["frames"] == 200
    assert measure(tmp_path / "both", 16)["frames"] == 16
    for val, limit in (("high", 100), ("both", 17)):
        with pytest.raises(SystemExit, match="figures are measured on scenes 0 to 31 of val, found scenes 3"):
            measure(tmp_path / val, limit)
    choose(tmp_path / "high", 112, 0)
    choose(tmp_path / "high", 112, 256)
    for val, skip in (("low", 0), ("both", 0), ("both", 241)):
        with pytest.raises(SystemExit, match="the threshold is chosen on scenes from 32 on of val, found scenes"):
            choose(tmp_path / val, 32, skip)
    # Nothing is rendered in vain.
    assert not rendered
    for refused in (lambda: measure(None, 257), lambda: choose(None, 8, 248)):
        with pytest.raises(SystemExit, match="of val, found scenes"):
            refused()
    assert not rendered


def test_frames_are_skipped_by_whole_scenes(evaluate, tmp_path):
    shard(tmp_path, 0, np.repeat([30, 31], 8))
    shard(tmp_path, 1, np.repeat([32, 33], [8, 8]))
    seen = lambda *args: [int(rgb[0, 0, 0]) for rgb in evaluate.load(tmp_path, "val", *args).rgb]  # noqa: E731
    assert seen(12, 0) == [30] * 8 + [31] * 4
    assert seen(12, 248) == [31] * 8 + [32] * 4
    assert seen(99, 249) == [32] * 8 + [33] * 8


def test_a_name_written_apart_is_not_new(evaluate):
    assert not evaluate.new_words("teacup", "mug"), "tea cup was trained"
    assert not evaluate.new_words("barstool", "stool") and not evaluate.new_words("frypan", "frying pan")
    assert evaluate.new_words("football", "ball") and evaluate.new_words("saucepan", "frying pan")
    assert sum(evaluate.new_words(w, c) for c, words in evaluate.HELD_OUT_WORDS.items() for w in words) == 13


def test_words_of_things_that_no_frame_shows_are_not_counted(evaluate, rendered, monkeypatch):
    def found(phrase):
        boxes = [[10, 10, 30, 40]] if phrase in ("a ball", "a football") else np.zeros((0, 4))
        return evaluate.Found(np.array(boxes, np.float32), np.full(len(boxes), 0.9, np.float32))

    detect = lambda rgb, phrases, threshold: {phrase: found(phrase) for phrase in phrases}  # noqa: E731
    played = SimpleNamespace(thresholds={"box": 0.5}, captions=lambda phrases: phrases, detect=detect)
    monkeypatch.setattr(evaluate, "DetectorPipeline", lambda *_: played)
    result = evaluate.evaluate_detector(SIM / "detector", None, None, 2, 1)
    assert result["words"]["phrases"] == {"a football": 1.0, "a rubber ball": 0.0}
    assert result["words"]["ap50"] == pytest.approx(0.5)
    # The other shares its words with "ball", which was trained.
    assert result["words_new"] == {"ap50": pytest.approx(1.0), "words": 1}
    assert "the 1 that share no word" in evaluate.detector_table(result)
