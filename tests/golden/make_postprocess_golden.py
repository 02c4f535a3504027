"""Writes tests/golden/postprocess.json: what Hugging Face's Grounding DINO post-processing makes of given logits.

The logits are random but made of 64ths, so that the file holds them exactly. Run:

    python tests/golden/make_postprocess_golden.py     (needs torch and transformers)
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import GroundingDinoImageProcessor, GroundingDinoProcessor, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
CAPTIONS = [
    "a red mug. armchair. chair. traffic cone.",
    "chair.",
    # A question mark and an unknown word are part of the text, too.
    "blue ball? zebra. green cup.",
]
THRESHOLDS = [(0.25, 0.25), (0.35, 0.25), (0.5, 0.75)]
QUERIES = 20
SIZES = [(480, 640), (1080, 1920), (333, 250)]  # height, width


def main() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(HERE / "tiny/detector/tokenizer.json"),
        cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]",
    )
    # The file's truncation and padding are there to be ignored by loaders.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    processor = GroundingDinoProcessor(GroundingDinoImageProcessor(), tokenizer)
    random = np.random.default_rng(7)
    cases = []
    for caption, size in zip(CAPTIONS, SIZES, strict=True):
        ids = torch.tensor([tokenizer.encode(caption)])
        tokens = ids.shape[1]
        # Mostly unsure, here and there sure of a token.
        logits = random.integers(-320, 40, (QUERIES, tokens)) / 64
        sure = random.random((QUERIES, tokens)) < 0.18
        logits[sure] = random.integers(-60, 260, sure.sum()) / 64
        full = np.full((1, QUERIES, 256), -math.inf, np.float32)
        full[0, :, :tokens] = logits
        boxes = random.integers(0, 257, (QUERIES, 4)) / 256
        outputs = SimpleNamespace(
            logits=torch.from_numpy(full), pred_boxes=torch.from_numpy(boxes[None].astype(np.float32)), input_ids=ids
        )
        results = []
        for box, text in THRESHOLDS:
            found = processor.post_process_grounded_object_detection(
                outputs, ids, threshold=box, text_threshold=text, target_sizes=[size]
            )[0]
            results.append({
                "box_threshold": box,
                "text_threshold": text,
                "scores": [float(s) for s in found["scores"]],
                "boxes": [[float(v) for v in b] for b in found["boxes"]],
                "labels": list(found["text_labels"]),
            })
        cases.append({
            "caption": caption, "input_ids": ids[0].tolist(), "height": size[0], "width": size[1],
            "logits": [[float(v) for v in row] for row in logits], "boxes": [[float(v) for v in b] for b in boxes],
            "results": results,
        })
    (HERE / "postprocess.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
