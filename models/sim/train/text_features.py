#!/usr/bin/env python3
"""Encode every phrase the detector is trained on, once, with the bundle's text encoder.

Writes `models/sim/runs/text_features.npz` (about 9 MB, not committed):

    phrases  str[P]          the texts
    category i16[P]          index into CATEGORIES, -1 for a thing the world does not contain
    colour   i16[P]          index into COLOR_NAMES, -1 where the phrase names no colour
    word     i16[P]          index of the word within the category's list
    features f16[P,2,384]    mean of the phrase's tokens; state of the closing delimiter

Only words from TRAIN_WORDS are used, and no held-out pair of colour and category.

    python models/sim/train/text_features.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent):
    sys.path.insert(0, str(folder))

from detector_words import ABSENT_WORDS, plural, with_article  # noqa: E402
from scenelex_sim.taxonomy import CATEGORIES, COLOR_NAMES, HELD_OUT_PAIRS, TRAIN_WORDS  # noqa: E402

def training_phrases() -> list[tuple[str, int, int, int]]:
    """All (text, category, colour, word) used in training."""
    out: list[tuple[str, int, int, int]] = []
    for k, category in enumerate(CATEGORIES):
        for i, word in enumerate(TRAIN_WORDS[category]):
            for text in (with_article(word), word, f"the {word}", plural(word)):
                out.append((text, k, -1, i))
            for c, colour in enumerate(COLOR_NAMES):
                if (colour, category) in HELD_OUT_PAIRS:
                    continue
                out.append((f"{with_article(colour)} {word}", k, c, i))
                out.append((f"{colour} {word}", k, c, i))
                if i < 2:
                    out.append((f"{with_article(word)} that is {colour}", k, c, i))
    for i, word in enumerate(w.strip() for w in ABSENT_WORDS.split(";")):
        out.append((with_article(word), -1, -1, i))
        out.append((word, -1, -1, i))
        colour = COLOR_NAMES[i % len(COLOR_NAMES)]
        out.append((f"{with_article(colour)} {word}", -1, i % len(COLOR_NAMES), i))
    return out


def encode(phrases: list[str], bundle: Path, batch: int = 64) -> np.ndarray:
    """Features f32[P,2,384]: mean token state and delimiter state of each phrase."""
    import onnxruntime as ort
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(bundle / "text_encoder.onnx"), options, providers=["CPUExecutionProvider"])
    out = np.zeros((len(phrases), 2, 384), np.float32)
    for start in range(0, len(phrases), batch):
        rows = [tokenizer.encode(p + ".").ids for p in phrases[start : start + batch]]
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        for r, row in enumerate(rows):
            ids[r, : len(row)] = row
        feed = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}
        (states,) = session.run(["text_features"], feed)
        for r, row in enumerate(rows):  # [CLS] phrase . [SEP]
            out[start + r, 0] = states[r, 1 : len(row) - 2].mean(0)
            out[start + r, 1] = states[r, len(row) - 2]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=HERE.parent / "detector")
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs" / "text_features.npz")
    args = parser.parse_args()
    table = training_phrases()
    features = encode([t[0] for t in table], args.bundle)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.out,
        phrases=np.array([t[0] for t in table]),
        category=np.array([t[1] for t in table], np.int16),
        colour=np.array([t[2] for t in table], np.int16),
        word=np.array([t[3] for t in table], np.int16),
        features=features.astype(np.float16),
    )
    print(f"{len(table)} phrases, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
