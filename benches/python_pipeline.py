"""The same frame pipeline as Scenelex's in Python: Hugging Face's processors, ONNX Runtime, pycocotools, the same files.

What a careful Python programmer would write: text encoded once, one batched run of the mask decoder, the low-resolution
masks fetched instead of the graph's full-size ones, ONNX Runtime without spinning threads.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import torch
import torchvision
from transformers import GroundingDinoImageProcessor, GroundingDinoProcessor, PreTrainedTokenizerFast, SamImageProcessor


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


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


def segmenter_processor(bundle: dict, side: int) -> SamImageProcessor:
    rule = bundle["preprocessing"]
    return SamImageProcessor(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        image_mean=rule["mean"],
        image_std=rule["std"],
    )


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
        segmenter = tomllib.loads((models / "segmenter" / "bundle.toml").read_text())
        self.classes, self.points = classes, points

        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(models / "detector" / "tokenizer.json"))
        self.detector_processor = detector_processor(self.bundle)
        self.processor = GroundingDinoProcessor(self.detector_processor, tokenizer)
        self.detector = session(models / "detector" / "detector.onnx", threads)
        self.image_encoder = session(models / "segmenter" / "image_encoder.onnx", threads)
        self.mask_decoder = session(models / "segmenter" / "mask_decoder.onnx", threads)
        side = self.image_encoder.get_inputs()[0].shape[2]
        self.segmenter_processor = segmenter_processor(segmenter, side)
        self.input_side = side
        mask_side = {i.name: i for i in self.mask_decoder.get_inputs()}["mask_input"].shape[2]
        self.no_mask = np.zeros((1, 1, mask_side, mask_side), np.float32)

        text = tokenizer(" ".join(f"{name}." for name in classes), return_tensors="np")
        self.input_ids = text["input_ids"].astype(np.int64)
        self.attention_mask = text["attention_mask"].astype(np.int64)
        encoder = session(models / "detector" / "text_encoder.onnx", threads)
        feed = {"token_type_ids": np.zeros_like(self.input_ids), **self.text_inputs()}
        (self.text_features,) = encoder.run(["text_features"], feed)

    def text_inputs(self) -> dict:
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    def detect(self, image: np.ndarray):
        """Boxes in image pixels, labels, scores, and per object the point prompts."""
        inputs = self.detector_processor(images=image, return_tensors="pt")
        feed = {
            "pixel_values": inputs["pixel_values"].numpy(),
            "pixel_mask": inputs["pixel_mask"].numpy().astype(np.int64),
            "text_features": self.text_features,
            **self.text_inputs(),
        }
        logits, boxes = self.detector.run(["logits", "pred_boxes"], feed)
        outputs = SimpleNamespace(logits=torch.from_numpy(logits), pred_boxes=torch.from_numpy(boxes))
        thresholds = self.bundle["thresholds"]
        (found,) = self.processor.post_process_grounded_object_detection(
            outputs,
            torch.from_numpy(self.input_ids),
            threshold=thresholds["box"],
            text_threshold=thresholds["text"],
            target_sizes=[image.shape[:2]],
        )
        ids = [self.classes.index(label) if label in self.classes else -1 for label in found["text_labels"]]
        ids = torch.tensor(ids, dtype=torch.int64)
        known = ids >= 0
        kept_boxes, scores, ids = found["boxes"][known], found["scores"][known], ids[known]
        keep = torchvision.ops.batched_nms(kept_boxes, scores, ids, thresholds["nms_iou"])
        kept_boxes, scores, ids = kept_boxes[keep], scores[keep], ids[keep]

        height, width = image.shape[:2]
        centres = boxes[0, :, :2] * (width, height)
        best = logits[0].max(axis=1)
        points = []
        for x0, y0, x1, y1 in kept_boxes.numpy():
            (inside,) = np.nonzero(
                (centres[:, 0] >= x0) & (centres[:, 0] <= x1) & (centres[:, 1] >= y0) & (centres[:, 1] <= y1)
            )
            points.append(centres[inside[np.argsort(-best[inside])][: self.points]])
        return kept_boxes.numpy(), scores.numpy(), ids.numpy(), points

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
        inputs = self.segmenter_processor(images=image, return_tensors="pt")
        (embedding,) = self.image_encoder.run(None, {"pixel_values": inputs["pixel_values"].numpy()})
        coords, labels = self.prompts(boxes, points, self.input_side / max(height, width))
        feed = {
            "image_embeddings": embedding,
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": self.no_mask,
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
