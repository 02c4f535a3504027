"""Makes the tiny bundles in tests/golden/tiny/: a few kilobytes of ONNX that follow the contracts of the real models
and compute something whose right answer is known, so that tests can tell a wired pipeline from a miswired one.

detector    "sees" colours: query (i, j) of a 4 x 3 grid has the box of its cell, and its logit for a token is high where
            the mean colour of the cell points the same way as the token's feature. The text encoder knows the words
            red, green, blue and yellow (one-hot in three channels); every other word is a zero vector.
segmenter   the mask decoder's logit is positive inside the box prompt (labels 2 and 3), or within 12 px of the first
            foreground point where there is no box; masks 1..3 are smaller and carry other predicted IoUs.

Run:  python tests/golden/make_tiny_models.py     (needs onnx and numpy)
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent / "tiny"
WIDTH, HEIGHT = 128, 96  # of the detector's input
COLUMNS, ROWS = 4, 3
SIDE, LOW, CELLS, CHANNELS = 128, 32, 8, 4  # of the segmenter
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
OPSET = [helper.make_opsetid("", 17)]

SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
WORDS = {
    "red": 2417, "green": 2665, "blue": 2630, "yellow": 3756, "mug": 14757, "a": 1037, "ball": 3608,
    "arm": 2849, "##chair": 25112, "chair": 3242, "box": 3482, "traffic": 4026, "cone": 13171, "cup": 2452,
}
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (0.7, 0.7, 0)}


def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def save(path: Path, nodes, inputs, outputs, constants) -> str:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=8, producer_name="make_tiny_models")
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensor(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def tokenizer() -> str:
    vocabulary = SPECIAL | WORDS
    special = [t for t in SPECIAL if t.startswith("[")]
    content = {
        "version": "1.0",
        # Published files often truncate and pad; the loader has to switch both off.
        "truncation": {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": [
            {"id": SPECIAL[t], "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
            for t in special
        ],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [SPECIAL[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    }
    path = ROOT / "detector" / "tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def text_encoder(path: Path = ROOT / "detector" / "text_encoder.onnx", *, size: int = 3, tokens: int | str = "T") -> str:
    """Feature of a token: sum over colour words of (id == word) * colour, and zeros up to `size`."""
    words = np.array([WORDS[w] for w in COLOURS], np.int64)
    colours = np.pad(np.array(list(COLOURS.values()), np.float32), ((0, 0), (0, size - 3)))
    nodes = [
        helper.make_node("Unsqueeze", ["input_ids", "last"], ["ids"]),
        helper.make_node("Equal", ["ids", "words"], ["is_word"]),
        helper.make_node("Cast", ["is_word"], ["one_hot"], to=FLOAT),
        helper.make_node("MatMul", ["one_hot", "colours"], ["raw"]),
        # Mask and types take part with no effect, so that the graph has the contract's inputs.
        helper.make_node("Add", ["attention_mask", "token_type_ids"], ["both"]),
        helper.make_node("Mul", ["both", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "last"], ["nothing3"]),
        helper.make_node("Cast", ["nothing3"], ["nothing_f"], to=FLOAT),
        helper.make_node("Add", ["raw", "nothing_f"], ["text_features"]),
    ]
    inputs = [tensor(n, INT64, ["b", tokens]) for n in ("input_ids", "attention_mask", "token_type_ids")]
    constants = [constant("last", np.array([-1], np.int64)), constant("words", words),
                 constant("zero", np.array(0, np.int64)), constant("colours", colours)]
    return save(path, nodes, inputs, [tensor("text_features", FLOAT, ["b", tokens, size])], constants)


def detector(
    path: Path,
    *,
    fused: bool = False,
    logits: str = "logits",
    width: int | str = WIDTH,
    images: int | str = "b",
    masks: int | str = "b",
) -> str:
    queries = COLUMNS * ROWS
    boxes = np.array(
        [[(i + 0.5) / COLUMNS, (j + 0.5) / ROWS, 1 / COLUMNS, 1 / ROWS] for j in range(ROWS) for i in range(COLUMNS)],
        np.float32,
    )[None]
    nodes = [
        # Mean colour per cell, back on the 0..1 scale (mean 0.5, std 0.25 in bundle.toml).
        helper.make_node("AveragePool", ["pixel_values"], ["cells"], kernel_shape=[HEIGHT // ROWS, WIDTH // COLUMNS],
                         strides=[HEIGHT // ROWS, WIDTH // COLUMNS]),
        helper.make_node("Mul", ["cells", "std"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["rgb"]),
        helper.make_node("Reshape", ["rgb", "flat"], ["rgb_flat"]),
        helper.make_node("Transpose", ["rgb_flat"], ["colour"], perm=[0, 2, 1]),
        # score = 16 * (colour . feature) - 8 * |feature|^2 - 4, which is 4 for a pure match and negative otherwise.
        helper.make_node("Transpose", ["features"], ["features_t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["colour", "features_t"], ["dot"]),
        helper.make_node("Mul", ["features", "features"], ["squared"]),
        helper.make_node("ReduceSum", ["squared", "last"], ["norm"], keepdims=1),
        helper.make_node("Transpose", ["norm"], ["norm_t"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["dot", "sixteen"], ["strong"]),
        helper.make_node("Mul", ["norm_t", "eight"], ["bias"]),
        helper.make_node("Sub", ["strong", "bias"], ["centred"]),
        helper.make_node("Sub", ["centred", "four"], ["raw"]),
        # Columns beyond T are -inf, as in Grounding DINO.
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["tokens"]),
        helper.make_node("Sub", ["columns", "tokens"], ["missing"]),
        helper.make_node("Concat", ["pads_before", "missing"], ["pads"], axis=0),
        helper.make_node("Pad", ["raw", "pads", "minus_infinity"], [logits]),
        # The same boxes for every image.
        helper.make_node("Shape", ["colour"], ["colour_shape"]),
        helper.make_node("Gather", ["colour_shape", "zero"], ["images"]),
        helper.make_node("Concat", ["images", "boxes_of_one"], ["boxes_of_all"], axis=0),
        helper.make_node("Expand", ["boxes", "boxes_of_all"], ["pred_boxes"]),
    ]
    if fused:
        words = np.array([WORDS[w] for w in COLOURS], np.int64)
        nodes = [
            helper.make_node("Unsqueeze", ["input_ids", "last"], ["ids"]),
            helper.make_node("Equal", ["ids", "words"], ["is_word"]),
            helper.make_node("Cast", ["is_word"], ["one_hot"], to=FLOAT),
            helper.make_node("MatMul", ["one_hot", "colours"], ["features"]),
        ] + nodes
    else:
        nodes = [helper.make_node("Identity", ["text_features"], ["features"])] + nodes
    inputs = [
        tensor("pixel_values", FLOAT, [images, 3, HEIGHT, width]),
        tensor("pixel_mask", INT64, [masks, HEIGHT, width]),
        tensor("input_ids", INT64, ["b", "T"]),
        tensor("attention_mask", INT64, ["b", "T"]),
        tensor("token_type_ids", INT64, ["b", "T"]) if fused else tensor("text_features", FLOAT, ["b", "T", 3]),
    ]
    outputs = [tensor(logits, FLOAT, ["b", queries, 256]), tensor("pred_boxes", FLOAT, ["b", queries, 4])]
    constants = [
        constant("std", np.array(0.25, np.float32)), constant("mean", np.array(0.5, np.float32)),
        constant("flat", np.array([0, 3, queries], np.int64)), constant("last", np.array([-1], np.int64)),
        constant("zero", np.array([0], np.int64)), constant("one", np.array([1], np.int64)),
        constant("boxes_of_one", np.array([queries, 4], np.int64)), constant("columns", np.array([256], np.int64)),
        constant("sixteen", np.array(16, np.float32)), constant("eight", np.array(8, np.float32)),
        constant("four", np.array(4, np.float32)), constant("pads_before", np.zeros(5, np.int64)),
        constant("minus_infinity", np.array(-np.inf, np.float32)), constant("boxes", boxes),
    ]
    if fused:
        constants += [constant("words", words), constant("colours", np.array(list(COLOURS.values()), np.float32))]
    return save(path, nodes, inputs, outputs, constants)


def image_encoder(
    path: Path = ROOT / "segmenter" / "image_encoder.onnx",
    *,
    pixels: str = "pixel_values",
    sides: tuple[int | str, int | str] = (SIDE, SIDE),
    embedding: tuple[int | str, ...] = (CHANNELS, CELLS, CELLS),
    ones: int = 1,
) -> str:
    """Embedding: pooled pixels in three channels, ones in the others."""
    nodes = [
        helper.make_node("AveragePool", [pixels], ["pooled"], kernel_shape=[SIDE // CELLS] * 2,
                         strides=[SIDE // CELLS] * 2),
        helper.make_node("Pad", ["pooled", "pads", "one"], ["image_embeddings"]),
    ]
    constants = [constant("pads", np.array([0, 0, 0, 0, 0, ones, 0, 0], np.int64)), constant("one", np.array(1, np.float32))]
    return save(path, nodes, [tensor(pixels, FLOAT, ["b", 3, *sides])],
                [tensor("image_embeddings", FLOAT, ["b", *embedding])], constants)


def mask_decoder(
    path: Path = ROOT / "segmenter" / "mask_decoder.onnx", *, masks: int = 4, points: int | str = "N", square: bool = True
) -> str:
    """Distance to the edge of the prompt's region, in pixels of the input; positive inside.

    With a box (a point labelled 2) the region is the box, otherwise a square of 12 px around the first foreground point.
    Masks 1..3 are 2, 4 and 6 px smaller on each side. Predicted IoUs: 0.9 minus 0.001 per foreground point for mask 0;
    0.5, 0.8 and 0.6 for the others. Not `square`: as many rows and columns as `mask_input` has.
    """
    axis = (np.arange(LOW, dtype=np.float32) + 0.5) * (SIDE / LOW)
    nodes = [
        # The embedding takes part through its channel of ones.
        helper.make_node("Gather", ["image_embeddings", "three"], ["ones"], axis=1),
        helper.make_node("ReduceMean", ["ones"], ["unit"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["point_coords", "unit"], ["coords"]),
    ]

    def pick(kind: str, label: float) -> None:
        """Mean of the points with a label, and whether there is one."""
        nodes.extend([
            helper.make_node("Equal", ["point_labels", f"label_{kind}"], [f"{kind}_is"]),
            helper.make_node("Cast", [f"{kind}_is"], [f"{kind}_one"], to=FLOAT),
            helper.make_node("ReduceSum", [f"{kind}_one", "axis1"], [f"{kind}_count"], keepdims=1),
            helper.make_node("Unsqueeze", [f"{kind}_one", "last"], [f"{kind}_weight"]),
            helper.make_node("Mul", ["coords", f"{kind}_weight"], [f"{kind}_masked"]),
            helper.make_node("ReduceSum", [f"{kind}_masked", "axis1"], [f"{kind}_sum"], keepdims=0),
            helper.make_node("Max", [f"{kind}_count", "unit_floor"], [f"{kind}_divisor"]),
            helper.make_node("Div", [f"{kind}_sum", f"{kind}_divisor"], [f"{kind}_point"]),
        ])

    pick("fg", 1.0)
    pick("low", 2.0)
    pick("high", 3.0)
    nodes += [
        helper.make_node("Min", ["low_count", "unit_floor"], ["has_box"]),
        helper.make_node("Sub", ["unit_floor", "has_box"], ["no_box"]),
        helper.make_node("Sub", ["fg_point", "radius"], ["fg_low"]),
        helper.make_node("Add", ["fg_point", "radius"], ["fg_high"]),
    ]
    for end in ("low", "high"):
        nodes += [
            helper.make_node("Mul", [f"{end}_point", "has_box"], [f"{end}_a"]),
            helper.make_node("Mul", [f"fg_{end}", "no_box"], [f"{end}_b"]),
            helper.make_node("Add", [f"{end}_a", f"{end}_b"], [f"region_{end}"]),
            helper.make_node("Split", [f"region_{end}"], [f"{end}_x", f"{end}_y"], axis=1),
        ]
    columns, rows = ("axis", "axis") if square else ("columns", "rows")
    if not square:
        nodes += [helper.make_node("Shape", ["mask_input"], ["sides"])]
        for name, at in ((rows, "two1"), (columns, "last")):
            nodes += [
                helper.make_node("Gather", ["sides", at], [f"{name}_count"]),
                helper.make_node("Slice", ["axis", "zero1", f"{name}_count", "axis1"], [name]),
            ]
    nodes += [  # [B, 1] against [1, LOW]
        helper.make_node("Sub", [columns, "low_x"], ["left"]),
        helper.make_node("Sub", ["high_x", columns], ["right"]),
        helper.make_node("Min", ["left", "right"], ["inside_x"]),
        helper.make_node("Sub", [rows, "low_y"], ["top"]),
        helper.make_node("Sub", ["high_y", rows], ["bottom"]),
        helper.make_node("Min", ["top", "bottom"], ["inside_y"]),
        helper.make_node("Unsqueeze", ["inside_x", "axis1"], ["wide"]),
        helper.make_node("Unsqueeze", ["inside_y", "last"], ["tall"]),
        helper.make_node("Min", ["wide", "tall"], ["inside"]),
        helper.make_node("Unsqueeze", ["inside", "axis1"], ["inside4"]),
        # A mask prompt would add to the logits.
        helper.make_node("Reshape", ["has_mask_input", "to4"], ["has_mask"]),
        helper.make_node("Mul", ["mask_input", "has_mask"], ["prior"]),
        helper.make_node("Add", ["inside4", "prior"], ["prompted"]),
        helper.make_node("Sub", ["prompted", "shrink"], ["low_res_masks"]),
        helper.make_node("Mul", ["fg_count", "per_point"], ["penalty"]),
        helper.make_node("Sub", ["scores", "penalty"], ["iou_predictions"]),
        # masks: nearest upscaling to the image; never fetched by the pipeline.
        helper.make_node("Cast", ["orig_im_size"], ["size_int"], to=INT64),
        helper.make_node("Shape", ["low_res_masks"], ["low_shape"]),
        helper.make_node("Slice", ["low_shape", "zero1", "two1"], ["batch_shape"]),
        helper.make_node("Concat", ["batch_shape", "size_int"], ["sizes"], axis=0),
        helper.make_node("Resize", ["low_res_masks", "", "", "sizes"], ["masks"], mode="nearest"),
    ]
    cells, low = ((CELLS, CELLS), (LOW, LOW)) if square else (("e", "f"), ("h", "w"))
    inputs = [
        tensor("image_embeddings", FLOAT, [1, CHANNELS, *cells]),
        tensor("point_coords", FLOAT, ["B", points, 2]),
        tensor("point_labels", FLOAT, ["B", points]),
        tensor("mask_input", FLOAT, ["b", 1, *low]),
        tensor("has_mask_input", FLOAT, ["b"]),
        tensor("orig_im_size", FLOAT, [2]),
    ]
    outputs = [
        tensor("masks", FLOAT, ["B", masks, "H", "W"]),
        tensor("iou_predictions", FLOAT, ["B", masks]),
        tensor("low_res_masks", FLOAT, ["B", masks, *low]),
    ]
    constants = [
        constant("three", np.array([3], np.int64)), constant("axis1", np.array([1], np.int64)),
        constant("last", np.array([-1], np.int64)), constant("zero1", np.array([0], np.int64)),
        constant("two1", np.array([2], np.int64)), constant("to4", np.array([-1, 1, 1, 1], np.int64)),
        constant("unit_floor", np.array(1, np.float32)), constant("radius", np.array(12, np.float32)),
        constant("label_fg", np.array(1, np.float32)), constant("label_low", np.array(2, np.float32)),
        constant("label_high", np.array(3, np.float32)), constant("axis", axis[None]),
        constant("shrink", np.array([0, 2, 4, 6], np.float32)[:masks].reshape(1, masks, 1, 1)),
        constant("scores", np.array([[0.9, 0.5, 0.8, 0.6]], np.float32)[:, :masks]),
        constant("per_point", np.array([[0.001, 0, 0, 0]], np.float32)[:, :masks]),
    ]
    return save(path, nodes, inputs, outputs, constants)


def branch() -> None:
    """Two outputs; one comes from an If whose branch reads a value from outside."""
    inner = helper.make_graph([helper.make_node("Add", ["outside", "x"], ["then"])], "then_branch", [], [tensor("then", FLOAT, [1])])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["else"])], "else_branch", [], [tensor("else", FLOAT, [1])])
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["outside"]),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=inner, else_branch=other),
        helper.make_node("Neg", ["x"], ["unrelated"]),
    ]
    save(ROOT / "branch.onnx", nodes, [tensor("x", FLOAT, [1]), tensor("yes", TensorProto.BOOL, [])],
         [tensor("chosen", FLOAT, [1]), tensor("unrelated", FLOAT, [1])], [constant("two", np.array([2], np.float32))])


def bundle(folder: str, kind: str, files: dict[str, tuple[str, str]], rest: str) -> None:
    lines = [
        f'name = "tiny-{folder}"', f'kind = "{kind}"', 'licence = "Apache-2.0"',
        'source = "tests/golden/make_tiny_models.py"', 'description = "Computes a known answer; for tests."', "",
        "[files]",
    ]
    lines += [f'{role} = {{ path = "{path}", sha256 = "{digest}" }}' for role, (path, digest) in files.items()]
    lines += ["", "[preprocessing]"]
    (ROOT / folder / "bundle.toml").write_text("\n".join(lines) + "\n" + rest)


def main() -> None:
    pixels = "mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n"
    resize = f'resize = "exact"\nwidth = {WIDTH}\nheight = {HEIGHT}\n'
    text = "\n[text]\nmax_tokens = 16\n\n[thresholds]\nbox = 0.5\ntext = 0.5\nnms_iou = 0.5\n"
    names = tokenizer()
    split = {
        "tokenizer": ("tokenizer.json", names),
        "text_encoder": ("text_encoder.onnx", text_encoder()),
        "detector": ("detector.onnx", detector(ROOT / "detector" / "detector.onnx")),
    }
    bundle("detector", "grounding_dino", split, resize + pixels + text)
    (ROOT / "fused").mkdir(exist_ok=True)
    (ROOT / "fused" / "tokenizer.json").write_bytes((ROOT / "detector" / "tokenizer.json").read_bytes())
    fused = {"tokenizer": ("tokenizer.json", names),
             "detector": ("detector.onnx", detector(ROOT / "fused" / "detector.onnx", fused=True))}
    bundle("fused", "grounding_dino", fused, resize + pixels + text)
    masks = {"image_encoder": ("image_encoder.onnx", image_encoder()), "mask_decoder": ("mask_decoder.onnx", mask_decoder())}
    bundle("segmenter", "sam", masks, pixels)
    branch()
    # Against the contract, or no match for the other files of a bundle; or with what the manifest has to say left open.
    broken = ROOT / "broken"
    detector(broken / "renamed_output.onnx", logits="class_logits")
    detector(broken / "open_width.onnx", width="w")
    detector(broken / "two_images.onnx", images=2)
    detector(broken / "one_mask.onnx", masks=1)
    text_encoder(broken / "wide_features.onnx", size=4)
    text_encoder(broken / "fixed_tokens.onnx", tokens=16)
    image_encoder(broken / "open_sides.onnx", pixels="x", sides=("h", "w"), embedding=("c", "e", "f"))
    image_encoder(broken / "five_channels.onnx", embedding=(5, CELLS, CELLS), ones=2)
    mask_decoder(broken / "three_masks.onnx", masks=3)
    mask_decoder(broken / "fixed_points.onnx", points=5)
    mask_decoder(broken / "open_masks.onnx", square=False)


if __name__ == "__main__":
    main()
