"""The detector's pipeline in Python, for evaluation: ONNX Runtime, Pillow and NumPy only.

It follows bundle.toml and the split Grounding DINO contract, and shares no code with the
Rust node, whose results can be compared with it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image
from tokenizers import Tokenizer

DELIMITERS = (101, 102, 1012, 1029)
CLOSING = (1012, 1029)


@dataclass
class Caption:
    """Some phrases joined to one caption, and what the text encoder says about it."""

    phrases: list[str]
    input_ids: np.ndarray  # i64 [1,T]
    attention_mask: np.ndarray  # i64 [1,T]
    text_features: np.ndarray  # f32 [1,T,D]
    spans: list[tuple[int, int]]  # tokens of each phrase, without its delimiter


@dataclass
class Found:
    """Detections of one phrase in one image, best first."""

    boxes: np.ndarray  # f32 [n,4] x1,y1,x2,y2 in pixels of the image
    scores: np.ndarray  # f32 [n]


def session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def suppress(boxes: np.ndarray, scores: np.ndarray, limit: float) -> np.ndarray:
    """Greedy non-maximum suppression; indices kept, best first."""
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        inter = np.clip(high - low, 0, None).prod(1)
        order = order[inter / np.maximum(area[best] + area[order] - inter, 1e-9) <= limit]
    return np.array(kept, int)


class DetectorPipeline:
    """Pictures and phrases in, boxes with scores out."""

    def __init__(self, bundle: Path, threads: int = 1) -> None:
        manifest = tomllib.loads((bundle / "bundle.toml").read_text(encoding="utf-8"))
        files = {k: bundle / v["path"] for k, v in (manifest["files"] | manifest.get("cpu_files", {})).items()}
        for path in files.values():
            if not path.is_file():
                raise SystemExit(f"{path.name} is missing; run models/sim/assemble_text_encoder.py first")
        self.text = session(files["text_encoder"], threads)
        self.detector = session(files["detector"], threads)
        self.tokenizer = Tokenizer.from_file(str(files["tokenizer"]))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.prep, self.thresholds = manifest["preprocessing"], manifest["thresholds"]
        self.max_tokens = manifest["text"]["max_tokens"]

    def caption(self, phrases: list[str]) -> Caption:
        """Encode phrases as one caption; raises ValueError when they do not fit."""
        ids = self.tokenizer.encode("".join(f"{p.lower().strip()}. " for p in phrases).strip()).ids
        if len(ids) > self.max_tokens:
            raise ValueError(f"{len(ids)} tokens, at most {self.max_tokens} fit")
        spans, start = [], 1
        for i, token in enumerate(ids):
            if token in CLOSING:
                spans.append((start, i))
                start = i + 1
        if len(spans) != len(phrases):
            raise ValueError("a phrase contains a delimiter")
        row = np.array([ids], np.int64)
        feed = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        (features,) = self.text.run(["text_features"], feed)
        return Caption(phrases, row, feed["attention_mask"], features, spans)

    def captions(self, phrases: list[str]) -> list[Caption]:
        """Encode any number of phrases as few captions as they fit in."""
        out, rest = [], list(phrases)
        while rest:
            n = len(rest)
            while True:
                try:
                    out.append(self.caption(rest[:n]))
                    break
                except ValueError:
                    if n == 1:
                        raise
                    n = n * 3 // 4
            rest = rest[n:]
        return out

    def preprocess(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u8 [H,W,3] -> pixel_values f32 [1,3,h,w], pixel_mask i64 [1,h,w]."""
        h, w = rgb.shape[:2]
        width, height = self.prep["width"], self.prep["height"]
        scale = min(width / w, height / h)
        nw, nh = max(1, int(w * scale + 0.5)), max(1, int(h * scale + 0.5))
        small = np.asarray(Image.fromarray(rgb).resize((nw, nh), Image.Resampling.BILINEAR), np.float32) / 255
        small = (small - np.float32(self.prep["mean"])) / np.float32(self.prep["std"])
        pixels = np.zeros((1, 3, height, width), np.float32)
        pixels[0, :, :nh, :nw] = small.transpose(2, 0, 1)
        mask = np.zeros((1, height, width), np.int64)
        mask[0, :nh, :nw] = 1
        return pixels, mask

    def detect(self, rgb: np.ndarray, captions: list[Caption], threshold: float | None = None) -> dict[str, Found]:
        """Boxes of every phrase above the threshold (the bundle's own by default), after suppression per phrase."""
        threshold = self.thresholds["box"] if threshold is None else threshold
        pixels, mask = self.preprocess(rgb)
        h, w = rgb.shape[:2]
        out = {}
        for c in captions:
            feed = {
                "pixel_values": pixels,
                "pixel_mask": mask,
                "input_ids": c.input_ids,
                "attention_mask": c.attention_mask,
                "text_features": c.text_features,
            }
            logits, boxes = self.detector.run(["logits", "pred_boxes"], feed)
            with np.errstate(over="ignore"):
                p = 1 / (1 + np.exp(-logits[0].astype(np.float64)))
            centre, size = boxes[0, :, :2], boxes[0, :, 2:]
            corners = np.concatenate([centre - size / 2, centre + size / 2], 1) * [w, h, w, h]
            for phrase, (a, b) in zip(c.phrases, c.spans):
                score = p[:, a:b].max(1)
                keep = np.flatnonzero(score > threshold)
                keep = keep[suppress(corners[keep], score[keep], self.thresholds["nms_iou"])] if len(keep) else keep
                out[phrase] = Found(corners[keep], score[keep])
        return out
