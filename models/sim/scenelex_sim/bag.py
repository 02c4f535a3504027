"""Records a camera's flight through a held-out scene as a rosbag2 MCAP with ROS 2 Jazzy messages and ground truth.

``python -m scenelex_sim.bag --out DIR --seed 7 --seconds 10 --fps 12 --width 640 --height 480 --path handheld``

==================================== =============================== ===============================================
topic                                type                            content
==================================== =============================== ===============================================
/camera/image_raw/compressed         sensor_msgs/CompressedImage     JPEG, every frame
/camera/camera_info                  sensor_msgs/CameraInfo          pinhole without distortion, every frame
/camera/depth/image_raw              sensor_msgs/Image 16UC1         millimetres along the optical axis, 0 = none;
                                                                     every second row and column, `--depth-fps`
/camera/depth/camera_info            sensor_msgs/CameraInfo          with each depth image
/ground_truth/semantic/image         sensor_msgs/Image mono8         class id, every frame
/ground_truth/label_info             vision_msgs/LabelInfo           names of the class ids, once, transient local
/ground_truth/instances/image        sensor_msgs/Image mono16        instance number, stable over the bag, 0 = none
/tf                                  tf2_msgs/TFMessage              world -> camera_optical_frame, every frame
==================================== =============================== ===============================================

Class ids: 0 background (also unlabelled things), 1 + index in `taxonomy.CATEGORIES`, 255 ignore (an object that is under
0.15 % of the picture or less than a quarter visible). Frame ids follow REP 103/105: the camera looks along +z, x right, y
down. Record stamps equal header stamps. A seed fixes everything but what the GL driver rounds differently.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from .camera import Camera
from .messages import Messages
from .paths import PATHS

START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
HALF = 2  # every second row and column of depth is recorded

LABEL_INFO = """\
std_msgs/Header header
vision_msgs/VisionClass[] class_map
float32 threshold
"""
VISION_CLASS = """\
uint16 class_id
string class_name
"""


def typestore() -> Typestore:
    """ROS 2 Jazzy's types and the two of vision_msgs (4.1) that are needed here."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(VISION_CLASS, "vision_msgs/msg/VisionClass"))
    store.register(get_types_from_msg(LABEL_INFO, "vision_msgs/msg/LabelInfo"))
    return store


def qos(reliable: bool, latched: bool, depth: int) -> list[Qos]:
    forever = QosTime(9223372036, 854775807)
    return [
        Qos(
            QosHistory.KEEP_LAST, depth,
            QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
            QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
            forever, forever, QosLiveliness.AUTOMATIC, forever, False,
        )
    ]  # fmt: skip


def messages(store: Typestore) -> Messages:
    return Messages(lambda name: store.types[name], lambda array: array)


class Recorder:
    """Serialises messages into an open bag."""

    def __init__(self, writer: Writer, store: Typestore):
        self.writer, self.store = writer, store
        self.channels = {}

    def send(self, topic: str, stamp_ns: int, message: Any, latched: bool = False) -> None:
        kind = message.__msgtype__
        if topic not in self.channels:
            offered = qos(True, latched, 1 if latched else 10)
            self.channels[topic] = self.writer.add_connection(topic, kind, typestore=self.store, offered_qos_profiles=offered)
        self.writer.write(self.channels[topic], stamp_ns, self.store.serialize_cdr(message, kind))


def record(
    out: Path, seed: int, seconds: float = 10.0, fps: float = 12.0, width: int = 640, height: int = 480, path: str = "handheld",
    room: bool = False, quality: int = 85, depth_fps: float = 2.0, pixels: float = 110.0,
) -> int:  # fmt: skip
    """Writes `out`/<name>.mcap and `out`/metadata.yaml; an older bag there is replaced. Returns the number of frames."""
    if out.exists():
        for old in [*out.glob("*.mcap"), out / "metadata.yaml"]:
            old.unlink(missing_ok=True)
        out.rmdir()  # refuses, rather than deletes, where anything else lies there
    camera = Camera(seed, width, height, path, seconds, room, pixels)
    frames = int(round(seconds * fps))
    every = max(1, int(round(fps / depth_fps)))
    writer = Writer(out, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    store = typestore()
    make = messages(store)
    try:
        with writer:
            bag = Recorder(writer, store)
            bag.send("/ground_truth/label_info", START_NS, make.label_info(START_NS), latched=True)
            for n in range(frames):
                stamp = START_NS + int(round(n * 1e9 / fps))
                shot = camera.shoot(n / fps, depth=n % every == 0)
                focal = camera.focal()
                bag.send("/camera/image_raw/compressed", stamp, make.compressed(stamp, shot.rgb, quality))
                bag.send("/camera/camera_info", stamp, make.camera_info(stamp, width, height, focal))
                bag.send("/ground_truth/semantic/image", stamp, make.classes(stamp, shot.classes))
                bag.send("/ground_truth/instances/image", stamp, make.instances(stamp, shot.numbers))
                bag.send("/tf", stamp, make.transform(stamp, *camera.pose()))
                if shot.depth_mm is not None:
                    bag.send("/camera/depth/image_raw", stamp, make.depth(stamp, shot.depth_mm[::HALF, ::HALF]))
                    bag.send("/camera/depth/camera_info", stamp, make.camera_info(stamp, width, height, focal, HALF))
    finally:
        camera.close()
    return frames


def main() -> None:
    p = argparse.ArgumentParser(description="Record a held-out scene as a rosbag2 MCAP with ground truth.")
    p.add_argument("--out", type=Path, required=True, help="folder of the bag; an older bag in it is replaced")
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--seconds", type=float, default=10.0)
    p.add_argument("--fps", type=float, default=12.0)
    p.add_argument("--width", type=int, default=640)
    p.add_argument("--height", type=int, default=480)
    p.add_argument("--path", choices=PATHS, default="handheld")
    p.add_argument("--room", action="store_true", help="a room instead of a table top")
    p.add_argument("--quality", type=int, default=85, help="JPEG quality")
    p.add_argument("--depth-fps", type=float, default=2.0)
    p.add_argument("--pixels", type=float, default=110.0, help="side of a typical object where the picture is 480 pixels high")
    a = p.parse_args()
    frames = record(a.out, a.seed, a.seconds, a.fps, a.width, a.height, a.path, a.room, a.quality, a.depth_fps, a.pixels)
    size = sum(f.stat().st_size for f in a.out.iterdir())
    print(f"{frames} frames, {size / 1e6:.1f} MB in {a.out}")


if __name__ == "__main__":
    main()
