#!/usr/bin/env python3
"""Record what the trained PyTorch network says about two pictures of the demo bag.

The network runs as it was trained: weights not rounded to float16, batch normalisation not
folded, no ONNX. `tests/python/test_detector.py` compares the bundle's detector.onnx with it.

    python models/sim/train/make_detector_golden.py --weights models/sim/runs/detector/detector_ema.pt

Writes `detector_golden.npz` into the bundle:

    frames         i64[F]        numbers of the pictures in the bag's camera topic
    input_ids      i64[1,T]      the joined caption
    text_features  f16[1,T,384]  its features, exactly as given to the network
    logits         f32[F,K,T]    of the K best queries
    boxes          f32[F,K,4]    cxcywh relative to the picture
    onnx_sha256    str           of the detector.onnx exported from the same weights
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent):
    sys.path.insert(0, str(folder))

from detector_model import ExportedDetector  # noqa: E402
from detector_words import with_article  # noqa: E402
from evaluate_pipeline import DetectorPipeline  # noqa: E402
from export_detector import load_weights  # noqa: E402
from scenelex_sim.taxonomy import CATEGORIES  # noqa: E402

FRAMES = (10, 75)
QUERIES = 60


def pictures(bag: Path, numbers: tuple[int, ...]) -> list[np.ndarray]:
    """u8 [H,W,3] of these messages of the camera topic."""
    from mcap_ros2.reader import read_ros2_messages

    (path,) = bag.glob("*.mcap")
    stream = read_ros2_messages(str(path), topics=["/camera/image_raw/compressed"])
    found = {i: m.ros_msg.data for i, m in enumerate(stream) if i in numbers}
    return [np.asarray(Image.open(io.BytesIO(bytes(found[i]))).convert("RGB")) for i in numbers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="the file detector.onnx was exported from")
    parser.add_argument("--bundle", type=Path, default=HERE.parent / "detector")
    parser.add_argument("--bag", type=Path, default=HERE.parent / "demo_bag")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = DetectorPipeline(args.bundle)
    caption = pipeline.caption([with_article(c) for c in CATEGORIES])
    features = caption.text_features.astype(np.float16)
    network = ExportedDetector(load_weights(args.weights)).eval()
    prepared = [pipeline.preprocess(p) for p in pictures(args.bag, FRAMES)]
    tokens = caption.input_ids.shape[1]
    logits, boxes = [], []
    with torch.no_grad():
        for pixels, mask in prepared:
            given = (pixels, mask, caption.input_ids, caption.attention_mask, features.astype(np.float32))
            l, b = (v[0].numpy() for v in network(*map(torch.from_numpy, given)))
            logits.append(l[:QUERIES, :tokens])
            boxes.append(b[:QUERIES])
    np.savez_compressed(
        args.bundle / "detector_golden.npz",
        frames=np.array(FRAMES),
        input_ids=caption.input_ids,
        text_features=features,
        logits=np.stack(logits),
        boxes=np.stack(boxes),
        onnx_sha256=hashlib.sha256((args.bundle / "detector.onnx").read_bytes()).hexdigest(),
    )
    print(f"{tokens} tokens, best logits {[round(float(v.max()), 2) for v in logits]}")


if __name__ == "__main__":
    main()
