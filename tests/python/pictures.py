"""Images as messages, and what comes back as arrays."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as PillowImage
from pycocotools import mask as coco

from conftest import COLOURS
from idl_from_msg import default

HEIGHT, WIDTH = 240, 320
GREY = (70, 70, 70)


def cell(column: int, row: int) -> tuple[slice, slice]:
    """Rows and columns of a cell of the tiny detector's grid."""
    return slice(row * HEIGHT // 3, (row + 1) * HEIGHT // 3), slice(column * WIDTH // 4, (column + 1) * WIDTH // 4)


def scene(cells: dict[tuple[int, int], str]) -> np.ndarray:
    """A grey picture with some cells in a colour the tiny detector knows."""
    rgb = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
    for place, colour in cells.items():
        rgb[cell(*place)] = COLOURS[colour]
    return rgb


def jpeg(rgb: np.ndarray) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(rgb).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def stamp_ns(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def stamped(ros_type: str, time_ns: int, frame_id="camera_optical_frame", **fields):
    made = default(ros_type, **fields)
    made.header.stamp.sec, made.header.stamp.nanosec = divmod(time_ns, 10**9)
    made.header.frame_id = frame_id
    return made


def compressed(file: bytes, time_ns: int):
    return stamped("sensor_msgs/msg/CompressedImage", time_ns, format="rgb8; jpeg compressed bgr8", data=file)


def raw(rgb: np.ndarray, time_ns: int, encoding="rgb8", padding=0, **fields):
    """An rgb8 or bgr8 image, every row followed by `padding` bytes of rubbish."""
    height, width, channels = rgb.shape
    pixels = rgb if encoding == "rgb8" else rgb[:, :, ::-1]
    rows = np.full((height, width * channels + padding), 0xA5, np.uint8)
    rows[:, : width * channels] = pixels.reshape(height, -1)
    fields = {"height": height, "width": width, "encoding": encoding, "step": rows.shape[1]} | fields
    return stamped("sensor_msgs/msg/Image", time_ns, data=fields.pop("data", rows.tobytes()), **fields)


def pixels(image) -> np.ndarray:
    """A mono8 or mono16 image message as an array."""
    kind = {"mono8": np.dtype("u1"), "mono16": np.dtype(">u2" if image.is_bigendian else "<u2")}[image.encoding]
    rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.step)
    return np.ascontiguousarray(rows[:, : image.width * kind.itemsize]).view(kind)


def mask(counts: list[int], height: int, width: int) -> np.ndarray:
    """COCO's uncompressed run lengths, decoded by pycocotools."""
    assert sum(counts) == height * width
    return coco.decode(coco.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width))


def painted(masks, height: int, width: int, value, nothing=0) -> np.ndarray:
    """One image of all masks, `value(mask)` in each and `nothing` elsewhere, the better mask on top."""
    image = np.full((height, width), nothing, np.uint16)
    for one in sorted(masks, key=lambda one: one.mask_score):
        image[mask(one.counts, height, width) > 0] = value(one)
    return image


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / (a | b).sum())


class Score:
    """Intersection over union of each class, over many frames, classes compared by name."""

    def __init__(self, names: dict[int, str]):
        self.names = {number: name for number, name in names.items() if name not in ("background", "ignore")}
        self.ignored = [number for number, name in names.items() if name == "ignore"]
        self.intersection = dict.fromkeys(self.names.values(), 0)
        self.union = dict.fromkeys(self.names.values(), 0)

    def add(self, truth: np.ndarray, found: np.ndarray, found_names: dict[int, str]):
        counted = ~np.isin(truth, self.ignored)
        ids = {name: number for number, name in found_names.items()}
        for number, name in self.names.items():
            expected = (truth == number) & counted
            got = (found == ids[name]) & counted if name in ids else np.zeros_like(expected)
            self.intersection[name] += int((expected & got).sum())
            self.union[name] += int((expected | got).sum())

    def mean(self) -> float:
        values = [self.intersection[name] / self.union[name] for name in self.union if self.union[name]]
        return sum(values) / len(values)
