"""Records a camera's flight through a held-out scene as a rosbag2 MCAP with ROS 2 Jazzy messages and ground truth.

``python -m scenelex_sim.bag --out DIR --seed 7 --seconds 10 --fps 12 --width 640 --height 480 --path handheld``

==================================== =============================== ===============================================
topic                                type                            content
==================================== =============================== ===============================================
/camera/image_raw/compressed         sensor_msgs/CompressedImage     JPEG, every frame
/camera/camera_info                  sensor_msgs/CameraInfo          pinhole without distortion, every frame
/camera/depth/image_raw              sensor_msgs/Image 16UC1         millimetres along the optical axis, 0 = none;
                                                                     half size, `--depth-fps`
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
import io
from pathlib import Path

import numpy as np
from PIL import Image
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from .dataset import MIN_AREA, MIN_VISIBLE, expose
from .paths import make_path
from .render import Renderer
from .taxonomy import BACKGROUND_CLASS, CATEGORIES, IGNORE_CLASS, class_id
from .textures import Bank
from .world import World

SEED_SPACE = 3  # bags have their own seeds, apart from the data splits of `dataset.SPLITS`
FRAME = "camera_optical_frame"
START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
TABLE_TOP = [
    "mug", "bottle", "bowl", "ball", "box", "can", "potted plant", "monitor", "lamp", "book", "laptop", "keyboard", "vase", "plate",
    "teapot", "frying pan", "hammer", "screwdriver", "banana", "flask", "microscope", "clock", "fire extinguisher", "traffic cone", "bucket",
]  # fmt: skip

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


def quaternion_xyzw(m: np.ndarray) -> tuple[float, float, float, float]:
    """Unit quaternion of a rotation matrix f64[3,3]."""
    import mujoco

    q = np.zeros(4)
    mujoco.mju_mat2Quat(q, np.ascontiguousarray(m).ravel())
    return float(q[1]), float(q[2]), float(q[3]), float(q[0])


class Recorder:
    """Serialises what the renderer shows into an open bag."""

    def __init__(self, writer: Writer):
        self.writer, self.store = writer, typestore()
        self.t = self.store.types
        self.channels = {}

    def send(self, topic: str, kind: str, stamp_ns: int, reliable: bool = True, latched: bool = False, **fields) -> None:
        if topic not in self.channels:
            offered = qos(reliable, latched, 1 if latched else 10)
            self.channels[topic] = self.writer.add_connection(topic, kind, typestore=self.store, offered_qos_profiles=offered)
        raw = self.store.serialize_cdr(self.t[kind](**fields), kind)
        self.writer.write(self.channels[topic], stamp_ns, raw)

    def header(self, stamp_ns: int, frame: str = FRAME):
        stamp = self.t["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self.t["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)

    def image(self, topic: str, stamp_ns: int, encoding: str, pixels: np.ndarray) -> None:
        """`pixels` is a two-dimensional array of little-endian numbers of the encoding's size."""
        h, w = pixels.shape
        self.send(
            topic, "sensor_msgs/msg/Image", stamp_ns, header=self.header(stamp_ns), height=h, width=w, encoding=encoding,
            is_bigendian=0, step=w * pixels.itemsize, data=np.frombuffer(pixels.tobytes(), np.uint8),
        )  # fmt: skip

    def camera_info(self, topic: str, stamp_ns: int, width: int, height: int, focal: float) -> None:
        cx, cy = (width - 1) / 2, (height - 1) / 2
        roi = self.t["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        self.send(
            topic, "sensor_msgs/msg/CameraInfo", stamp_ns, header=self.header(stamp_ns), height=height, width=width,
            distortion_model="plumb_bob", d=np.zeros(5), k=np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1.0]), r=np.eye(3).ravel(),
            p=np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1.0, 0]), binning_x=0, binning_y=0, roi=roi,
        )  # fmt: skip

    def label_info(self, stamp_ns: int) -> None:
        names = [(BACKGROUND_CLASS, "background")] + [(class_id(c), c) for c in CATEGORIES] + [(IGNORE_CLASS, "ignore")]
        entry = self.t["vision_msgs/msg/VisionClass"]
        classes = [entry(class_id=i, class_name=n) for i, n in names]
        self.send("/ground_truth/label_info", "vision_msgs/msg/LabelInfo", stamp_ns, latched=True, header=self.header(stamp_ns), class_map=classes, threshold=0.0)

    def transform(self, stamp_ns: int, position: np.ndarray, camera_axes: np.ndarray) -> None:
        """`camera_axes` are MuJoCo's (x right, y up, -z forward) as columns in the world frame."""
        optical = camera_axes @ np.diag([1.0, -1.0, -1.0])
        x, y, z, w = quaternion_xyzw(optical)
        g = self.t
        pose = g["geometry_msgs/msg/Transform"](
            translation=g["geometry_msgs/msg/Vector3"](*(float(v) for v in position)), rotation=g["geometry_msgs/msg/Quaternion"](x, y, z, w)
        )
        stamped = g["geometry_msgs/msg/TransformStamped"](header=self.header(stamp_ns, "world"), child_frame_id=FRAME, transform=pose)
        self.send("/tf", "tf2_msgs/msg/TFMessage", stamp_ns, transforms=[stamped])


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.frombuffer(buffer.getvalue(), np.uint8)


def build_world(seed: int, width: int, height: int, room: bool) -> World:
    """The scene of a bag: 9 to 12 different things, each once, and an unlabelled shape or two."""
    rng = np.random.default_rng([SEED_SPACE, seed])
    names = CATEGORIES if room else TABLE_TOP
    chosen = rng.choice(len(names), int(rng.integers(9, 13)), replace=False)
    wanted = [CATEGORIES.index(names[i]) for i in chosen]
    world = World(rng, Bank(SEED_SPACE), "val", width, height, room=room, categories=wanted, distractors=int(rng.integers(1, 3)))
    world.restyle(rng)
    return world


def semantic(world: World, instance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class ids u8[H,W] and instance numbers u16[H,W] of an item image (item index + 1, 0 = none)."""
    area = np.bincount(instance.ravel(), minlength=len(world.items) + 1)
    visible = world.visible_fractions(instance)
    classes = np.zeros(len(world.items) + 1, np.uint8)
    numbers = np.zeros(len(world.items) + 1, np.uint16)
    labelled = 0
    for i, item in enumerate(world.items):
        if item.category < 0:
            continue
        labelled += 1
        doubtful = area[i + 1] < MIN_AREA * instance.size or visible[i] < MIN_VISIBLE
        classes[i + 1] = IGNORE_CLASS if doubtful else class_id(CATEGORIES[item.category])
        numbers[i + 1] = labelled
    return classes[instance], numbers[instance]


def record(
    out: Path, seed: int, seconds: float = 10.0, fps: float = 12.0, width: int = 640, height: int = 480, path: str = "handheld",
    room: bool = False, quality: int = 85, depth_fps: float = 2.0, pixels: float = 110.0,
) -> int:  # fmt: skip
    """Writes `out`/<name>.mcap and `out`/metadata.yaml; an older bag there is replaced. Returns the number of frames."""
    if out.exists():
        for old in [*out.glob("*.mcap"), out / "metadata.yaml"]:
            old.unlink(missing_ok=True)
        out.rmdir()  # refuses, rather than deletes, where anything else lies there
    rng = np.random.default_rng([SEED_SPACE, seed, 1])
    world = build_world(seed, width, height, room)
    renderer = Renderer(width, height)
    renderer.attach(world)
    fovy = 50.0
    camera = make_path(path, world, rng, seconds, fovy, pixels)
    frames = int(round(seconds * fps))
    every = max(1, int(round(fps / depth_fps)))
    tone: np.ndarray | None = None
    writer = Writer(out, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    try:
        with writer:
            bag = Recorder(writer)
            bag.label_info(START_NS)
            for n in range(frames):
                stamp = START_NS + int(round(n * 1e9 / fps))
                eye, target, roll = camera(n / fps)
                world.look(eye, target, roll, fovy)
                rgb, instance, depth = renderer.draw(depth=True)
                if tone is None:  # exposure is locked on the first frame
                    ramp = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)[None]
                    tone = expose(rng, rgb, apply_to=ramp)[0, :, 0]
                noisy = tone[rgb] + rng.normal(0, 1.3, rgb.shape)
                picture = np.clip(noisy, 0, 255).astype(np.uint8)
                classes, numbers = semantic(world, instance)
                focal = world.focal()
                bag.send(
                    "/camera/image_raw/compressed", "sensor_msgs/msg/CompressedImage", stamp, header=bag.header(stamp), format="rgb8; jpeg compressed bgr8",
                    data=jpeg(picture, quality),
                )  # fmt: skip
                bag.camera_info("/camera/camera_info", stamp, width, height, focal)
                bag.image("/ground_truth/semantic/image", stamp, "mono8", classes)
                bag.image("/ground_truth/instances/image", stamp, "mono16", numbers.astype("<u2"))
                bag.transform(stamp, world.data.cam_xpos[0], world.data.cam_xmat[0].reshape(3, 3))
                if n % every == 0:
                    mm = np.round(depth[::2, ::2].astype(np.float64) * 1000)
                    bag.image("/camera/depth/image_raw", stamp, "16UC1", np.where(mm < 65535, mm, 0).astype("<u2"))
                    bag.camera_info("/camera/depth/camera_info", stamp, -(-width // 2), -(-height // 2), focal / 2)
    finally:
        renderer.close()
    return frames


def main() -> None:
    p = argparse.ArgumentParser(description="Record a held-out scene as a rosbag2 MCAP with ground truth.")
    p.add_argument("--out", type=Path, required=True, help="folder of the bag; an older bag in it is replaced")
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--seconds", type=float, default=10.0)
    p.add_argument("--fps", type=float, default=12.0)
    p.add_argument("--width", type=int, default=640)
    p.add_argument("--height", type=int, default=480)
    p.add_argument("--path", choices=["orbit", "handheld", "drive"], default="handheld")
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
