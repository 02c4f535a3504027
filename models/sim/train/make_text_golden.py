#!/usr/bin/env python3
"""Record what the original all-MiniLM-L6-v2 says about each phrase of a few captions.

Every phrase is encoded alone with `transformers.BertModel`, as "[CLS] phrase [SEP]", one
at a time and without padding; the states are then put at the places where the phrase's
tokens stand in the joined caption. This shares no code with the assembled ONNX file,
which `assemble_text_encoder.py` compares with the recording.

Needs torch, transformers and tokenizers:

    python models/sim/train/make_text_golden.py --package WHEEL_FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertModel

OUT = Path(__file__).resolve().parents[1] / "detector" / "text_encoder_golden.npz"
CASES = [
    ["a cat. a dog."],
    ["mug."],
    [
        "a red mug. a traffic cone. potted plant. spanner. a person riding a skateboard?",
        "a mug. a bottle.",
        "an erlenmeyer flask. wastebasket",
    ],
    ["a blue box. a green box. " + "a screwdriver. " * 12],
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, required=True, help="folder holding model.safetensors")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.package / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    bert = BertModel.from_pretrained(str(args.package), add_pooling_layer=False).eval()

    out: dict[str, np.ndarray] = {"cases": np.array(len(CASES))}
    for case, captions in enumerate(CASES):
        rows = [tokenizer.encode(c).ids for c in captions]
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        attention = np.zeros_like(ids)
        checked = np.zeros(ids.shape, bool)
        features = np.zeros((*ids.shape, 384), np.float32)
        for r, row in enumerate(rows):
            ids[r, : len(row)] = row
            attention[r, : len(row)] = 1
            start = 1
            for i, token in enumerate(row):
                if i == 0 or token not in (102, 1012, 1029):
                    continue
                phrase = row[start:i]
                if phrase:
                    alone = torch.tensor([[101, *phrase, 102]])
                    with torch.no_grad():
                        states = bert(input_ids=alone).last_hidden_state[0]
                    features[r, start : i + 1] = states[1:].numpy()
                    checked[r, start : i + 1] = True
                start = i + 1
        out[f"input_ids_{case}"] = ids
        out[f"attention_mask_{case}"] = attention
        out[f"checked_{case}"] = checked
        out[f"features_{case}"] = features[checked]
    np.savez_compressed(OUT, **out)
    print(f"{OUT.name}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
