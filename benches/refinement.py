#!/usr/bin/env python3
"""What the vocabulary loop's refinements are worth: mIoU of the node on held-out frames, each a scene of its own, under the
loop's switches. Proposals are the detector's own; refinement is the lexicon's or, where --llm names an OpenAI-compatible
server, also a language model's (its key in the environment, as the node takes it).

closed   The targets are the world's 28 categories. Without refinement the detector is asked for all of them at once; with
         pre-refinement for those that the look at the same frame found with a score of 0.5 or more, while boxes may be kept
         from 0.3 on. With `label_rule` token_labels the detector says what it sees in its own words; post-refinement gives
         those a class. "In other words": the detector is asked for two synonyms of each category, on which it was never
         trained, as a tagger has other words than one's classes, and refinement has to find the classes that are meant.
         "Subclasses": the detector is asked for three narrower words of each class, too.
open     Nobody says what there is: the detector is asked for the lexicon's commonest nouns, and what it finds is the list,
         as it is or grouped into classes (pre-refinement).

A pixel is right when its label is the object's category or, in the open set, one of the words that `scenelex_sim.taxonomy`
has for it. Pixels of objects that are too small or hidden to be told do not count. The mean is over the categories in the
frames; recall counts labelled pixels of objects.

Frames: shards of `scenelex_sim.dataset --split val`, of each scene the first view. Needs what `make test` installs.

    .deps/venv/bin/python benches/refinement.py SHARDS [FRAMES] [--models DIR] [--only PART OF A NAME] [--llm URL --model NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from demo_bag import MODELS  # noqa: I001  (it opens the way to the tests' modules)
from camera import NODE, Camera
from peer import Peer
from pictures import compressed, jpeg
from processes import ROOT, node

sys.path.insert(0, str(MODELS))
from scenelex_sim.taxonomy import CATEGORIES, HELD_OUT_WORDS, TRAIN_WORDS  # noqa: E402

NOTHING = 255
# The demo's; the shipped one is for lists of which much is not there.
THRESHOLD = 0.5
ALL = f"[{', '.join(CATEGORIES)}]"
LOOK = {
    "classes": "[]", "refresh.enabled": "true", "refresh.period": 0, "refresh.scene_change": 0, "refresh.unmatched": 0,
    "refresh.min_interval": 0, "refresh.keep": 0,
}  # fmt: skip
CLOSED = LOOK | {"refresh.targets": ALL}
WORDS = {"label_rule": "token_labels"}
# Post-refinement of a list that stays: the loop runs for the phrases only.
STAYS = {"refresh.proposals": "[]", "refresh.fixed": ALL, "refresh.targets": "[]"}
OTHER_WORDS = CLOSED | {"refresh.probe.words": f"[{', '.join(word for name in CATEGORIES for word in HELD_OUT_WORDS[name])}]"}
NARROWER = {"refresh.subclasses": "true", "refresh.n_subclasses": 3}
OFFLINE = {
    "closed, no refinement": {"classes": ALL},
    "closed, no refinement, box and 20 points": {"classes": ALL, "use_points": "true"},
    "closed, pre-refinement": CLOSED,
    "closed, pre-refinement, whole image and 2x2 cells": CLOSED | {"refresh.probe.grid": "both"},
    "closed, boxes from 0.3, no refinement": {"classes": ALL, "box_threshold": 0.3},
    "closed, boxes from 0.3, pre-refinement": CLOSED | {"box_threshold": 0.3, "refresh.probe.threshold": THRESHOLD},
    "closed, token labels": {"classes": ALL} | WORDS,
    "closed, token labels, post-refinement": LOOK | STAYS | WORDS,
    "closed, token labels, pre- and post-refinement": CLOSED | WORDS,
    "closed, in other words, pre-refinement": OTHER_WORDS,
    "closed, subclasses, pre-refinement": CLOSED | NARROWER,
    "open, no refinement": LOOK | {"refresh.pre_refine": "false"},
    "open, pre-refinement": LOOK,
    "open, token labels, pre- and post-refinement": LOOK | WORDS,
}


def conditions(llm: str | None, model: str) -> dict[str, dict]:
    """By name; with a language model those in which it has something to do once more, but not on 2x2 cells."""
    if not llm:
        return OFFLINE
    asks = {"llm.url": llm, "llm.model": model, "llm.requests_per_hour": 100_000}
    repeated = {
        f"{name}, language model": parameters | asks
        for name, parameters in OFFLINE.items()
        if "refresh.enabled" in parameters and parameters.keys().isdisjoint({"refresh.probe.grid", "refresh.pre_refine"})
    }
    return OFFLINE | repeated


def frames(folder: Path, most: int):
    """One picture each of `most` scenes, or of all there are, and the category of its every pixel (255: nothing, 254: does
    not count)."""
    seen: set[int] = set()
    for shard in sorted(folder.glob("*.npz")):
        with np.load(shard) as data:
            rows = (data[key] for key in ("rgb", "instance", "category", "ignore", "scene"))
            for rgb, instance, category, ignore, scene in zip(*rows):
                if len(seen) == most:
                    return
                if int(scene) in seen:
                    continue
                seen.add(int(scene))
                of = np.full(256, NOTHING, np.uint8)
                of[1 : len(category) + 1] = np.where(category < 0, NOTHING, np.where(ignore > 0, NOTHING - 1, category))
                yield rgb, of[instance]


class Score:
    """Intersections and unions by category."""

    def __init__(self):
        self.inter, self.union = np.zeros(len(CATEGORIES), int), np.zeros(len(CATEGORIES), int)
        self.truth = np.zeros(len(CATEGORIES), int)

    def add(self, truth: np.ndarray, predicted: np.ndarray):
        counts = truth != NOTHING - 1
        for index in range(len(CATEGORIES)):
            one, two = (truth == index) & counts, (predicted == index) & counts
            self.inter[index] += int((one & two).sum())
            self.union[index] += int((one | two).sum())
            self.truth[index] += int(one.sum())

    def row(self) -> dict:
        there = self.truth > 0
        return {"miou": float((self.inter[there] / self.union[there]).mean()), "recall": float(self.inter.sum() / self.truth.sum())}


def category_of(label: str) -> int:
    """The category that a label is a name of; 255 for none."""
    for index, name in enumerate(CATEGORIES):
        if label == name or label in TRAIN_WORDS[name] or label in HELD_OUT_WORDS[name]:
            return index
    return NOTHING


def run(parameters: dict, pictures: list, models: Path, domain: int) -> dict:
    """One condition on all pictures, with the bundles in `models`."""
    peer = Peer(domain)
    vocabulary = peer.subscribe(f"{NODE}/vocabulary", "scenelex/msg/Vocabulary", latched=True, depth=100)
    score, names, lengths, stamp = Score(), {}, [], 0
    looks = "refresh.enabled" in parameters
    with node({"models_dir": models, "box_threshold": THRESHOLD, "use_points": "false"} | parameters, domain) as process:
        camera = Camera(peer, process, outputs=("semantic/image", "masks"))

        def serve(picture: bytes) -> dict:
            nonlocal stamp
            stamp += 1
            results = camera.serve(compressed(picture, stamp))
            while (version := results["masks"].vocabulary_version) not in names:
                for one in vocabulary.take(0.05):
                    names[one.version] = {entry.class_id: category_of(entry.label) for entry in one.entries}
                if version == 0:
                    names.setdefault(0, {})
            return results

        for rgb, truth in pictures:
            picture = jpeg(rgb)
            if looks:
                answers = []
                call = lambda: answers.append(peer.call(f"{NODE}/refresh_vocabulary", "std_srvs/srv/Trigger", timeout=120))
                caller = threading.Thread(target=call)
                caller.start()
                while caller.is_alive():
                    serve(picture)
                    caller.join(0.1)
            results = serve(picture)
            if "label_rule" in parameters:
                # Its phrases have their classes by now.
                time.sleep(0.3)
                results = serve(picture)
            image = results["semantic/image"]
            ids = np.frombuffer(bytes(image.data), np.uint8 if image.encoding == "mono8" else "<u2").reshape(image.height, image.width)
            known = names[results["masks"].vocabulary_version]
            lengths.append(len(known))
            predicted = np.full(ids.shape, NOTHING, np.uint8)
            for class_id in np.unique(ids):
                predicted[ids == class_id] = known.get(int(class_id), NOTHING)
            score.add(truth, predicted)
    return score.row() | {"classes": float(np.mean(lengths))}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("frames", type=int, nargs="?", default=64)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the bundles, that of the node's models_dir")
    parser.add_argument("--only", default="", help="part of the names of the conditions to run")
    parser.add_argument("--llm", help="URL of an OpenAI-compatible server, up to /v1")
    parser.add_argument("--model", default="gpt-4o-mini")
    return parser.parse_args()


def main():
    args = arguments()
    pictures = list(frames(args.shards, args.frames))
    if not pictures:
        sys.exit(f"no shards in {args.shards}")
    print(f"{len(pictures)} frames, each a scene of its own", flush=True)
    rows = {}
    for number, (name, parameters) in enumerate(conditions(args.llm, args.model).items()):
        if args.only not in name:
            continue
        rows[name] = run(parameters, pictures, args.models.resolve(), 20 + (os.getpid() + number) % 60)
        row = rows[name]
        print(f"{name:66} mIoU {row['miou']:.3f}  recall {row['recall']:.3f}  classes asked for {row['classes']:.1f}", flush=True)
    out = ROOT / "out" / "bench"
    out.mkdir(parents=True, exist_ok=True)
    (out / "refinement.json").write_text(json.dumps({"frames": len(pictures), "threshold": THRESHOLD, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
