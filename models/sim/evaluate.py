#!/usr/bin/env python3
"""Measure the default models on scenes, colour-category pairs and words they were never trained on.

    python models/sim/evaluate.py                                  # renders its own held-out frames (MUJOCO_GL=egl)
    python models/sim/evaluate.py --val DIR --pairs DIR            # or takes shards made by scenelex_sim.dataset, val's with --start 1024
    python models/sim/evaluate.py --photos PHOTOS                  # photographs for the masks, in COCO's panoptic layout
    python models/sim/evaluate.py --choose-threshold --skip 256 --frames 112

Runs the shipped ONNX files with ONNX Runtime on the CPU. Average precision is COCO's at an
IoU of 0.5 (pycocotools, at most 100 boxes an image and phrase). Objects of which less than a
quarter is visible, or which cover less than 0.15 % of the picture, count neither way.

Whatever is chosen by looking at results, as the detector's threshold, is chosen on val's scenes before
128 (frames before 1024); figures are of those from 128 on, and of nothing else: of the others no frame
is taken, neither rendered nor out of a shard, which names its scenes in its column `scene`. A figure
of scenes that something was chosen on promises too much. Nothing is chosen on pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE / "train"):
    sys.path.insert(0, str(folder))

from detector_words import UNTRAINED_ABSENT_WORDS, with_article  # noqa: E402
from evaluate_pipeline import DetectorPipeline, Found  # noqa: E402
from scenelex_sim.dataset import VIEWS  # noqa: E402
from scenelex_sim.taxonomy import (  # noqa: E402
    CATEGORIES,
    COLOR_NAMES,
    HELD_OUT_PAIRS,
    HELD_OUT_WORDS,
    TRAIN_WORDS,
)

COLUMNS = ("rgb", "instance", "category", "color", "ignore", "scene")  # of a shard, as far as they are needed
LOW = 0.005  # boxes below this score are not ranked
SMALL = 24.0
ABSENT = 20  # prompts for absent things a frame, where false boxes are counted
ANY_SCENE = range(2**31)
FOR_CHOICES, FOR_FIGURES = ANY_SCENE[:128], ANY_SCENE[128:]  # of val; a scene has VIEWS frames
KNOWN_THERE = 0.5  # a threshold for lists of things that are there: more is found, and more is wrong


class Frames:
    """Rendered frames: pictures and the boxes of their objects."""

    def __init__(self, parts: list[dict[str, np.ndarray]]) -> None:
        self.rgb = [rgb for part in parts for rgb in part["rgb"]]
        self.objects = [list(self._objects(part, n)) for part in parts for n in range(len(part["rgb"]))]
        scenes = np.concatenate([part["scene"] for part in parts])
        self.scenes = [int(scenes.min()), int(scenes.max())]

    @staticmethod
    def _objects(part: dict[str, np.ndarray], n: int):
        instance = part["instance"][n]
        for k in np.unique(instance):
            if k == 0 or part["category"][n, k - 1] < 0:
                continue
            ys, xs = np.nonzero(instance == k)
            yield {
                "box": [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1],
                "category": int(part["category"][n, k - 1]),
                "colour": int(part["color"][n, k - 1]),
                "ignore": bool(part["ignore"][n, k - 1]),
            }


def load(folder: Path | None, split: str, limit: int, scenes: range) -> list[dict[str, np.ndarray]]:
    """The first `limit` frames of these scenes of a split, in one part or several: out of a folder of shards, or freshly
    rendered at 480x360. That there are fewer is told, that there is none is an error."""
    which = f"{split}'s scenes from {scenes.start} on" + (f", before {scenes.stop}" if scenes.stop < ANY_SCENE.stop else "")
    parts, held = [], 0
    if folder is None:
        from scenelex_sim.dataset import render_small

        held = min(limit, len(scenes) * VIEWS)
        if held:
            whole = render_small(split, held, 480, 360, scenes.start * VIEWS)
            parts.append({k: whole[k][:held] for k in COLUMNS})
    else:
        paths = sorted(folder.glob("*.npz"))
        if not paths:
            raise SystemExit(f"no shards in {folder}")
        for path in paths:
            with np.load(path) as z:
                rows = np.flatnonzero([int(scene) in scenes for scene in z["scene"]])[: limit - held]
                if len(rows):
                    parts.append({k: z[k][rows] for k in COLUMNS})
                    held += len(rows)
    if not held:
        raise SystemExit(f"no frame of {which}" + (f" in {folder}" if folder else ""))
    if held < limit:
        print(f"only {held} of {limit} frames of {which}", file=sys.stderr)
    return parts


def average_precision(frames: Frames, found: list[dict[str, Found]], phrases: list[str], truth, smallest: float = 0.0) -> dict:
    """COCO AP at IoU 0.5 of each phrase.

    `truth(object, phrase index)` says whether the object is a hit (True), a miss (False) or
    neither (None). Objects with a shorter side below `smallest` pixels count neither way.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results, per_phrase = [], [], [0] * len(phrases)
    for i, objects in enumerate(frames.objects):
        for p, phrase in enumerate(phrases):
            for o in objects:
                answer = truth(o, p)
                if answer is False:
                    continue
                x1, y1, x2, y2 = o["box"]
                vague = answer is None or o["ignore"] or min(x2 - x1, y2 - y1) < smallest
                per_phrase[p] += not vague
                row = {"image_id": i + 1, "category_id": p + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                annotations.append(row | {"id": len(annotations) + 1, "area": (x2 - x1) * (y2 - y1), "iscrowd": int(vague)})
            for box, score in zip(found[i][phrase].boxes, found[i][phrase].scores):
                x1, y1, x2, y2 = (float(v) for v in box)
                results.append({"image_id": i + 1, "category_id": p + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)})
    out = {"ap50": 0.0, "recall": 0.0, "objects": sum(per_phrase), "phrases": {}}
    if not results or not out["objects"]:
        return out
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i + 1} for i in range(len(frames.rgb))],
            "categories": [{"id": p + 1, "name": n} for p, n in enumerate(phrases)],
            "annotations": annotations,
        }
        coco.createIndex()
        e = COCOeval(coco, coco.loadRes(results), "bbox")
        e.params.iouThrs = np.array([0.5])
        e.evaluate()
        e.accumulate()
    precision = e.eval["precision"][0, :, :, 0, -1]  # recall points x phrases
    recall = e.eval["recall"][0, :, 0, -1]
    there = [p for p in range(len(phrases)) if per_phrase[p]]
    out["phrases"] = {phrases[p]: round(float(precision[:, p].mean()), 3) for p in there}
    out["ap50"] = float(np.mean([precision[:, p].mean() for p in there]))
    out["recall"] = float(np.mean([recall[p] for p in there]))
    return out


def absent_scores(frames: Frames, found: list[dict[str, Found]], names: list[str], foreign: list[str]) -> list[np.ndarray]:
    """For each frame, the scores of all boxes for ABSENT things that are not in it, drawn with a fixed seed.

    Half are categories of the world of which the frame shows nothing at all (not even a part that is
    ignored otherwise), half are things that the world does not contain.
    """
    out = []
    for i, (objects, hit) in enumerate(zip(frames.objects, found)):
        rng = np.random.default_rng([7, i])
        present = {o["category"] for o in objects}
        absent = [n for k, n in enumerate(names) if k not in present]
        asked = [*rng.permutation(absent)[: ABSENT // 2], *rng.permutation(foreign)[: ABSENT // 2]]
        out.append(np.concatenate([hit[n].scores for n in asked]))
    return out


def false_boxes(frames: Frames, found: list[dict[str, Found]], threshold: float, names: list[str], foreign: list[str]) -> float:
    """Mean number of boxes a frame above the threshold for absent things."""
    return float(np.mean([(s > threshold).sum() for s in absent_scores(frames, found, names, foreign)]))


def choose_threshold(bundle: Path, val: Path | None, limit: int, skip: int, threads: int) -> float:
    """The lowest threshold (in steps of 0.01) with at most 0.1 false boxes a frame, on `limit` frames from the scene on that
    begins with frame `skip` or after it."""
    pipeline = DetectorPipeline(bundle, threads)
    names = [with_article(c) for c in CATEGORIES]
    foreign = [with_article(w) for w in UNTRAINED_ABSENT_WORDS]
    frames = Frames(load(val, "val", limit, FOR_CHOICES[-(-skip // VIEWS) :]))
    found = run(pipeline, frames, names + foreign, "frames to choose on")
    scores = np.concatenate(absent_scores(frames, found, names, foreign))
    for percent in range(5, 100):
        if (scores > percent / 100).sum() <= 0.1 * len(frames.rgb):
            return percent / 100
    return 1.0


def run(pipeline: DetectorPipeline, frames: Frames, phrases: list[str], what: str) -> list[dict[str, Found]]:
    """All detections above LOW, with progress."""
    captions = pipeline.captions(phrases)
    out, begun = [], time.monotonic()
    for i, rgb in enumerate(frames.rgb):
        out.append(pipeline.detect(rgb, captions, LOW))
        if sys.stderr.isatty() or i + 1 == len(frames.rgb):
            print(f"\r{what}: {i + 1}/{len(frames.rgb)} frames, {(i + 1) / (time.monotonic() - begun):.1f}/s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return out


def new_words(word: str, category: str) -> bool:
    """Whether a held-out name shares no word with the category's trained names, nor is one of them but for spaces and hyphens."""

    def parts(name: str) -> set[str]:
        words = name.replace("-", " ").split()
        return {*words, "".join(words)}

    return not parts(word) & {part for name in TRAIN_WORDS[category] for part in parts(name)}


def evaluate_detector(bundle: Path, val: Path | None, pairs: Path | None, limit: int, threads: int) -> dict:
    """Everything about the detector, as one dictionary."""
    pipeline = DetectorPipeline(bundle, threads)
    threshold = pipeline.thresholds["box"]
    names = [with_article(c) for c in CATEGORIES]
    foreign = [with_article(w) for w in UNTRAINED_ABSENT_WORDS]
    words = [(with_article(w), CATEGORIES.index(c), c) for c, ws in HELD_OUT_WORDS.items() for w in ws]

    seen = Frames(load(val, "val", limit, FOR_FIGURES))
    found = run(pipeline, seen, names + foreign + [w for w, _, _ in words], "held-out scenes")
    category = lambda o, p: o["category"] == p  # noqa: E731
    out = {
        "frames": len(seen.rgb),
        "scenes": seen.scenes,
        "threshold": threshold,
        "categories": average_precision(seen, found, names, category),
        "categories_from_24_px": average_precision(seen, found, names, category, SMALL),
        "at": {},
    }
    for at in sorted({KNOWN_THERE, threshold}):
        above = [{k: Found(f.boxes[f.scores > at], f.scores[f.scores > at]) for k, f in hit.items()} for hit in found]
        recall = average_precision(seen, above, names, category)["recall"]
        out["at"][at] = {"recall": recall, "false_boxes": false_boxes(seen, found, at, names, foreign)}
    out["words"] = average_precision(seen, found, [w for w, _, _ in words], lambda o, p: o["category"] == words[p][1])
    # As for all words, those of categories that no frame shows are left out.
    ap = out["words"]["phrases"]
    new = [ap[w] for w, _, c in words if w in ap and new_words(w.split(" ", 1)[1], c)]
    out["words_new"] = {"ap50": float(np.mean(new)) if new else 0.0, "words": len(new)}

    combos = sorted(HELD_OUT_PAIRS)
    phrases = [f"{with_article(colour)} {name}" for colour, name in combos]
    table = [(COLOR_NAMES.index(colour), CATEGORIES.index(name)) for colour, name in combos]

    def is_pair(o: dict, p: int) -> bool | None:
        colour, kind = table[p]
        if o["category"] != kind:
            return False
        return None if o["colour"] < 0 else o["colour"] == colour

    other = Frames(load(pairs, "pairs", limit, ANY_SCENE))
    out["combinations"] = average_precision(other, run(pipeline, other, phrases, "unseen combinations"), phrases, is_pair)
    return out


def detector_table(r: dict) -> str:
    """The result as Markdown."""
    target = "≤ 0.10"
    rows = [
        ("categories, \"a mug\" (AP50)", r["categories"]["ap50"], "≥ 0.80"),
        ("… objects of at least 24 px", r["categories_from_24_px"]["ap50"], ""),
        ("… recall at IoU 0.5, all boxes", r["categories"]["recall"], ""),
        *((f"… recall at a threshold of {at}", figures["recall"], "") for at, figures in r["at"].items()),
        ("unseen colour × category, \"a red mug\" (AP50)", r["combinations"]["ap50"], "≥ 0.65"),
        ("unseen words (AP50)", r["words"]["ap50"], "aim 0.40"),
        (f"… the {r['words_new']['words']} that share no word with a trained name", r["words_new"]["ap50"], ""),
        *(
            (f"false boxes a frame at {at}, {ABSENT} absent things asked for", figures["false_boxes"], target if at == r["threshold"] else "")
            for at, figures in r["at"].items()
        ),
    ]
    first, last = r["scenes"]
    of = f"{r['frames']} frames of val's scenes {first} to {last}, {r['categories']['objects']} objects"
    return "\n".join([of, "", "| detector | measured | target |", "|---|---|---|"] + [f"| {name} | {value:.3f} | {target} |" for name, value, target in rows]) + "\n"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--detector", type=Path, default=HERE / "detector", help="bundle folder")
    p.add_argument("--segmenter", type=Path, default=HERE / "segmenter", help="bundle folder")
    p.add_argument("--val", type=Path, help="shards of the split val; rendered if absent")
    p.add_argument("--pairs", type=Path, help="shards of the split pairs; rendered if absent")
    p.add_argument("--photos", type=Path, help="COCO-panoptic folder of photographs")
    p.add_argument("--frames", type=int, default=256, help="frames of each split")
    p.add_argument("--skip", type=int, default=0, help="first frame of val to choose the threshold on")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--choose-threshold", action="store_true", help="only print the detector threshold that meets the target on these frames")
    p.add_argument("--only", choices=("detector", "segmenter"))
    p.add_argument("--json", type=Path, help="also write all figures here")
    args = p.parse_args()
    if args.only != "detector" and not args.choose_threshold:
        import eval_masks  # now: what it needs and lacks is better told before the detector's minutes

    if args.choose_threshold:
        print(choose_threshold(args.detector, args.val, args.frames, args.skip, args.threads))
        return
    result = {}
    if args.only != "segmenter":
        result["detector"] = evaluate_detector(args.detector, args.val, args.pairs, args.frames, args.threads)
        print(detector_table(result["detector"]))
    if args.only != "detector":
        parts = load(args.val, "val", min(args.frames, 200), FOR_FIGURES)
        frames = {k: np.concatenate([part[k] for part in parts]) for k in COLUMNS}
        result["segmenter"] = eval_masks.evaluate_segmenter(args.segmenter, frames, args.photos, threads=args.threads)
        print(eval_masks.table(result["segmenter"]))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
