"""ROS 2 messages of what a simulated camera sees, made of whichever library's classes: `rosbags` for files, `rclpy` for the wire."""

from __future__ import annotations

import io
from typing import Any, Callable

import mujoco
import numpy as np
from PIL import Image

from .taxonomy import BACKGROUND_CLASS, CATEGORIES, IGNORE_CLASS, class_id

FRAME = "camera_optical_frame"


def quaternion_xyzw(m: np.ndarray) -> tuple[float, float, float, float]:
    """Unit quaternion of a rotation matrix f64[3,3]."""
    q = np.zeros(4)
    mujoco.mju_mat2Quat(q, np.ascontiguousarray(m).ravel())
    return float(q[1]), float(q[2]), float(q[3]), float(q[0])


def jpeg(rgb: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


class Messages:
    """Builds messages; stamps are nanoseconds.

    `kind` gives the class of a message by its full name ("sensor_msgs/msg/Image"), `sequence` turns a one-dimensional array
    into what that library wants in a field of variable length.
    """

    def __init__(self, kind: Callable[[str], Any], sequence: Callable[[np.ndarray], Any], frame: str = FRAME):
        self.kind, self.sequence, self.frame = kind, sequence, frame

    def time(self, stamp_ns: int) -> Any:
        return self.kind("builtin_interfaces/msg/Time")(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)

    def header(self, stamp_ns: int, frame: str | None = None) -> Any:
        return self.kind("std_msgs/msg/Header")(stamp=self.time(stamp_ns), frame_id=self.frame if frame is None else frame)

    def image(self, stamp_ns: int, encoding: str, pixels: np.ndarray) -> Any:
        """`pixels` is [H,W] or [H,W,channels] of little-endian numbers of the encoding's size."""
        height, width = pixels.shape[:2]
        octets = np.frombuffer(pixels.tobytes(), np.uint8)
        return self.kind("sensor_msgs/msg/Image")(
            header=self.header(stamp_ns), height=height, width=width, encoding=encoding, is_bigendian=0, step=len(octets) // height,
            data=self.sequence(octets),
        )  # fmt: skip

    def depth(self, stamp_ns: int, mm: np.ndarray) -> Any:
        return self.image(stamp_ns, "16UC1", mm.astype("<u2"))

    def classes(self, stamp_ns: int, classes: np.ndarray) -> Any:
        return self.image(stamp_ns, "mono8", classes)

    def instances(self, stamp_ns: int, numbers: np.ndarray) -> Any:
        return self.image(stamp_ns, "mono16", numbers.astype("<u2"))

    def compressed(self, stamp_ns: int, rgb: np.ndarray, quality: int) -> Any:
        octets = np.frombuffer(jpeg(rgb, quality), np.uint8)
        return self.kind("sensor_msgs/msg/CompressedImage")(
            header=self.header(stamp_ns), format="rgb8; jpeg compressed bgr8", data=self.sequence(octets)
        )

    def camera_info(self, stamp_ns: int, width: int, height: int, focal: float, every: int = 1) -> Any:
        """A pinhole without distortion; `focal` in pixels.

        Size and focal length are the whole picture's. Where only one of `every` rows and columns of it is published, from
        the first on, its pixel (u, v) is pixel (`every` u, `every` v) of the whole.
        """
        cx, cy, focal = (width - 1) / 2 / every, (height - 1) / 2 / every, focal / every
        width, height = -(-width // every), -(-height // every)
        roi = self.kind("sensor_msgs/msg/RegionOfInterest")(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        return self.kind("sensor_msgs/msg/CameraInfo")(
            header=self.header(stamp_ns), height=height, width=width, distortion_model="plumb_bob", d=self.sequence(np.zeros(5)),
            k=np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1.0]), r=np.eye(3).ravel(),
            p=np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1.0, 0]), binning_x=0, binning_y=0, roi=roi,
        )  # fmt: skip

    def label_info(self, stamp_ns: int) -> Any:
        """Names of the class ids in semantic images."""
        names = [(BACKGROUND_CLASS, "background")] + [(class_id(c), c) for c in CATEGORIES] + [(IGNORE_CLASS, "ignore")]
        entry = self.kind("vision_msgs/msg/VisionClass")
        classes = [entry(class_id=i, class_name=n) for i, n in names]
        return self.kind("vision_msgs/msg/LabelInfo")(header=self.header(stamp_ns), class_map=classes, threshold=0.0)

    def transform(self, stamp_ns: int, position: np.ndarray, camera_axes: np.ndarray) -> Any:
        """world -> camera. `camera_axes` are MuJoCo's (x right, y up, -z forward) as columns in the world frame."""
        optical = camera_axes @ np.diag([1.0, -1.0, -1.0])
        x, y, z, w = quaternion_xyzw(optical)
        place = dict(zip("xyz", map(float, position)))
        pose = self.kind("geometry_msgs/msg/Transform")(
            translation=self.kind("geometry_msgs/msg/Vector3")(**place), rotation=self.kind("geometry_msgs/msg/Quaternion")(x=x, y=y, z=z, w=w)
        )
        stamped = self.kind("geometry_msgs/msg/TransformStamped")(header=self.header(stamp_ns, "world"), child_frame_id=self.frame, transform=pose)
        return self.kind("tf2_msgs/msg/TFMessage")(transforms=[stamped])
