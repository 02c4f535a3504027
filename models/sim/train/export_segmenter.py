"""Writes the segmenter bundle: ``image_encoder.onnx``, ``mask_decoder.onnx``, for processors ``mask_decoder_window.onnx`` (see
``segmenter_window``), and ``bundle.toml``.

    python export_segmenter.py --checkpoint runs/segmenter/segmenter_ema.pt --out ../segmenter

The files are opset 17 with float32 inputs and outputs. Large initialisers are stored as float16 followed by a Cast, which
halves the files; ONNX Runtime folds the casts when it loads them. The files are written into a folder beside the bundle's,
compared with PyTorch, and take their place in the bundle only when they agree.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from bundle_manifest import entry, name_cpu_files
from segmenter_model import ConvNorm, ExportedDecoder, Segmenter, SegmenterConfig
from segmenter_window import windowed

OPSET = 17
MULTIPLE = 16  # of the input's sides
HALF_FROM = 64  # initialisers with at least this many elements are stored as float16
FILES = ("image_encoder", "mask_decoder")
WINDOW = "mask_decoder_window"  # what processors run in place of the second
DECODER_INPUTS = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"]
DECODER_OUTPUTS = ["masks", "iou_predictions", "low_res_masks"]
# Largest difference of an output, as a share of its largest value or of 1. Both sides have the same weights, so what differs is
# the order of float32 arithmetic: up to 4e-6 with trained weights. The predicted IoU counts pixels above thresholds, so that a
# single one on the other side of the line moves it.
TOLERANCE = 1e-4
COUNTED = 5e-3


def load(checkpoint: Path | None, size: int | None = None) -> Segmenter:
    """The model of a checkpoint, or a random one, in evaluation mode for inputs of `size`, as the files will have it: batch
    normalisations folded into the convolutions, what is stored as float16 rounded."""
    if checkpoint is None:
        torch.manual_seed(0)
        model = Segmenter(SegmenterConfig())
    else:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model = Segmenter(SegmenterConfig(**stored["config"]))
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored["model"].items()})
    if size:
        model.resize(size)
    model.eval()
    for block in model.modules():
        if isinstance(block, ConvNorm):
            block[0], block[1] = torch.nn.utils.fuse_conv_bn_eval(block[0], block[1]), torch.nn.Identity()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.numel() >= HALF_FROM:
                tensor.copy_(tensor.half().float())
    return model


def store_half(model: onnx.ModelProto) -> None:
    """Replaces float32 initialisers by float16 ones and a Cast, in place."""
    graph = model.graph
    casts = []
    for index, tensor in enumerate(list(graph.initializer)):
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < HALF_FROM:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > 6e4:
            continue
        name = tensor.name
        half = numpy_helper.from_array(values.astype(np.float16), f"{name}_f16")
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
        casts.append(helper.make_node("Cast", [half.name], [name], name=f"widen_{index}", to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)


def constants_to_initialisers(model: onnx.ModelProto) -> None:
    """Moves large Constant nodes to initialisers, so that they can be stored as float16 too."""
    graph = model.graph
    for node in list(graph.node):
        if node.op_type != "Constant":
            continue
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if value is None or value.data_type != TensorProto.FLOAT or int(np.prod(value.dims)) < HALF_FROM:
            continue
        tensor = numpy_helper.from_array(numpy_helper.to_array(value), node.output[0])
        graph.node.remove(node)
        graph.initializer.append(tensor)


def write(module: torch.nn.Module, inputs: tuple, path: Path, names: list[str], outputs: list[str], axes: dict) -> None:
    torch.onnx.export(
        module,
        inputs,
        str(path),
        input_names=names,
        output_names=outputs,
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(str(path))
    constants_to_initialisers(model)
    store_half(model)
    model.producer_name = "scenelex"
    model.producer_version = ""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def example_prompt(embeddings: torch.Tensor, prompts: int, points: int, orig: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Decoder inputs after the embeddings: a box, foreground, background and padding points."""
    generator = torch.Generator().manual_seed(3)
    rows, columns = embeddings.shape[-2:]
    coords = torch.rand(prompts, points, 2, generator=generator) * 0.9 * 8 * torch.tensor([columns, rows])
    labels = torch.ones(prompts, points)
    labels[:, 0], labels[:, 1] = 2.0, 3.0
    coords[:, 1] = coords[:, 0] + 40.0
    if points > 3:
        labels[:, 2], labels[:, 3] = 0.0, -1.0
    mask = torch.randn(1, 1, 4 * rows, 4 * columns, generator=generator) * 4
    return coords, labels, mask, torch.tensor([1.0]), torch.tensor([float(orig[0]), float(orig[1])])


def export(model: Segmenter, out: Path) -> None:
    """Writes the two ONNX files into `out`."""
    cfg = model.cfg
    out.mkdir(parents=True, exist_ok=True)
    pixels = torch.randn(1, 3, cfg.size, cfg.size)
    with torch.no_grad():
        embeddings = model.image_encoder(pixels)
        write(
            model.image_encoder,
            (pixels,),
            out / "image_encoder.onnx",
            ["pixel_values"],
            ["image_embeddings"],
            {
                "pixel_values": {0: "batch", 2: "height", 3: "width"},
                "image_embeddings": {0: "batch", 2: "rows", 3: "columns"},
            },
        )
        for name, decoder in ((FILES[1], model), (WINDOW, windowed(model))):
            write(
                ExportedDecoder(decoder).eval(),
                (embeddings, *example_prompt(embeddings, 2, 5, (360, 480))),
                out / f"{name}.onnx",
                DECODER_INPUTS,
                DECODER_OUTPUTS,
                {
                    "image_embeddings": {2: "rows", 3: "columns"},
                    "point_coords": {0: "prompts", 1: "points"},
                    "point_labels": {0: "prompts", 1: "points"},
                    "mask_input": {0: "mask_prompts", 2: "mask_height", 3: "mask_width"},
                    "has_mask_input": {0: "mask_prompts"},
                    "masks": {0: "prompts", 2: "height", 3: "width"},
                    "iou_predictions": {0: "prompts"},
                    "low_res_masks": {0: "prompts", 2: "mask_height", 3: "mask_width"},
                },
            )


def write_bundle(out: Path, size: int) -> None:
    """Writes `bundle.toml` for the files that are in `out`, for pictures whose longer side becomes `size`."""
    lines = [
        'name = "scenelex-sim-segmenter"',
        'kind = "sam"',
        'licence = "Apache-2.0"',
        'source = "trained by models/sim/train/segmenter_train.py"',
        'description = "Small promptable segmenter with SAM\'s interface, trained on simulated and procedural images only."',
        "",
        "[files]",
    ]
    lines += [entry(key, out / f"{key}.onnx").rstrip() for key in FILES]
    lines += [
        "",
        "# The files take less than SAM's square. Mean and std are SAM's 123.675, 116.28, 103.53 and 58.395, 57.12, 57.375 on the",
        "# 0..1 scale.",
        "[preprocessing]",
        'resize = "longest_side"',
        f"longest = {size}",
        f"multiple = {MULTIPLE}",
        "mean = [0.485, 0.456, 0.406]",
        "std = [0.229, 0.224, 0.225]",
        "",
    ]
    (out / "bundle.toml").write_text("\n".join(lines))
    name_cpu_files(out, {FILES[1]: out / f"{WINDOW}.onnx"})


def session(out: Path, name: str):
    """A file of `out` in ONNX Runtime, on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(out / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])


def verify(model: Segmenter, out: Path) -> dict[str, float]:
    """Largest differences between PyTorch (weights as stored) and ONNX Runtime, over several shapes of image and prompt."""
    encoder = session(out, FILES[0])
    pairs = [(model, session(out, FILES[1]), ""), (windowed(model), session(out, WINDOW), ", in windows")]
    worst: dict[str, float] = {}

    def compare(name: str, ours: torch.Tensor, theirs: np.ndarray) -> None:
        assert tuple(ours.shape) == theirs.shape, f"{name}: {tuple(ours.shape)} against {theirs.shape}"
        scale = max(1.0, float(ours.abs().max()))
        # Not Python's max, which loses a NaN.
        worst[name] = float(np.maximum(worst.get(name, 0.0), np.abs(ours.numpy() - theirs).max() / scale))

    cfg = model.cfg
    torch.manual_seed(1)
    with torch.no_grad():
        upright = (cfg.size, MULTIPLE * (cfg.size * 127 // 333 // MULTIPLE + 1))
        flat = (MULTIPLE * (cfg.size * 3 // 4 // MULTIPLE + 1), cfg.size)
        small, strip = (cfg.size // 2 // MULTIPLE * MULTIPLE,) * 2, (MULTIPLE, cfg.size)
        for batch, shape, prompts, points, orig in (
            (2, flat, 1, 2, (480, 640)),
            (1, upright, 3, 7, (333, 127)),
            (1, small, 2, 3, (600, 600)),
            (1, strip, 2, 4, (20, 700)),
            (1, (cfg.size, cfg.size), 8, 22, (375, 500)),
        ):
            pixels = torch.randn(batch, 3, *shape)
            embeddings = model.image_encoder(pixels)
            compare("image_embeddings", embeddings, encoder.run(None, {"pixel_values": pixels.numpy()})[0])
            rest = example_prompt(embeddings, prompts, points, orig)
            feeds = dict(zip(DECODER_INPUTS, [embeddings[:1].numpy()] + [t.numpy() for t in rest]))
            for flag in (1.0, 0.0):
                feeds["has_mask_input"] = np.array([flag], np.float32)
                flags = torch.tensor([flag])
                for net, file, where in pairs:
                    ours = ExportedDecoder(net).eval()(embeddings[:1], *rest[:3], flags, rest[4])
                    for name, left, right in zip(DECODER_OUTPUTS, ours, file.run(None, feeds)):
                        compare(name + where, left, right)
        # A mask for every prompt, and padding points, which must change nothing.
        coords, labels, _, _, orig = example_prompt(embeddings, 3, 6, (300, 400))
        masks = torch.randn(3, 1, cfg.size // 2, cfg.size // 2)
        flags = torch.tensor([1.0, 0.0, 1.0])
        feeds = {"image_embeddings": embeddings[:1], "mask_input": masks, "has_mask_input": flags, "orig_im_size": orig}
        feeds["point_coords"] = torch.cat([coords, torch.full((3, 9, 2), 7.0)], 1)
        feeds["point_labels"] = torch.cat([labels, -torch.ones(3, 9)], 1)
        feeds = {k: v.numpy() for k, v in feeds.items()}
        for net, file, where in pairs:
            low, _ = net.decode(embeddings[:1], coords, labels, masks, flags)
            compare("low_res_masks, padded" + where, low, file.run(["low_res_masks"], feeds)[0])
            shape = file.run(["masks"], feeds | {"orig_im_size": np.ones(2, np.float32)})[0].shape
            assert shape == (3, 4, 1, 1), "an orig_im_size of (1, 1) must skip the upscaling"
    return worst


def decoder_times(model: Segmenter, out: Path, boxes: int, part: float) -> list[float]:
    """Milliseconds, medians, that either decoder takes for so many boxes whose sides are a `part` of the picture's longer one."""
    rows, columns = 2 * (model.cfg.size * 3 // 4 // MULTIPLE + 1), model.cfg.size // 8
    generator = np.random.default_rng(5)
    start = generator.uniform(0, 1 - part, (boxes, 1, 2)) * [8 * columns, 8 * rows]
    feeds = dict(
        image_embeddings=generator.normal(size=(1, model.cfg.embed, rows, columns)),
        point_coords=np.concatenate([start, start + part * model.cfg.size], 1),
        point_labels=np.tile([2.0, 3.0], (boxes, 1)),
        mask_input=np.zeros((1, 1, 4 * rows, 4 * columns)),
        has_mask_input=np.zeros(1),
        orig_im_size=np.ones(2),
    )
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    decoders, times = [session(out, name) for name in (FILES[1], WINDOW)], []
    for _ in range(30):
        for decoder in decoders:
            began = time.perf_counter()
            decoder.run(DECODER_OUTPUTS[1:], feeds)
            times.append((time.perf_counter() - began) * 1e3)
    return [float(np.median(times[which::2])) for which in (0, 1)]


def tolerance(name: str) -> float:
    """The largest difference that `verify` may find in this output."""
    return COUNTED if name.startswith("iou_predictions") else TOLERANCE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="weights to export; random ones where absent")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "segmenter")
    parser.add_argument("--size", type=int, help="input size, a multiple of 16 (default: the checkpoint's)")
    args = parser.parse_args()
    model = load(args.checkpoint, args.size)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=args.out) as folder:
        written = Path(folder)
        export(model, written)
        worst = verify(model, written)
        for name, value in worst.items():
            print(f"{name}: largest relative difference to PyTorch {value:.2e}")
        if wrong := [f"{name} {tolerance(name):.0e}" for name, value in worst.items() if not value <= tolerance(name)]:
            raise SystemExit(f"the exported files do not agree with PyTorch: expected {', '.join(wrong)} at most; {args.out} is left as it was")
        for boxes in (1, 2, 4):
            whole, window = decoder_times(model, written, boxes, 1 / 6)
            print(f"mask decoder, {boxes} boxes of a sixth of the picture's side: {whole:.1f} ms, in windows {window:.1f} ms")
        for key in (*FILES, WINDOW):
            (written / f"{key}.onnx").replace(args.out / f"{key}.onnx")
    write_bundle(args.out, model.cfg.size)
    for file in sorted(args.out.glob("*.onnx")):
        print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB")



if __name__ == "__main__":
    main()
