"""models/sim/evaluate.py: which frames it measures, and what it counts; the models are played."""

from __future__ import annotations

import importlib
import importlib.util
import json
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


def frames(count: int, scene: np.ndarray | int = 0) -> dict[str, np.ndarray]:
    """What render_small returns: a ball and a bottle, of which the bottle counts neither way. Pictures show their scenes' numbers."""
    scene = np.broadcast_to(np.asarray(scene, np.int32), count)
    instance = np.zeros((count, 60, 80), np.uint8)
    instance[:, 10:40, 10:30], instance[:, 10:40, 50:70] = 1, 2
    return {
        "rgb": np.tile(scene.astype(np.uint8)[:, None, None, None], (1, 60, 80, 3)),
        "instance": instance,
        "category": np.tile(np.array([3, 1, -1], np.int16), (count, 1)),
        "color": np.full((count, 3), -1, np.int16),
        "ignore": np.tile(np.array([0, 1, 0], np.uint8), (count, 1)),
        "scene": scene,
    }


@pytest.fixture
def rendered(monkeypatch):
    """Splits, counts and first frames that were asked of the renderer, which gives whole scenes."""
    monkeypatch.syspath_prepend(str(SIM))
    from scenelex_sim import dataset

    asked = []

    def render_small(split, count, width, height, start):
        asked.append((split, count, start))
        scenes = start // dataset.VIEWS + np.arange(-(-count // dataset.VIEWS))
        return frames(len(scenes) * dataset.VIEWS, np.repeat(scenes, dataset.VIEWS))

    monkeypatch.setattr(dataset, "render_small", render_small)
    return asked


def test_the_segmenter_is_measured_on_frames_of_its_own(evaluate, rendered, monkeypatch, tmp_path, capsys):
    masks = importlib.import_module("eval_masks")
    monkeypatch.setattr(masks, "Bundle", lambda *_: None)
    monkeypatch.setattr(masks, "measure_image", lambda bundle, rgb, wanted, rng, tally: [tally.add("box", 0.5) for _ in wanted])
    called(evaluate, monkeypatch, "--only", "segmenter", "--frames", "12", "--json", str(tmp_path / "figures.json"))
    assert rendered == [("val", 12, 1024)]
    result = json.loads((tmp_path / "figures.json").read_text())
    assert result["segmenter"]["frames"]["objects"] == 12, "one ball a frame, and no frame more than was asked for"
    assert result["segmenter"]["frames"]["scenes"] == [128, 129]
    assert "| box | 0.500 |" in capsys.readouterr().out
    # Shards that are given are taken instead, but not their scenes that choices are made on.
    for number, scene in enumerate((127, 128)):
        shard(tmp_path, number, np.full(3, scene))
    called(evaluate, monkeypatch, "--only", "segmenter", "--val", str(tmp_path))
    assert len(rendered) == 1 and "3 objects of scenes 128 to 128" in capsys.readouterr().out
    # The script for masks alone takes any scenes, one may choose by it; it says which.
    assert "6 objects of scenes 127 to 128" in masks.table(masks.evaluate_segmenter(SIM / "segmenter", tmp_path))


def shard(folder: Path, number: int, scenes: np.ndarray) -> None:
    """`scenes` of every frame."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"shard_{number:05d}.npz", **frames(len(scenes), scenes))


@pytest.fixture
def seen(evaluate, monkeypatch):
    """Numbers of the scenes whose pictures a played detector, which finds nothing, was shown."""
    scenes = []

    def detect(rgb, phrases, threshold):
        scenes.append(int(rgb[0, 0, 0]))
        return {phrase: evaluate.Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)) for phrase in phrases}

    played = SimpleNamespace(thresholds={"box": 0.5}, captions=lambda phrases: phrases, detect=detect)
    monkeypatch.setattr(evaluate, "DetectorPipeline", lambda *_: played)
    return scenes


def test_no_figure_is_of_a_scene_that_something_may_be_chosen_on(evaluate, rendered, seen, monkeypatch, tmp_path, capsys):
    """Figures: val's scenes from 128 on; choices: those before. Whatever is asked for, rendered or out of shards."""
    for number, scenes in enumerate(((120, 136), (136, 152))):
        shard(tmp_path / "both", number, np.repeat(np.arange(*scenes), 8))
    shard(tmp_path / "old", 0, np.repeat(np.arange(32), 8))
    shard(tmp_path / "new", 0, np.repeat(np.arange(128, 160), 8))
    for name, figures, choices in (("both", range(128, 152), range(120, 128)), ("old", (), range(32)), ("new", range(128, 160), ())):
        for scenes, asked in ((figures, ["--only", "detector", "--pairs", str(tmp_path / "new")]), (choices, ["--choose-threshold"])):
            seen.clear()
            arguments = [*asked, "--val", str(tmp_path / name)]
            if scenes:
                called(evaluate, monkeypatch, *arguments)
                assert seen[: 8 * len(scenes)] == [n for n in scenes for _ in range(8)]
            else:
                with pytest.raises(SystemExit, match="no frame of val's scenes from"):
                    called(evaluate, monkeypatch, *arguments)
                assert not seen
    assert not rendered
    for arguments, expected in (
        (("--only", "detector", "--frames", "200"), [("val", 200, 1024), ("pairs", 200, 0)]),
        (("--choose-threshold",), [("val", 256, 0)]),
        (("--choose-threshold", "--skip", "256", "--frames", "112"), [("val", 112, 256)]),
        (("--choose-threshold", "--skip", "1009", "--frames", "112"), [("val", 8, 1016)]),
        (("--choose-threshold", "--frames", "5000"), [("val", 1024, 0)]),
    ):
        rendered.clear()
        called(evaluate, monkeypatch, *arguments)
        assert rendered == expected
    assert "only 1024 of 5000 frames of val's scenes from 0 on, before 128" in capsys.readouterr().err
    rendered.clear()
    with pytest.raises(SystemExit, match="no frame of val's scenes from"):
        called(evaluate, monkeypatch, "--choose-threshold", "--skip", "1024")
    assert not rendered, "nothing is rendered in vain"


def test_the_figures_name_their_scenes(evaluate, rendered, seen, monkeypatch, capsys):
    called(evaluate, monkeypatch, "--only", "detector", "--frames", "20")
    assert "20 frames of val's scenes 128 to 130, 20 objects" in capsys.readouterr().out


def test_frames_are_skipped_by_whole_scenes(evaluate, tmp_path):
    shard(tmp_path, 0, np.repeat([30, 31], 8))
    shard(tmp_path, 1, np.repeat([32, 33], [8, 8]))
    taken = lambda limit, scenes: [int(n) for part in evaluate.load(tmp_path, "val", limit, scenes) for n in part["scene"]]  # noqa: E731
    assert taken(12, range(99)) == [30] * 8 + [31] * 4
    assert taken(12, range(31, 99)) == [31] * 8 + [32] * 4
    assert taken(99, range(32, 99)) == [32] * 8 + [33] * 8
    assert taken(99, range(31, 33)) == [31] * 8 + [32] * 8


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
