#!/usr/bin/env python3
"""Makes the 8-bit files of a bundle, which the node runs on processors, and names them in its `bundle.toml` as `cpu_files`.

    python quantise.py --bundle ../detector --frames SHARDS
    python quantise.py --bundle ../segmenter --frames SHARDS

SHARDS are frames of `scenelex_sim.dataset --split train`. Static quantisation by ONNX Runtime's own tool (Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"): convolutions and the sums,
concatenations and enlargements between them work on u8 values with a scale and a zero point for each tensor, on i8 weights with
a scale for each output channel. Ranges are means over frames of each frame's least and largest value.

Inputs, outputs and what is sensitive or takes no time stay in float32: the first convolution, attention, and the layers that
make a detector's vectors and boxes. Nothing is trained. A file takes its place in the bundle only when it agrees with the
float32 file on frames that its ranges are not of.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from bundle_manifest import name_cpu_files  # noqa: E402
from eval_masks import Bundle as Segmenter  # noqa: E402
from evaluate_pipeline import DetectorPipeline  # noqa: E402
from export_detector import narrow_weights  # noqa: E402
from scenelex_sim.taxonomy import CATEGORIES  # noqa: E402

OPERATORS = ("Conv", "Relu", "Add", "Concat", "MaxPool", "Resize")
FRAMES = 80
CHECKED = 5  # every fifth of them, the ranges are of the others


@dataclass
class Plan:
    """How one file of a bundle is quantised."""

    role: str
    nodes: re.Pattern[str]  # names of the nodes that become integers
    feeds: Callable[[np.ndarray], dict[str, np.ndarray]]  # of a picture u8[H, W, 3]
    difference: Callable[[list[np.ndarray], list[np.ndarray]], float]  # of the outputs of one picture
    largest: float  # mean difference that is allowed


def detector(bundle: Path) -> Plan:
    pipeline = DetectorPipeline(bundle)
    (caption,) = pipeline.captions([f"a {name}" for name in CATEGORIES])

    def feeds(rgb: np.ndarray) -> dict[str, np.ndarray]:
        pixels, mask = pipeline.preprocess(rgb)
        text = {name: getattr(caption, name) for name in ("input_ids", "attention_mask", "text_features")}
        return {"pixel_values": pixels, "pixel_mask": mask, **text}

    def difference(exact: list[np.ndarray], ours: list[np.ndarray]) -> float:
        """Of the score of what is seen, in the query whose box is nearest; what has no box nearby counts in full."""
        (scores, boxes), (our_scores, our_boxes) = ((1 / (1 + np.exp(-logits[0].max(1))), boxes[0]) for logits, boxes in (exact, ours))
        seen = scores > 0.3
        apart = np.abs(our_boxes[None] - boxes[seen, None]).max(2)
        error = np.where(apart.min(1) < 0.03, np.abs(our_scores[apart.argmin(1)] - scores[seen]), scores[seen])
        return float(error.mean()) if seen.any() else 0.0

    return Plan("detector", re.compile(r"/(image/(?!stem)|name_tower|box_tower)"), feeds, difference, 0.05)


def image_encoder(bundle: Path) -> Plan:
    segmenter = Segmenter(bundle)
    nodes = r"/(quarter|eighth|sixteenth/sixteenth\.0|sixteenth/sixteenth\.\d/(expand|local|reduce)|from_|fuse|neck|Add|Relu)"

    def difference(exact: list[np.ndarray], ours: list[np.ndarray]) -> float:
        """Of the embeddings, root mean square, as a share of their own."""
        return float(np.sqrt(np.mean((exact[0] - ours[0]) ** 2) / np.mean(exact[0] ** 2)))

    return Plan("image_encoder", re.compile(nodes), lambda rgb: {"pixel_values": segmenter.pixels(rgb)}, difference, 0.1)


def pictures(folder: Path, count: int) -> list[np.ndarray]:
    """So many frames ``u8[H, W, 3]`` out of a folder's shards, spread evenly."""
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise SystemExit(f"no shards in {folder}")
    out: list[np.ndarray] = []
    for number, path in enumerate(paths):
        wanted = count * (number + 1) // len(paths) - len(out)
        if wanted:
            with np.load(path) as shard:
                rgb = shard["rgb"]
            if len(rgb) < wanted:
                raise SystemExit(f"{path}: {wanted} frames are needed, found {len(rgb)}")
            out += list(rgb[np.linspace(0, len(rgb) - 1, wanted).astype(int)])
    return out


class Feeds(CalibrationDataReader):
    def __init__(self, feeds: Iterator[dict[str, np.ndarray]]):
        self.feeds = feeds

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def widen(model: onnx.ModelProto) -> None:
    """Makes float32 weights of those that are stored as float16 with a Cast."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    for node in [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in stored]:
        tensor = stored[node.input[0]]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
        model.graph.node.remove(node)


def quantise(plan: Plan, exact: Path, frames: list[np.ndarray], out: Path) -> None:
    """Writes the 8-bit file."""
    wide = out.with_name("wide.onnx")
    model = onnx.load(exact)
    widen(model)
    onnx.save(model, wide)
    nodes = [node.name for node in model.graph.node if node.op_type in OPERATORS and plan.nodes.match(node.name)]
    quantize_static(
        wide,
        out,
        Feeds(plan.feeds(rgb) for rgb in frames),
        quant_format=QuantFormat.QDQ,
        nodes_to_quantize=nodes,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # Seven bits: processors without VNNI or the like add two products in 16 bits, which eight would overflow.
        reduce_range=True,
        extra_options={"CalibMovingAverage": True},
    )
    model = onnx.load(out)
    scales = {name for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear") for name in node.input}
    narrow_weights(model, keep=scales)
    model.producer_name, model.producer_version = "scenelex", ""
    onnx.checker.check_model(model)
    out.write_bytes(model.SerializeToString(deterministic=True))


def compare(plan: Plan, exact: Path, ours: Path, frames: list[np.ndarray]) -> tuple[float, list[float]]:
    """Mean difference over pictures, and the median milliseconds of either file, in turns on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]) for path in (exact, ours)]
    differences, times = [], []
    for feed in map(plan.feeds, frames):
        clock, outputs = [time.perf_counter()], []
        for session in sessions:
            outputs.append(session.run(None, feed))
            clock.append(time.perf_counter())
        differences.append(plan.difference(*outputs))
        times.append(np.diff(clock) * 1e3)
    return float(np.mean(differences)), list(np.median(times, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the detector or the segmenter")
    parser.add_argument("--frames", type=Path, required=True, help="folder of training shards (.npz)")
    args = parser.parse_args()
    plan = image_encoder(args.bundle) if (args.bundle / "image_encoder.onnx").is_file() else detector(args.bundle)
    frames = pictures(args.frames, FRAMES)
    checked, ranged = frames[::CHECKED], [rgb for number, rgb in enumerate(frames) if number % CHECKED]
    exact, name = args.bundle / f"{plan.role}.onnx", f"{plan.role}_int8.onnx"
    with tempfile.TemporaryDirectory(prefix=".quantise-", dir=args.bundle) as folder:
        written = Path(folder) / name
        quantise(plan, exact, ranged, written)
        found, milliseconds = compare(plan, exact, written, checked)
        print(f"mean difference to {exact.name}: {found:.4f}; {milliseconds[0]:.1f} ms for it, {milliseconds[1]:.1f} ms for {name}")
        if not found <= plan.largest:
            raise SystemExit(f"the 8-bit file does not agree with {exact.name}: expected {plan.largest} at most; {args.bundle} is left as it was")
        path = written.replace(args.bundle / name)
    name_cpu_files(args.bundle, {plan.role: path})
    print(f"{name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
