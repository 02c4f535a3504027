"""The simulated world as a ROS 2 camera with ground truth: `ros2 run scenelex sim_camera`.

============================================== =========================== ===========================================
topic (relative to the node's namespace)       type                        content
============================================== =========================== ===========================================
CAMERA/image_raw, CAMERA/image_raw/compressed  sensor_msgs/Image rgb8,     the picture
                                               CompressedImage (JPEG)
CAMERA/camera_info, CAMERA/depth/camera_info   sensor_msgs/CameraInfo      pinhole without distortion
CAMERA/depth/image_raw                         sensor_msgs/Image 16UC1     millimetres along the optical axis, 0 = none
ground_truth/semantic/image                    sensor_msgs/Image mono8     class id, 0 background, 255 ignore
ground_truth/label_info                        vision_msgs/LabelInfo       names of the class ids, once, transient local
ground_truth/instances/image                   sensor_msgs/Image mono16    instance number, 0 = none
/tf                                            tf2_msgs/TFMessage          world -> camera
/clock                                         rosgraph_msgs/Clock         with `publish_clock`
============================================== =========================== ===========================================

What belongs to one moment has one stamp. Nothing is drawn that nobody subscribes to. Publishers are reliable by default, as
those of camera drivers with image_transport are: that serves best-effort and reliable subscribers alike.

A clock of its own begins at zero with the node and runs as fast as the wall's. Where drawing takes longer than the rate
allows, moments are left out: pictures are fewer, not late.
"""

from __future__ import annotations

import array
import signal
import sys
import threading
import time
from importlib import import_module

import numpy as np
import rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from .camera import Camera
from .messages import FRAME, Messages
from .paths import PATHS

DEPTH = 5  # of the publishers' queues
TICK = 0.01  # seconds between two messages on /clock
FIRST_REPORT, REPORTS = 5.0, 30.0  # seconds
WAKE = 0.1  # longest wait for a request, and so for a signal, in seconds


def message_class(name: str) -> type:
    package, kind, message = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), message)


def sequence(values: np.ndarray) -> array.array:
    """The only kind of sequence that rclpy takes as it is, without a look at each element."""
    return array.array(values.dtype.char, values.tobytes())


def described(text: str, least=None, most=None) -> ParameterDescriptor:
    """Read-only: a scene is built once."""
    found = ParameterDescriptor(description=text, read_only=True)
    if isinstance(least, int):
        found.integer_range = [IntegerRange(from_value=least, to_value=most)]
    elif least is not None:
        found.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
    return found


PARAMETERS = {
    "seed": (29, described("Number of the scene; it fixes everything that is seen.", 0, 2**31 - 1)),
    "room": (False, described("A room instead of a table top.")),
    "path": ("orbit", described(f"How the camera moves, without an end: {', '.join(PATHS)}.")),
    "path_seconds": (20.0, described("Duration of one pass: 100 degrees of an orbit, or one way of the others.", 0.1, 1e6)),
    "object_pixels": (110.0, described("Side of a typical object in a picture 480 pixels high.", 10.0, 1000.0)),
    "width": (640, described("Width of the pictures.", 16, 4096)),
    "height": (480, described("Height of the pictures.", 16, 4096)),
    "samples": (0, described("Samples a pixel against jagged edges: slow where no GPU draws. Recorded pictures have 4.", 0, 64)),
    "shadow_map": (1024, described("Side of the shadow map, 0 for no shadows: slow where no GPU draws. Recorded pictures have 2048.", 0, 16384)),
    "rate": (10.0, described("Pictures a second, fewer where drawing takes longer.", 0.01, 1000.0)),
    "camera": ("camera", described("First part of the camera's topics, CAMERA/image_raw and so on.")),
    "frame_id": (FRAME, described("Frame of the pictures: z forward, x right, y down.")),
    "reliability": ("reliable", described("Of the publishers but the latched one: reliable or best_effort.")),
    "compressed": (True, described("Offer CAMERA/image_raw/compressed.")),
    "quality": (85, described("Quality of the JPEG pictures.", 1, 100)),
    "depth": (True, described("Offer CAMERA/depth/image_raw.")),
    "ground_truth": (True, described("Offer ground_truth/semantic/image, /label_info and ground_truth/instances/image.")),
    "tf": (True, described("Publish the camera's pose on /tf.")),
    "publish_clock": (False, described("Be the source of simulated time: stamps from zero on, and /clock.")),
}
CHOICES = {"path": PATHS, "reliability": ("reliable", "best_effort")}


class SimulatedCamera(Node):
    """Owns the world and its publishers; `run` shows it."""

    def __init__(self):
        super().__init__("sim_camera")
        self.given = {name: self.declare_parameter(name, *rest).value for name, rest in PARAMETERS.items()}
        for name, choices in CHOICES.items():
            if self.given[name] not in choices:
                raise ValueError(f"parameter {name} is {self.given[name]!r} and has to be one of {', '.join(choices)}")
        reliability = ReliabilityPolicy.RELIABLE if self.given["reliability"] == "reliable" else ReliabilityPolicy.BEST_EFFORT
        self.qos = QoSProfile(depth=DEPTH, reliability=reliability)
        self.messages = Messages(message_class, sequence, self.given["frame_id"])
        self.ended = threading.Event()
        self.clock_thread: threading.Thread | None = None
        order = ("seed", "width", "height", "path", "path_seconds", "room", "object_pixels", "samples", "shadow_map")
        self.camera = Camera(*(self.given[name] for name in order))
        self.camera.shoot(0.0, labels=False, depth=False)  # sets the exposure, whatever is asked for first
        self._offer()

    def _offer(self) -> None:
        camera = self.given["camera"]
        offered = {
            "colour": (True, f"{camera}/image_raw", "sensor_msgs/msg/Image"),
            "jpeg": (self.given["compressed"], f"{camera}/image_raw/compressed", "sensor_msgs/msg/CompressedImage"),
            "info": (True, f"{camera}/camera_info", "sensor_msgs/msg/CameraInfo"),
            "depth": (self.given["depth"], f"{camera}/depth/image_raw", "sensor_msgs/msg/Image"),
            "depth_info": (self.given["depth"], f"{camera}/depth/camera_info", "sensor_msgs/msg/CameraInfo"),
            "classes": (self.given["ground_truth"], "ground_truth/semantic/image", "sensor_msgs/msg/Image"),
            "instances": (self.given["ground_truth"], "ground_truth/instances/image", "sensor_msgs/msg/Image"),
            "tf": (self.given["tf"], "/tf", "tf2_msgs/msg/TFMessage"),
        }
        self.offered = {}
        for name, (wanted, topic, kind) in offered.items():
            if not wanted:
                continue
            try:
                self.offered[name] = self.create_publisher(message_class(kind), topic, self.qos)
            except ModuleNotFoundError as missing:
                if name != "tf":
                    raise
                self.get_logger().warn(f"no {topic}: {missing}")
        self.begun = time.monotonic_ns()
        if self.given["publish_clock"]:
            self.clock = self.create_publisher(message_class("rosgraph_msgs/msg/Clock"), "/clock", QoSProfile(depth=1))
            self.clock_thread = threading.Thread(target=self._tick, name="clock", daemon=True)
            self.clock_thread.start()
        if self.given["ground_truth"]:
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self.label_info = self.create_publisher(message_class("vision_msgs/msg/LabelInfo"), "ground_truth/label_info", latched)
            self.label_info.publish(self.messages.label_info(self.now()))

    def now(self) -> int:
        """Nanoseconds of the time that stamps are in."""
        return time.monotonic_ns() - self.begun if self.given["publish_clock"] else self.get_clock().now().nanoseconds

    def _tick(self) -> None:
        kind = message_class("rosgraph_msgs/msg/Clock")
        while not self.ended.wait(TICK):
            self.clock.publish(kind(clock=self.messages.time(self.now())))

    def run(self) -> None:
        """Until it is interrupted."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        self.get_logger().info(
            f"scene {self.given['seed']}, {self.given['width']}x{self.given['height']} at {self.given['rate']:g} Hz on "
            f"{self.offered['colour'].topic_name}: drawn while somebody subscribes"
        )
        period, interval = 1 / self.given["rate"], FIRST_REPORT
        due = since = time.monotonic()
        shots, spent = 0, 0.0
        while True:
            executor.spin_once(timeout_sec=min(max(due - time.monotonic(), 0.0), WAKE))
            start = time.monotonic()
            if start < due:
                continue
            if self._show():
                shots += 1
                spent += time.monotonic() - start
            else:  # no rate where nobody looks
                since, shots, spent = start, 0, 0.0
            # The next moment that is not over yet.
            due += period * (1 + (time.monotonic() - due) // period)
            if shots and start - since > interval:
                done = f"{shots / (start - since):.1f} pictures a second of {self.given['rate']:g} wanted"
                self.get_logger().info(f"{done}, {1000 * spent / shots:.0f} ms for each")
                interval, since, shots, spent = REPORTS, start, 0, 0.0

    def _show(self) -> bool:
        """Publishes this moment as far as somebody subscribes; whether anything was drawn."""
        wanted = {name: publisher for name, publisher in self.offered.items() if publisher.get_subscription_count()}
        colour, labels, depth = ("colour" in wanted or "jpeg" in wanted), ("classes" in wanted or "instances" in wanted), "depth" in wanted
        stamp, make, width, height = self.now(), self.messages, self.given["width"], self.given["height"]
        # Without a picture the camera moves on all the same, for /tf.
        shot = self.camera.shoot((time.monotonic_ns() - self.begun) * 1e-9, colour, labels, depth)
        build = {
            "info": lambda: make.camera_info(stamp, width, height, self.camera.focal()),
            "colour": lambda: make.image(stamp, "rgb8", shot.rgb),
            "jpeg": lambda: make.compressed(stamp, shot.rgb, self.given["quality"]),
            "depth_info": lambda: make.camera_info(stamp, width, height, self.camera.focal()),
            "depth": lambda: make.depth(stamp, shot.depth_mm),
            "classes": lambda: make.classes(stamp, shot.classes),
            "instances": lambda: make.instances(stamp, shot.numbers),
            "tf": lambda: make.transform(stamp, *self.camera.pose()),
        }
        for name, message in build.items():
            if name in wanted:
                wanted[name].publish(message())
        return colour or labels or depth

    def destroy_node(self) -> None:
        self.ended.set()
        if self.clock_thread is not None:
            self.clock_thread.join()
        self.camera.close()
        super().destroy_node()


def interrupt(*_) -> None:
    raise KeyboardInterrupt


def main() -> None:
    # rclpy's own handlers would invalidate the context under a publishing thread.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    node = None
    try:
        node = SimulatedCamera()
        node.run()
    except KeyboardInterrupt:
        pass
    except (ParameterException, ValueError) as wrong:
        sys.exit(f"sim_camera: {wrong}")
    finally:
        # A second signal, from whoever started us, must not cut this short.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.shutdown()
