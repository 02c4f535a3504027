"""Measures a segmenter bundle with ONNX Runtime, on rendered frames of held-out seeds and on photographs.

    python eval_masks.py --bundle ../segmenter --frames DIR --photos PHOTOS --json masks.json

Rendered frames: the shards of ``scenelex_sim.dataset`` made from seeds that were never trained on. Those of the split val from
scene 128 on (``--start 1024``) are for figures and nothing is chosen on them; those before are for choices, as of the input
size. Photographs: a folder in the COCO-panoptic layout (``images/``, ``panoptic/``, ``panoptic.json``); every segment is asked
for by its box.

Masks are compared at the original size, after the decoder's own upscaling. Prompts with a box or with several points take mask
token 0, a single point takes the best of tokens 1-3 by predicted IoU, as SAM's own predictor does by default. Prompts are
random but seeded; 95 % intervals are percentile bootstraps over the objects.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image
from scipy import ndimage

POINTS = 20
FRAME = ("rgb", "instance", "ignore", "scene")  # of a shard, as far as they are needed
MINIMUM = 100  # pixels of an object in a rendered frame; smaller ones are left out
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


class Bundle:
    """The two ONNX files behind SAM's pre- and post-processing."""

    def __init__(self, folder: Path, threads: int = 1):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        manifest = tomllib.loads((folder / "bundle.toml").read_text())
        files = manifest["files"] | manifest.get("cpu_files", {})
        self.encoder, self.decoder = (
            ort.InferenceSession(str(folder / files[role]["path"]), options, providers=["CPUExecutionProvider"])
            for role in ("image_encoder", "mask_decoder")
        )
        height = self.encoder.get_inputs()[0].shape[2]
        manifest = manifest["preprocessing"]
        self.size = height if isinstance(height, int) else manifest["longest"]
        self.multiple = manifest.get("multiple", self.size)

    def pixels(self, rgb: np.ndarray) -> np.ndarray:
        """``u8[H, W, 3]`` -> the encoder's input; sets the scale used by ``ask``."""
        height, width = rgb.shape[:2]
        scale = self.size / max(height, width)
        h, w = int(np.floor(height * scale + 0.5)), int(np.floor(width * scale + 0.5))
        resized = np.asarray(Image.fromarray(rgb).resize((w, h), Image.Resampling.BILINEAR), np.float32)
        padded = [-(-side // self.multiple) * self.multiple for side in (h, w)]
        pixels = np.zeros((1, 3, *padded), np.float32)
        pixels[0, :, :h, :w] = ((resized - MEAN) / STD).transpose(2, 0, 1)
        self.shape = (height, width)
        self.factor = np.array([w / width, h / height])
        return pixels

    def embed(self, rgb: np.ndarray) -> np.ndarray:
        """``u8[H, W, 3]`` -> embeddings."""
        return self.encoder.run(None, {"pixel_values": self.pixels(rgb)})[0]

    def ask(self, embeddings: np.ndarray, coords: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prompts in pixels of the original image, ``coords [B, N, 2]``, ``labels [B, N]`` -> ``bool[B, 4, H, W]``, ``iou [B, 4]``."""
        masks, iou, _ = self.decoder.run(
            ["masks", "iou_predictions", "low_res_masks"],
            {
                "image_embeddings": embeddings,
                "point_coords": (coords * self.factor).astype(np.float32),
                "point_labels": labels.astype(np.float32),
                # SAM's ratio: four places of a mask for each of the embeddings.
                "mask_input": np.zeros((1, 1, 4 * embeddings.shape[2], 4 * embeddings.shape[3]), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array(self.shape, np.float32),
            },
        )
        return masks > 0, iou


@dataclass
class Tally:
    """IoU of every asked object by kind of prompt, and the errors of the predicted IoU."""

    iou: dict[str, list[float]] = field(default_factory=dict)
    error: list[float] = field(default_factory=list)

    def add(self, kind: str, iou: float, predicted: float | None = None) -> None:
        self.iou.setdefault(kind, []).append(iou)
        if predicted is not None:
            self.error.append(abs(predicted - iou))


def iou_of(found: np.ndarray, wanted: np.ndarray) -> float:
    union = int(np.count_nonzero(found | wanted))
    return float(np.count_nonzero(found & wanted)) / union if union else 1.0


def tight_box(mask: np.ndarray) -> np.ndarray:
    """Pixel edges x0, y0, x1, y1."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def box_mask(box: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    x0, y0, x1, y1 = np.round(box).astype(int)
    mask = np.zeros(shape, bool)
    mask[max(y0, 0) : y1, max(x0, 0) : x1] = True
    return mask


def loosened(rng: np.random.Generator, box: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Every side moved outwards by 10 to 30 % of the extent."""
    extent = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    moved = box + np.array([-1, -1, 1, 1]) * extent * rng.uniform(0.10, 0.30, 4)
    return np.clip(moved, 0, [shape[1], shape[0], shape[1], shape[0]])


def query_points(rng: np.random.Generator, mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """20 points: 18 in the object, crowding around its middle or spread over it; two anywhere in the box, as stray queries are."""
    ys, xs = np.nonzero(mask)
    inside = np.stack([xs, ys], 1).astype(np.float64)
    spread = inside[rng.integers(len(inside), size=POINTS - 2)]
    if rng.random() < 0.5:
        distance = ((inside - (box[:2] + box[2:]) / 2) ** 2).sum(1)
        nearest = np.argsort(distance)[: max(1, len(inside) // 5)]
        spread = inside[rng.choice(nearest, POINTS - 2)]
    anywhere = rng.uniform(box[:2], box[2:], (2, 2))
    return np.concatenate([spread, anywhere])


def deepest(mask: np.ndarray) -> np.ndarray:
    """The pixel farthest from the outline: where a person would click."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    return np.array([x, y], np.float64)


def measure_image(bundle: Bundle, rgb: np.ndarray, masks: list[np.ndarray], rng: np.random.Generator, tally: Tally) -> None:
    """Asks for every mask of one image by every kind of prompt."""
    if not masks:
        return
    embeddings = bundle.embed(rgb)
    shape = rgb.shape[:2]
    boxes = [tight_box(m) for m in masks]
    for index, (mask, box) in enumerate(zip(masks, boxes)):
        others = np.zeros(shape, bool)
        for other, another in enumerate(masks):
            if other != index:
                others |= another
        in_box = box_mask(box, shape)
        crowded = np.count_nonzero(others & in_box) > 0.15 * np.count_nonzero(in_box)
        loose = loosened(rng, box, shape)
        points = query_points(rng, mask, box)
        ys, xs = np.nonzero(mask)
        anywhere = rng.integers(len(xs))

        # One call: rows are padded to the same number of points with label -1.
        rows: list[tuple[str, np.ndarray | None, np.ndarray]] = [
            ("box", box, np.zeros((0, 2))),
            ("box+20", box, points),
            ("loose box", loose, np.zeros((0, 2))),
            ("loose box+20", loose, points),
            ("20 points", None, points),
            ("centre point", None, deepest(mask)[None]),
            ("random point", None, np.array([[xs[anywhere], ys[anywhere]]], np.float64)),
        ]
        coords = np.zeros((len(rows), POINTS + 2, 2))
        labels = -np.ones((len(rows), POINTS + 2))
        for k, (_, row_box, row_points) in enumerate(rows):
            if row_box is not None:
                coords[k, :2], labels[k, :2] = row_box.reshape(2, 2), (2, 3)
            coords[k, 2 : 2 + len(row_points)] = row_points
            labels[k, 2 : 2 + len(row_points)] = 1
        found, predicted = bundle.ask(embeddings, coords, labels)
        for k, (kind, row_box, row_points) in enumerate(rows):
            token = 1 + int(predicted[k, 1:].argmax()) if row_box is None and len(row_points) == 1 else 0
            value = iou_of(found[k, token], mask)
            tally.add(kind, value, float(predicted[k, token]))
            if crowded and kind in ("box", "box+20"):
                tally.add(f"crowded {kind}", value)
        tally.add("the box as mask", iou_of(in_box, mask))
        tally.add("the loose box as mask", iou_of(box_mask(loose, shape), mask))


def interval(values: np.ndarray, rng: np.random.Generator, rounds: int = 4000) -> list[float]:
    picks = rng.integers(len(values), size=(rounds, len(values)))
    return [round(float(v), 4) for v in np.percentile(values[picks].mean(1), [2.5, 97.5])]


def summary(tally: Tally, seed: int = 0) -> dict:
    """Means with intervals, paired gains and the mean error of the predicted IoU."""
    rng = np.random.default_rng(seed)
    result: dict = {"objects": len(tally.iou.get("box", [])), "miou": {}, "gain": {}}
    for kind, values in tally.iou.items():
        array = np.array(values)
        result["miou"][kind] = {"mean": round(float(array.mean()), 4), "interval": interval(array, rng), "n": len(array)}
    for name, left, right in (
        ("box over the box as mask", "box", "the box as mask"),
        ("box+20 over box", "box+20", "box"),
        ("box+20 over the box as mask", "box+20", "the box as mask"),
        ("loose box+20 over loose box", "loose box+20", "loose box"),
        ("crowded box+20 over crowded box", "crowded box+20", "crowded box"),
    ):
        if tally.iou.get(left) and tally.iou.get(right):
            difference = np.array(tally.iou[left]) - np.array(tally.iou[right])
            result["gain"][name] = {"mean": round(float(difference.mean()), 4), "interval": interval(difference, rng)}
    if tally.error:
        result["predicted_iou_error"] = round(float(np.mean(tally.error)), 4)
    return result


def evaluate_frames(
    bundle: Bundle, rgb: np.ndarray, instance: np.ndarray, ignore: np.ndarray | None = None, scene: np.ndarray | None = None
) -> dict:
    """Rendered frames: ``rgb u8[N, H, W, 3]``, ``instance u8[N, H, W]``; objects of fewer than ``MINIMUM`` pixels are left out,
    and, where ``ignore u8[N, K]`` is given, those it marks. Where ``scene i32[N]`` is given the result names the first and the last."""
    tally = Tally()
    rng = np.random.default_rng(1)
    for number, (image, ids) in enumerate(zip(rgb, instance)):
        present = [int(k) for k in np.unique(ids) if k]
        if ignore is not None:
            present = [k for k in present if not ignore[number, k - 1]]
        masks = [ids == k for k in present]
        measure_image(bundle, image, [m for m in masks if np.count_nonzero(m) >= MINIMUM], rng, tally)
    scenes = {} if scene is None else {"scenes": [int(scene.min()), int(scene.max())]}
    return summary(tally) | scenes


def evaluate_photos(bundle: Bundle, folder: Path) -> dict:
    """A folder in the COCO-panoptic layout; crowd regions are left out."""
    description = json.loads((folder / "panoptic.json").read_text())
    names = {image["id"]: image["file_name"] for image in description["images"]}
    things = {category["id"]: bool(category["isthing"]) for category in description["categories"]}
    every, by_kind = Tally(), {True: Tally(), False: Tally()}
    rng = np.random.default_rng(2)
    for annotation in description["annotations"]:
        rgb = np.asarray(Image.open(folder / "images" / names[annotation["image_id"]]).convert("RGB"))
        png = np.asarray(Image.open(folder / "panoptic" / annotation["file_name"]).convert("RGB")).astype(np.int64)
        ids = png[..., 0] + 256 * png[..., 1] + 65536 * png[..., 2]
        segments = [s for s in annotation["segments_info"] if not s["iscrowd"]]
        masks = [ids == s["id"] for s in segments]
        local = Tally()
        measure_image(bundle, rgb, masks, rng, local)
        for kind, values in local.iou.items():
            every.iou.setdefault(kind, []).extend(values)
            if len(values) == len(segments):
                for segment, value in zip(segments, values):
                    by_kind[things[segment["category_id"]]].add(kind, value)
        every.error.extend(local.error)
    result = summary(every)
    result["things"], result["stuff"] = summary(by_kind[True])["miou"], summary(by_kind[False])["miou"]
    return result


def evaluate_shards(bundle: Bundle, folder: Path, limit: int) -> dict:
    """Rendered frames from ``*.npz`` shards, evenly over the shards, at most ``limit`` of them."""
    shards = sorted(folder.glob("**/*.npz"))
    if not shards:
        raise SystemExit(f"no .npz shards under {folder}")
    columns: dict[str, list[np.ndarray]] = {key: [] for key in FRAME}
    each = -(-limit // len(shards))
    for path in shards:
        with np.load(path) as shard:
            step = max(1, len(shard["rgb"]) // each)
            for key in columns.keys() & set(shard):
                columns[key].append(shard[key][::step][:each])
    # A column counts where every shard has it.
    return evaluate_frames(bundle, **{key: np.concatenate(parts)[:limit] for key, parts in columns.items() if len(parts) == len(shards)})


def evaluate_segmenter(
    bundle: Path, frames: Path | dict[str, np.ndarray] | None = None, photos: Path | None = None, limit: int = 200, threads: int = 1
) -> dict:
    """Everything this file measures, as one dictionary with the keys ``frames`` and ``photos``; ``frames`` is a folder of shards
    or what ``scenelex_sim.dataset.render_small`` returned."""
    model = Bundle(bundle, threads)
    result = {}
    if isinstance(frames, Path):
        result["frames"] = evaluate_shards(model, frames, limit)
    elif frames is not None:
        result["frames"] = evaluate_frames(model, **{key: frames[key][:limit] for key in FRAME})
    if photos is not None:
        result["photos"] = evaluate_photos(model, photos)
    return result


def table(result: dict) -> str:
    """The result as Markdown."""
    lines = []
    for name, part in result.items():
        scenes = " of scenes {} to {}".format(*part["scenes"]) if "scenes" in part else ""
        lines += [f"### {name}: {part['objects']} objects{scenes}", "", "| prompt | mIoU | 95 % interval | n |", "|---|---|---|---|"]
        for kind, row in part["miou"].items():
            lines.append(f"| {kind} | {row['mean']:.3f} | {row['interval'][0]:.3f}-{row['interval'][1]:.3f} | {row['n']} |")
        lines += ["", "| difference | mean | 95 % interval |", "|---|---|---|"]
        for kind, row in part["gain"].items():
            lines.append(f"| {kind} | {row['mean']:+.3f} | {row['interval'][0]:+.3f} to {row['interval'][1]:+.3f} |")
        lines += ["", f"Mean error of the predicted IoU: {part.get('predicted_iou_error', float('nan')):.3f}", ""]
        for kind in ("things", "stuff"):
            if kind in part:
                box, alone = part[kind]["box"], part[kind]["the box as mask"]
                lines.append(f"{kind}: box {box['mean']:.3f} (n = {box['n']}), the box as mask {alone['mean']:.3f}")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path(__file__).resolve().parent.parent / "segmenter")
    parser.add_argument("--frames", type=Path, help="folder of held-out .npz shards")
    parser.add_argument("--photos", type=Path, help="folder in the COCO-panoptic layout")
    parser.add_argument("--limit", type=int, default=200, help="rendered frames to use")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = evaluate_segmenter(args.bundle, args.frames, args.photos, args.limit, args.threads)
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
