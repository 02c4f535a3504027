#!/usr/bin/env python3
"""Trainable weights out of the shipped ONNX files, for `--init`: training goes on although only ONNX is in the repository.

    python models/sim/train/from_onnx.py detector --frames SHARDS --out /tmp/detector_ema.pt
    python models/sim/train/from_onnx.py segmenter --frames SHARDS --out /tmp/segmenter_ema.pt

The export folds every batch normalisation into the convolution before it. Here each one comes back with the statistics that
the convolution's outputs really have on some training pictures, and with the scale and shift that undo them: the network
computes the same as before, and can be trained. The weights are those of the files, float16, so little is lost; the
optimiser's state is. Ends with an error when a parameter or buffer is not found, or when the outputs differ from those of the
files in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

# Largest difference between the network before and after, in standard deviations of its outputs.
TOLERANCE = 1e-3

class Weights:
    """Constants of an ONNX file, and the nodes that use them."""

    def __init__(self, path: Path):
        graph = onnx.load(path).graph
        self.nodes = list(graph.node)
        self.values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in self.nodes:
            if node.op_type == "Cast" and node.input[0] in self.values:
                self.values[node.output[0]] = self.values[node.input[0]]
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.name == "value":
                    self.values[node.output[0]] = numpy_helper.to_array(attribute.t)

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.values[name].astype(np.float32))

    def constants(self, node) -> list[torch.Tensor]:
        return [self.tensor(name) for name in node.input if name in self.values]


def module_path(node_name: str) -> str:
    """`/net/stem/stem.0/Conv` names the module `net.stem.0`."""
    parts: list[str] = []
    for part in node_name.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)


def fill(net: nn.Module, weights: Weights, prefix: str, path_of=module_path) -> set[str]:
    """Copy what the file has into `net`; the names of the parameters that were found."""
    modules = dict(net.named_modules())
    found: set[str] = set()

    def put(name: str, parameter: torch.Tensor, value: torch.Tensor):
        if value.shape != parameter.shape:
            raise SystemExit(f"{name}: expected {tuple(parameter.shape)}, found {tuple(value.shape)}")
        parameter.data.copy_(value)
        found.add(name)

    for node in weights.nodes:
        path = path_of(node.name).removeprefix(prefix)
        module, constants = modules.get(path), weights.constants(node)
        if module is None or not constants:
            continue
        if node.op_type == "Conv" and isinstance(module, nn.Conv2d):
            put(f"{path}.weight", module.weight, constants[0])
            if module.bias is not None:
                put(f"{path}.bias", module.bias, constants[1])
            elif len(constants) > 1:
                module.folded_bias = constants[1]
        elif node.op_type in ("MatMul", "Gemm") and isinstance(module, nn.Linear):
            put(f"{path}.weight", module.weight, constants[0].T if node.op_type == "MatMul" else constants[0])
            if len(constants) > 1:
                put(f"{path}.bias", module.bias, constants[1])
        elif node.op_type == "LayerNormalization" and isinstance(module, nn.LayerNorm):
            put(f"{path}.weight", module.weight, constants[0])
            put(f"{path}.bias", module.bias, constants[1])
        elif node.op_type == "Mul" and isinstance(module, nn.LayerNorm):
            put(f"{path}.weight", module.weight, constants[0].flatten())
        elif node.op_type == "Add" and isinstance(module, nn.Linear | nn.LayerNorm) and constants[0].numel() == module.bias.numel():
            put(f"{path}.bias", module.bias, constants[0].flatten())
    own = dict(net.named_parameters()) | dict(net.named_buffers())
    for name in weights.values:
        key = name.removeprefix(prefix)
        if key in own and own[key].is_floating_point() and own[key].shape == weights.values[name].shape:
            put(key, own[key], weights.tensor(name))
    return found


def folded(net: nn.Module, kind: type) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    pairs = [(block[0], block[1]) for block in net.modules() if isinstance(block, kind)]
    if bare := [conv for conv, _ in pairs if not hasattr(conv, "folded_bias")]:
        raise SystemExit(f"{len(bare)} of {len(pairs)} convolutions were not found in the file")
    return pairs


def unfold(net: nn.Module, pairs, run, probe) -> None:
    """Give every normalisation real statistics. `run()` shows training pictures, `probe()` gives outputs to compare."""
    for conv, norm in pairs:  # first as they are folded: no normalisation but the bias
        norm.weight.data.fill_((1 + norm.eps) ** 0.5)
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0)
        norm.bias.data.copy_(conv.folded_bias)
    net.eval()
    sums: dict[nn.Module, list] = {}

    def gather(conv, _, output):
        output = output.detach().double()
        count, first, second = sums.get(conv, (0, 0, 0))
        count += output.numel() / output.shape[1]
        sums[conv] = (count, first + output.sum((0, 2, 3)), second + output.pow(2).sum((0, 2, 3)))

    with torch.no_grad():
        before = probe()
        hooks = [conv.register_forward_hook(gather) for conv, _ in pairs]
        run()
        for hook in hooks:
            hook.remove()
        for conv, norm in pairs:
            count, first, second = sums[conv]
            mean = first / count
            variance = (second / count - mean**2).clamp(min=1e-8)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.data.copy_((variance + norm.eps).sqrt())
            norm.bias.data.copy_(conv.folded_bias + mean.float())
        worst = float(np.max([(a - b).abs().max() / a.std() for a, b in zip(before, probe(), strict=True)]))
    print(f"{len(pairs)} normalisations restored; outputs differ by {worst:.1e} standard deviations at most")
    if not worst < TOLERANCE:
        raise SystemExit(f"more than {TOLERANCE}: the file is of another network")


def complain(net: nn.Module, found: set[str]) -> None:
    """Ends with an error where the file had not all of `net`'s state but the normalisations, which are made anew."""
    norms = {f"{name}.{part}" for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d) for part in module.state_dict()}
    if missing := [name for name in net.state_dict() if name not in found | norms]:
        raise SystemExit(f"not found in the file: {', '.join(missing)}")


def agree(differences: dict[str, float], tolerance: Callable[[str], float]) -> None:
    """Ends with an error where the restored network does not say what the file says in ONNX Runtime."""
    for name, value in differences.items():
        print(f"{name}: {value:.1e} from the file's at most")
    if wrong := [f"{name} {tolerance(name):.0e}" for name, value in differences.items() if not value <= tolerance(name)]:
        raise SystemExit(f"what was restored is not the network of the file: expected {', '.join(wrong)} at most")


def detector(bundle: Path, frames: Path) -> dict:
    from detector_data import FrameStore
    from detector_model import HEIGHT, WIDTH, ConvNorm, Detector, ExportedDetector
    from detector_views import CpuViews
    from export_detector import TOLERANCE as AS_EXPORTED
    from export_detector import difference

    weights, net = Weights(bundle / "detector.onnx"), Detector()
    found = fill(net, weights, "net.")
    for name in ("thing_bias", "attribute_bias"):  # scalars may have lost their shape
        getattr(net, name).data.fill_(float(weights.values[f"net.{name}"]))
        found.add(name)
    pairs = folded(net, ConvNorm)
    # The two heads that only training has start anew.
    complain(net, found | {name for name in net.state_dict() if name.startswith(("category_head.", "colour_head."))})
    store = FrameStore(frames, torch.device("cpu"), 1024, 1, 1)
    store.load_new()
    views = CpuViews(store, 1)
    fixed = views.batch(4, 0.0, WIDTH, HEIGHT).images
    unfold(net, pairs, lambda: [net.cells(views.batch(16, 0.4, WIDTH, HEIGHT).images) for _ in range(12)], lambda: net.cells(fixed))
    # Text side, ranking and boxes too.
    agree({"logits and boxes": difference(ExportedDetector(net).eval(), bundle / "detector.onnx")}, lambda _: AS_EXPORTED)
    return {"ema": {name: value.clone() for name, value in net.state_dict().items()}, "images": 0, "steps": 0, "used": 0}


def segmenter_path(node_name: str) -> str:
    """Parts that the export calls directly appear without the module that holds them."""
    path = module_path(node_name)
    first = path.split(".")[0]
    if first in ("mask_in", "mask_mix", "mix"):
        return f"prompt_encoder.{path}"
    return path if first in ("", "mask_decoder", "image_encoder") else f"mask_decoder.{path}"


def segmenter(bundle: Path, frames: Path) -> dict:
    import segmenter_prompts
    from export_segmenter import tolerance, verify
    from segmenter_data import Frames, Images
    from segmenter_model import ConvNorm, Segmenter, SegmenterConfig
    from segmenter_world2d import IDS

    encoder, decoder = Weights(bundle / "image_encoder.onnx"), Weights(bundle / "mask_decoder.onnx")
    side = tomllib.loads((bundle / "bundle.toml").read_text())["preprocessing"]["longest"]
    config = SegmenterConfig(size=side)
    net = Segmenter(config)
    found = {f"image_encoder.{name}" for name in fill(net.image_encoder, encoder, "")}
    found |= fill(net, decoder, "model.", segmenter_path)
    # Two tables that the graph uses outside of any module; no other node of their kind has constants of their shape.
    tables = {("MatMul", net.prompt_encoder.kinds.shape): "kinds", ("Mul", net.prompt_encoder.padding.shape): "padding"}
    for node in decoder.nodes:
        for constant in decoder.constants(node):
            if table := tables.get((node.op_type, constant.shape)):
                getattr(net.prompt_encoder, table).data.copy_(constant)
                found.add(f"prompt_encoder.{table}")
    pairs = folded(net, ConvNorm)
    complain(net, found)

    shards = Frames([frames], torch.device("cpu"), 768)
    while shards.count < 512:  # they are loaded by a thread
        time.sleep(0.2)
    images = Images(shards, 192, torch.device("cpu"), 80, 0.75, 0.45)

    def step(batch):
        rgb, maps, valid = batch
        asked = segmenter_prompts.make(maps, valid, 6, IDS)
        embedding = net.image_encoder(net.normalise(rgb) * valid)
        return net.decode(embedding, asked.coords, asked.labels, torch.zeros(1, 1, 96, 96), torch.zeros(1), 6)

    batches = [images.batch(8) for _ in range(14)]

    def probe():
        torch.manual_seed(5)  # the same prompts each time
        return step(batches[0])[:1]  # the masks; the predicted IoU jumps with single pixels

    unfold(net, pairs, lambda: [step(batch) for batch in batches], probe)
    shards.close()
    agree(verify(net, bundle), tolerance)
    return {"config": config.as_dict(), "model": {name: value.clone() for name, value in net.state_dict().items()}, "step": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("detector", "segmenter"))
    parser.add_argument("--bundle", type=Path, help="bundle folder (default: the shipped one)")
    parser.add_argument("--frames", type=Path, required=True, help="folder of training shards (.npz)")
    parser.add_argument("--out", type=Path, required=True, help="file for --init")
    args = parser.parse_args()
    torch.manual_seed(3)
    make = {"detector": detector, "segmenter": segmenter}[args.which]
    torch.save(make(args.bundle or HERE.parent / args.which, args.frames), args.out)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
