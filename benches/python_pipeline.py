"""The same frame pipeline as Scenelex's in Python: Hugging Face's processors, ONNX Runtime, pycocotools, the same files.

What a careful Python programmer would write: text encoded once, one batched run of the mask decoder, the low-resolution
masks fetched instead of the graph's full-size ones, ONNX Runtime without spinning threads.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torchvision
from transformers import GroundingDinoImageProcessor, PreTrainedTokenizerFast, SamImageProcessor


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def model(folder: Path, manifest: dict, role: str, threads: int) -> onnxruntime.InferenceSession:
    """The file that the node runs on a processor."""
    files = manifest["files"] | manifest.get("cpu_files", {})
    return session(folder / files[role]["path"], threads)


def detector_processor(bundle: dict) -> GroundingDinoImageProcessor:
    """Hugging Face's processor set up as the bundle says (its letterbox)."""
    rule = bundle["preprocessing"]
    assert rule["resize"] == "letterbox", rule
    sides = (rule["height"], rule["width"])
    return GroundingDinoImageProcessor(
        size={"shortest_edge": min(sides), "longest_edge": max(sides)},
        pad_size={"height": rule["height"], "width": rule["width"]},
        image_mean=rule["mean"],
        image_std=rule["std"],
    )


def segmenter_processor(bundle: dict, height: int, width: int) -> SamImageProcessor:
    """Hugging Face's processor for images of this size, padded as the bundle says."""
    rule = bundle["preprocessing"]
    assert rule["resize"] == "longest_side", rule
    scale = rule["longest"] / max(height, width)
    padded = [-(-int(side * scale + 0.5) // rule["multiple"]) * rule["multiple"] for side in (height, width)]
    return SamImageProcessor(
        size={"longest_edge": rule["longest"]},
        pad_size={"height": padded[0], "width": padded[1]},
        image_mean=rule["mean"],
        image_std=rule["std"],
    )


def phrase_spans(tokenizer: PreTrainedTokenizerFast, phrases: list[str]) -> tuple[dict, list[slice]]:
    """The tokens of the caption of all phrases ("a cat. a dog."), and which of them are each phrase's, full stops aside."""
    text, edges = "", []
    for phrase in phrases:
        text += " " * bool(text)
        edges.append((len(text), len(text) + len(phrase)))
        text += f"{phrase}."
    tokens = tokenizer(text, return_tensors="np", return_offsets_mapping=True)
    offsets = tokens.pop("offset_mapping")[0]
    spans = []
    for phrase, (start, end) in zip(phrases, edges):
        # Special tokens have no extent.
        own = [n for n, (a, b) in enumerate(offsets) if start <= a < b <= end]
        assert own, f"no token for {phrase!r}"
        spans.append(slice(own[0], own[-1] + 1))
    return tokens, spans


def corners(boxes: np.ndarray, shape) -> np.ndarray:
    """Boxes as the detector has them (centre and size, relative) as x0, y0, x1, y1 in pixels."""
    centres, half = boxes[:, :2], boxes[:, 2:] / 2
    height, width = shape
    return np.concatenate((centres - half, centres + half), axis=1) * np.array((width, height) * 2, np.float32)


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths of a mask of 0 and 1."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], edges, [flat.size])))
    return ([0] if flat[0] else []) + counts.tolist()


class PythonPipeline:
    """Images in, labelled masks out."""

    def __init__(self, models: Path, classes: list[str], threads: int, points: int = 20):
        torch.set_num_threads(threads)
        self.bundle = tomllib.loads((models / "detector" / "bundle.toml").read_text())
        self.segmenter = tomllib.loads((models / "segmenter" / "bundle.toml").read_text())
        self.classes, self.points = classes, points

        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(models / "detector" / "tokenizer.json"))
        self.detector_processor = detector_processor(self.bundle)
        self.detector = model(models / "detector", self.bundle, "detector", threads)
        self.image_encoder = model(models / "segmenter", self.segmenter, "image_encoder", threads)
        self.mask_decoder = model(models / "segmenter", self.segmenter, "mask_decoder", threads)
        self.segmenter_processor, self.image_size = None, None

        text, self.spans = phrase_spans(tokenizer, classes)
        self.input_ids = text["input_ids"].astype(np.int64)
        self.attention_mask = text["attention_mask"].astype(np.int64)
        encoder = model(models / "detector", self.bundle, "text_encoder", threads)
        feed = {"token_type_ids": np.zeros_like(self.input_ids), **self.text_inputs()}
        (self.text_features,) = encoder.run(["text_features"], feed)

    def text_inputs(self) -> dict:
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    def detect(self, image: np.ndarray):
        """Boxes in image pixels, scores, class indices, and per object the point prompts. Labels follow the node's default
        rule (`label_rule: phrase_spans`), or the two would not cut out the same objects.
        """
        inputs = self.detector_processor(images=image, return_tensors="pt")
        feed = {
            "pixel_values": inputs["pixel_values"].numpy(),
            "pixel_mask": inputs["pixel_mask"].numpy().astype(np.int64),
            "text_features": self.text_features,
            **self.text_inputs(),
        }
        logits, boxes = self.detector.run(["logits", "pred_boxes"], feed)
        thresholds = self.bundle["thresholds"]
        # f32[Q, C]: a class has the highest of its tokens' logits, a query the class with the highest of those.
        by_class = np.stack([logits[0, :, span].max(axis=1) for span in self.spans], axis=1)
        ids = by_class.argmax(axis=1)
        scores = 1 / (1 + np.exp(-by_class.max(axis=1)))
        (kept,) = np.nonzero(scores > thresholds["box"])
        kept_boxes = corners(boxes[0, kept], image.shape[:2])
        keep = torchvision.ops.batched_nms(
            torch.from_numpy(kept_boxes),
            torch.from_numpy(scores[kept]),
            torch.from_numpy(ids[kept]),
            thresholds["nms_iou"],
        ).numpy()
        kept, kept_boxes = kept[keep], kept_boxes[keep]

        height, width = image.shape[:2]
        centres = boxes[0, :, :2] * (width, height)
        points = []
        for (x0, y0, x1, y1), identity in zip(kept_boxes, ids[kept]):
            (inside,) = np.nonzero(
                (centres[:, 0] >= x0) & (centres[:, 0] <= x1) & (centres[:, 1] >= y0) & (centres[:, 1] <= y1)
            )
            best = by_class[inside, identity]
            points.append(centres[inside[np.argsort(-best)][: self.points]])
        return kept_boxes, scores[kept], ids[kept], points

    def prompts(self, boxes, points, scale: float):
        """SAM's prompts: the points, padding, the two corners of the box."""
        most = max(map(len, points))
        coords = np.zeros((len(boxes), most + 2, 2), np.float32)
        labels = np.full((len(boxes), most + 2), -1, np.float32)
        for row, (box, own) in enumerate(zip(boxes, points)):
            coords[row, : len(own)], labels[row, : len(own)] = own, 1
            coords[row, -2:], labels[row, -2:] = box.reshape(2, 2), (2, 3)
        return coords * scale, labels

    def process(self, image: np.ndarray) -> list[dict]:
        """Labelled masks of an RGB image u8[H,W,3], best mask last."""
        height, width = image.shape[:2]
        boxes, scores, ids, points = self.detect(image)
        if not len(boxes):
            return []
        if self.image_size != (height, width):
            self.image_size = height, width
            self.segmenter_processor = segmenter_processor(self.segmenter, height, width)
        inputs = self.segmenter_processor(images=image, return_tensors="pt")
        (embedding,) = self.image_encoder.run(None, {"pixel_values": inputs["pixel_values"].numpy()})
        coords, labels = self.prompts(boxes, points, self.segmenter["preprocessing"]["longest"] / max(height, width))
        feed = {
            "image_embeddings": embedding,
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": np.zeros((1, 1, 4 * embedding.shape[2], 4 * embedding.shape[3]), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([height, width], np.float32),
        }
        low_res, quality = self.mask_decoder.run(["low_res_masks", "iou_predictions"], feed)
        masks = self.upscale(low_res[:, :1], inputs["original_sizes"], inputs["reshaped_input_sizes"])
        found = []
        for mask, score, box, identity, iou in zip(masks, scores, boxes, ids, quality[:, 0]):
            found.append({"label": self.classes[identity], "class_id": int(identity) + 1, "score": float(score),
                          "box": box, "mask_score": float(iou), "mask": mask, "counts": run_lengths(mask)})  # fmt: skip
        found.sort(key=lambda item: item["mask_score"])
        return found

    def upscale(self, low_res: np.ndarray, original_sizes, reshaped_sizes) -> np.ndarray:
        (masks,) = self.segmenter_processor.post_process_masks(
            [torch.from_numpy(low_res)], original_sizes, reshaped_sizes, mask_threshold=0.0
        )
        return masks[:, 0].numpy().view(np.uint8)

    def resolve(self, found: list[dict], shape) -> tuple[np.ndarray, np.ndarray]:
        """Semantic and instance image, the better mask on top."""
        semantic, instances = np.zeros(shape, np.uint8), np.zeros(shape, np.uint16)
        for number, item in enumerate(found, start=1):
            inside = item["mask"].astype(bool)
            semantic[inside], instances[inside] = item["class_id"], number
        return semantic, instances
