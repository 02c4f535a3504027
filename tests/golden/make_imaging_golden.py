#!/usr/bin/env python3
"""Writes imaging.json and imaging.bin: what the reference implementations make of small images.

The expectations of tests/imaging_golden.rs come from here and from nowhere else: Hugging Face's image processors
(torchvision and Pillow backends), Pillow, PyTorch and pycocotools. Needs numpy, pillow, torch, torchvision,
transformers and pycocotools; run it from any folder. Deterministic for given versions, which the file records.

imaging.json: {"versions": {...}, "<group>": [case, ...]}; an array in a case is {"dtype", "shape", "offset"} and
points into imaging.bin (little endian, C order).
"""

import io
import json
import pathlib

import numpy as np
import PIL
import pycocotools.mask as coco
import torch
import torchvision
import transformers
from PIL import Image
from transformers import BlipImageProcessor, GroundingDinoImageProcessor, SamImageProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

HERE = pathlib.Path(__file__).parent
BLOB = bytearray()
RNG = np.random.default_rng(20261121)


def store(array, dtype):
    array = np.ascontiguousarray(array, dtype=dtype)
    offset = len(BLOB)
    BLOB.extend(array.tobytes())
    return {"dtype": dtype, "shape": list(array.shape), "offset": offset}


def picture(width, height):
    """Gradients, hard edges, fine stripes and noise: everything that tells one resampling from another."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.stack([255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), 127 + 127 * np.sin(x * y / 37)], -1)
    image[(x // 5 + y // 7) % 3 == 0] *= 0.25
    image[(x + y) % 11 == 0] = (255, 255, 0)
    noisy = x > width * 0.6
    image[noisy] = RNG.integers(0, 256, (int(noisy.sum()), 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def smooth_logits(side, scale):
    """Logits such as a mask decoder gives: blobs with soft edges, and ripples near zero."""
    y, x = np.mgrid[0:side, 0:side] / side
    logits = np.full((side, side), -2.5)
    for _ in range(4):
        cx, cy, rx, ry = RNG.uniform(0.1, 0.9), RNG.uniform(0.1, 0.9), *RNG.uniform(0.08, 0.3, 2)
        logits += 6 * np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
    return (logits * scale + 0.2 * RNG.standard_normal((side, side))).astype(np.float32)


def store_values(case, name, values, processor, exact):
    """The normalised values themselves, or, to save room, the 8-bit levels they were made from."""
    if exact:
        case[name] = store(values, "<f4")
        return
    mean, std = (np.array(v)[:, None, None] for v in (processor.image_mean, processor.image_std))
    levels = (values * std + mean) * 255
    # Padding is 0 after normalising, which is no level.
    levels = np.where(values == 0, 0, levels)
    assert np.abs(levels - levels.round()).max() < 1e-3
    case[name + "_levels"] = store(levels.round(), "u1")


def pillow_resize():
    sizes = [
        ((23, 17), (23, 17)), ((33, 27), (57, 41)), ((77, 51), (31, 23)), ((32, 24), (53, 40)), ((41, 50), (20, 50)),
        ((7, 5), (50, 3)), ((1, 1), (6, 4)), ((130, 3), (4, 1)), ((64, 48), (32, 24)), ((40, 37), (37, 40)),
    ]
    for source, target in sizes:
        image = picture(*source)
        resized = np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BILINEAR))
        case = {"image": store(image, "u1"), "resized": store(resized, "u1")}
        if target[1] < source[1]:
            # We begin with y then. Pillow does so from version 13 on where the height shrinks much more than the width.
            lower = Image.fromarray(image).resize((source[0], target[1]), Image.Resampling.BILINEAR)
            case["rows_first"] = store(np.asarray(lower.resize(target, Image.Resampling.BILINEAR)), "u1")
        yield case


def pillow_bicubic():
    for source, target in [((23, 17), (57, 41)), ((77, 51), (31, 23)), ((60, 90), (24, 24)), ((64, 48), (32, 24)), ((5, 3), (9, 9))]:
        image = picture(*source)
        resized = np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BICUBIC))
        yield {"image": store(image, "u1"), "resized": store(resized, "u1")}


def blip():
    for (width, height), side in [((31, 23), 24), ((77, 53), 40), ((45, 70), 36), ((20, 18), 33)]:
        image = picture(width, height)
        case = {"image": store(image, "u1"), "side": side}
        size = {"height": side, "width": side}
        for name, processor in [("torchvision", BlipImageProcessor), ("pillow", BlipImageProcessorPil)]:
            values = processor(size=size)(Image.fromarray(image), return_tensors="np")
            if name == "pillow" and height > width:
                # Pillow 13 resizes upright pictures along y first; torchvision, older Pillows and we begin with x.
                narrow = Image.fromarray(image).resize((side, height), Image.Resampling.BICUBIC)
                square = narrow.resize((side, side), Image.Resampling.BICUBIC)
                case["pillow_levels"] = store(np.asarray(square).transpose(2, 0, 1), "u1")
                continue
            store_values(case, name, np.asarray(values["pixel_values"])[0], processor(), name == "pillow" and width == 31)
        case["mean"], case["std"] = list(processor().image_mean), list(processor().image_std)
        yield case


def grounding_dino():
    for (width, height), shortest, longest in [
        ((31, 23), 26, 60), ((77, 53), 27, 33), ((45, 70), 24, 64), ((100, 30), 24, 50), ((40, 40), 33, 40),
        ((37, 29), 29, 100),
    ]:
        image = picture(width, height)
        size = {"shortest_edge": shortest, "longest_edge": longest}
        case = {"image": store(image, "u1"), "shortest": shortest, "longest": longest}
        for name, processor in [("torchvision", GroundingDinoImageProcessor), ("pillow", GroundingDinoImageProcessorPil)]:
            values = processor(size=size)(Image.fromarray(image), return_tensors="np")
            assert (np.asarray(values["pixel_mask"]) == 1).all()
            store_values(case, name, np.asarray(values["pixel_values"])[0], processor(), name == "pillow" and width == 31)
        case["mean"], case["std"] = list(processor().image_mean), list(processor().image_std)
        yield case


def grounding_dino_sizes():
    processor = GroundingDinoImageProcessorPil()
    common = [(640, 480), (1280, 720), (1920, 1080), (480, 640), (800, 800), (800, 1400), (3840, 2160), (320, 240)]
    random = [tuple(int(v) for v in RNG.integers(16, 900, 2)) for _ in range(40)]
    for width, height in common + random:
        image = np.zeros((height, width, 3), np.uint8)
        values = processor(Image.fromarray(image), return_tensors="np")["pixel_values"]
        yield {"width": width, "height": height, "resized": [values.shape[3], values.shape[2]]}


def padded(side, multiple):
    return -(-side // multiple) * multiple


def sam_cases(sizes):
    for (width, height), side, multiple in sizes:
        image = picture(width, height)
        pad = [padded(int(length * side / max(width, height) + 0.5), multiple) for length in (height, width)]
        options = {"size": {"longest_edge": side}, "pad_size": {"height": pad[0], "width": pad[1]}}
        case = {"image": store(image, "u1"), "side": side, "multiple": multiple}
        for name, processor in [("torchvision", SamImageProcessor), ("pillow", SamImageProcessorPil)]:
            values = processor(**options)(Image.fromarray(image), return_tensors="np")
            store_values(case, name, np.asarray(values["pixel_values"])[0], processor(), name == "pillow" and side == 40)
        reshaped = np.asarray(values["reshaped_input_sizes"])[0]
        case["resized"] = [int(reshaped[1]), int(reshaped[0])]
        case["mean"], case["std"] = list(processor().image_mean), list(processor().image_std)
        yield case


def sam():
    yield from sam_cases(
        (size, side, side) for size, side in [((31, 23), 44), ((77, 53), 36), ((35, 50), 38), ((33, 29), 40), ((90, 3), 42)]
    )


def sam_trimmed():
    """Padded to multiples, not to a square."""
    yield from sam_cases([((31, 23), 44, 4), ((77, 53), 48, 16), ((35, 50), 40, 8), ((90, 3), 48, 16)])


def sam_mask_cases(cases):
    processor = SamImageProcessor()
    for (width, height), side, multiple, low in cases:
        scale = side / max(width, height)
        resized = (int(height * scale + 0.5), int(width * scale + 0.5))
        logits = smooth_logits(low, RNG.uniform(0.5, 3))
        pad = dict(zip(("height", "width"), (padded(length, multiple) for length in resized)))
        logits = logits[: low * pad["height"] // side, : low * pad["width"] // side]
        mask = processor.post_process_masks(
            [torch.from_numpy(logits)[None, None]], [(height, width)], [resized], pad_size=pad
        )[0][0, 0].numpy()
        bits = np.packbits(mask.reshape(-1), bitorder="little")
        yield {
            "side": side, "multiple": multiple, "logits": store(logits, "<f4"), "size": [width, height], "resized": [resized[1], resized[0]],
            "mask_bits": store(bits, "u1"), "area": int(mask.sum()),
        }


def sam_masks():
    yield from sam_mask_cases(
        (size, side, side, low) for size, side, low in [
            ((160, 120), 128, 32), ((97, 131), 128, 32), ((300, 200), 128, 32), ((64, 64), 64, 16), ((50, 201), 96, 24),
            ((320, 200), 256, 48), ((31, 17), 128, 32), ((250, 188), 128, 32),
        ]
    )  # fmt: skip


def sam_trimmed_masks():
    yield from sam_mask_cases([((160, 120), 128, 16, 64), ((97, 131), 128, 16, 64), ((320, 180), 128, 8, 32), ((300, 20), 96, 8, 48)])


def coco_counts(text):
    """Run lengths from pycocotools' compressed string, by the description in COCO's maskApi.h."""
    counts, at = [], 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            byte = text[at] - 48
            value |= (byte & 0x1F) << shift
            more = bool(byte & 0x20)
            at += 1
            shift += 5
            if not more and byte & 0x10:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def run_lengths():
    for width, height, kind in [
        (53, 37, "blobs"), (37, 53, "noise"), (16, 24, "full"), (20, 30, "empty"), (1, 9, "noise"), (9, 1, "noise"),
        (80, 64, "blobs"), (61, 41, "inverse"),
    ]:
        if kind == "noise":
            mask = RNG.integers(0, 2, (height, width))
        elif kind in ("full", "empty"):
            mask = np.full((height, width), kind == "full")
        else:
            field = smooth_logits(max(width, height), 1.0)[:height, :width] > 0
            mask = field if kind == "blobs" else ~field
        mask = np.asfortranarray(mask, dtype=np.uint8)
        encoded = coco.encode(mask)
        counts = coco_counts(encoded["counts"])
        assert coco.frPyObjects({"size": [height, width], "counts": counts}, height, width) == encoded
        other = np.asfortranarray(RNG.integers(0, 2, (height, width)), dtype=np.uint8)
        yield {
            "mask": store(mask, "u1"), "counts": counts, "area": int(coco.area(encoded)),
            "bbox": [int(v) for v in coco.toBbox(encoded)],
            "other": store(other, "u1"), "iou": float(coco.iou([encoded], [coco.encode(other)], [0])[0, 0]),
        }


def files():
    image = picture(53, 37)
    smooth = np.asarray(Image.fromarray(picture(23, 17)).resize((51, 37), Image.Resampling.BICUBIC))
    sixteen = (np.arange(53 * 37).reshape(37, 53) * 33).astype(np.uint16)
    rgb, gray = Image.fromarray(image), Image.fromarray(smooth).convert("L")
    alpha = Image.fromarray(np.concatenate([image, image[..., :1]], -1))
    for name, picture_, options in [
        ("jpeg", Image.fromarray(smooth), {"format": "JPEG", "quality": 92}),
        ("jpeg_444", Image.fromarray(smooth), {"format": "JPEG", "quality": 90, "subsampling": 0}),
        ("jpeg_progressive", Image.fromarray(smooth), {"format": "JPEG", "quality": 88, "progressive": True}),
        ("jpeg_gray", gray, {"format": "JPEG", "quality": 90}),
        ("png", rgb, {"format": "PNG"}),
        ("png_gray", gray, {"format": "PNG"}),
        ("png_alpha", alpha, {"format": "PNG"}),
        ("png_palette", rgb.quantize(32), {"format": "PNG"}),
        ("png_16", Image.fromarray(sixteen), {"format": "PNG"}),
    ]:
        buffer = io.BytesIO()
        picture_.save(buffer, **options)
        data = buffer.getvalue()
        loaded = Image.open(io.BytesIO(data))
        if name == "png_16":
            pixels = np.repeat((sixteen >> 8).astype(np.uint8)[..., None], 3, -1)
        else:
            pixels = np.asarray(loaded.convert("RGB"))
        yield {"name": name, "file": store(np.frombuffer(data, np.uint8), "u1"), "pixels": store(pixels, "u1")}


def main():
    versions = {module.__name__: module.__version__ for module in (PIL, torch, torchvision, transformers, np)}
    cases = {"versions": versions}
    for group in (pillow_resize, grounding_dino, grounding_dino_sizes, sam, sam_masks, run_lengths, files, pillow_bicubic, blip, sam_trimmed, sam_trimmed_masks):
        cases[group.__name__] = list(group())
    text = json.dumps(cases, indent=None, separators=(",", ":"), sort_keys=True)
    (HERE / "imaging.json").write_text(text.replace("},{", "},\n{") + "\n")
    (HERE / "imaging.bin").write_bytes(BLOB)
    print(len(text), len(BLOB))


if __name__ == "__main__":
    main()
