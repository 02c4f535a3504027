#!/usr/bin/env python3
"""Turn detector weights into the bundle's `detector.onnx` and compare it with PyTorch.

Weights are stored as float16 and widened by a Cast when the file is loaded; inputs,
outputs and arithmetic are float32. With --random an untrained network is written, which
has the right contract but finds nothing. The file takes its place in the bundle, and its
sha256 in bundle.toml, only when it agrees with PyTorch.

    python models/sim/train/export_detector.py --weights runs/detector_ema.pt --out models/sim/detector
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from bundle_manifest import pin, sha256  # noqa: E402
from detector_model import HEIGHT, WIDTH, Detector, ExportedDetector, fuse_norms  # noqa: E402

INPUTS = ["pixel_values", "pixel_mask", "input_ids", "attention_mask", "text_features"]
OUTPUTS = ["logits", "pred_boxes"]
# Largest difference of logits and boxes. Both sides have the same rounded weights, so what differs is the order of float32
# arithmetic: up to 5.8e-4 with trained weights, in a logit of 300 queries by 256 columns.
TOLERANCE = 1e-3
SURE = 7.0  # logits above this (0.999) are taken for this: float32 next to 1 is too coarse to tell them apart


def load_weights(path: Path | None) -> Detector:
    """A detector in eval mode with the given EMA weights, or a random one."""
    torch.manual_seed(0)
    detector = Detector()
    if path is None:  # spread the scores, so that the ranking of the queries is well defined
        with torch.no_grad():
            detector.to_thing.weight.mul_(3000)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        detector.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state["ema"].items()})
    return detector.eval()


def example(batch: int, tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random but well-formed inputs: letterboxed image, phrases of one to three tokens."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, HEIGHT, WIDTH, dtype=torch.int64)
    mask[:, HEIGHT - 8 :] = 0
    ids = torch.randint(2000, 20000, (batch, tokens), generator=g)
    ids[:, 0] = 101
    ids[:, 3::3] = 1012
    ids[:, -1] = 102
    attention = torch.ones_like(ids)
    if batch > 1:
        ids[1, tokens - 2 :] = 0
        ids[1, tokens - 3] = 102
        attention[1, tokens - 2 :] = 0
    return {
        "pixel_values": torch.randn(batch, 3, HEIGHT, WIDTH, generator=g) * mask[:, None],
        "pixel_mask": mask,
        "input_ids": ids,
        "attention_mask": attention,
        "text_features": torch.randn(batch, tokens, 384, generator=g),
    }


def narrow_weights(model: onnx.ModelProto, smallest: int = 256, keep: Collection[str] = ()) -> None:
    """Store float32 initializers of at least `smallest` values as float16 plus a Cast, those in `keep` as they are."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < smallest or tensor.name in keep:
            continue
        value = numpy_helper.to_array(tensor)
        if np.abs(value).max() > 6e4:
            raise SystemExit(f"{tensor.name} does not fit float16")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), f"{name}.f16"))
        casts.append(helper.make_node("Cast", [f"{name}.f16"], [name], name=f"{name}.widen", to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)


def export(detector: Detector, path: Path) -> ExportedDetector:
    """Write the ONNX file; returns the PyTorch module it was traced from, with the rounded weights."""
    wrapped = ExportedDetector(fuse_norms(detector)).eval()
    with torch.no_grad():
        for p in (*wrapped.parameters(), *wrapped.net.text.buffers()):
            if p.numel() >= 256:
                p.copy_(p.half().float())
    feed = example(2, 11)
    axes = {n: {0: "b"} for n in (*INPUTS, *OUTPUTS)}
    for n in INPUTS[2:]:
        axes[n][1] = "T"
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(
            wrapped,
            tuple(feed[n] for n in INPUTS),
            str(path),
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    model = onnx.load(path)
    fix_output_shapes(model)
    narrow_weights(model)
    model.producer_name, model.producer_version, model.doc_string = "scenelex", "", ""
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return wrapped


def fix_output_shapes(model: onnx.ModelProto) -> None:
    """State the static parts of the output shapes, which tracing leaves symbolic."""
    for value in model.graph.output:
        last = 256 if value.name == "logits" else 4
        dims = value.type.tensor_type.shape.dim
        for dim, size in ((dims[1], 300), (dims[2], last)):
            dim.ClearField("dim_param")
            dim.dim_value = size


def difference(wrapped: ExportedDetector, path: Path) -> float:
    """Largest absolute difference between ONNX Runtime and PyTorch over several batch and text sizes."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences = []
    for batch, tokens, seed in ((1, 5, 1), (1, 256, 2), (2, 40, 3)):
        feed = example(batch, tokens, seed)
        with torch.no_grad():
            expected = [v.numpy() for v in wrapped(*(feed[n] for n in INPUTS))]
        got = session.run(OUTPUTS, {k: v.numpy() for k, v in feed.items()})
        for (el, eb), (gl, gb) in zip(zip(*expected), zip(*got)):
            differences.append(query_difference(el, eb, gl, gb))
    return float(np.max(differences))  # not Python's max, which loses a NaN


def query_difference(el: np.ndarray, eb: np.ndarray, gl: np.ndarray, gb: np.ndarray) -> float:
    """Largest difference of logits and boxes of one image between a query and the one most like it on the other side.

    Queries with almost equal scores may swap places, and those at the end of the ranking may
    be replaced by their equals, so the last twentieth of either side need have no like.
    """
    if not np.array_equal(np.isinf(el), np.isinf(gl)):
        raise SystemExit("masked columns differ")
    el, gl = (np.where(np.isinf(v), 0, np.minimum(v, SURE)) for v in (el, gl))
    apart = np.stack([np.maximum(np.abs(gb - box).max(1), np.abs(gl - logits).max(1)) for logits, box in zip(el, eb)])
    kept = len(apart) * 19 // 20
    return float(np.maximum(apart[:kept].min(1).max(), apart[:, :kept].min(0).max()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, help="EMA weights written by detector_train.py")
    source.add_argument("--random", action="store_true", help="an untrained network")
    parser.add_argument("--out", type=Path, default=HERE.parent / "detector", help="bundle folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=args.out) as folder:
        written = Path(folder) / "detector.onnx"
        wrapped = export(load_weights(args.weights), written)
        worst = difference(wrapped, written)
        print(f"largest difference between ONNX Runtime and PyTorch: {worst:.2e}")
        if not worst <= TOLERANCE:
            raise SystemExit(f"the exported file does not agree with PyTorch: expected {TOLERANCE:.0e} at most; {args.out} is left as it was")
        path = written.replace(args.out / "detector.onnx")
    pin(args.out, "detector")
    print(f"detector.onnx: {path.stat().st_size} bytes, sha256 {sha256(path)}; 8-bit integers: quantise.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
