"""An rclpy node that writes down what one camera and the perception node say of the same moments. Runs in ROS 2's own Python.

    ros2_simulation_recorder.py OUT.npz FRAMES RELIABILITY CAMERA TRUTH NODE

Ends when FRAMES moments are complete: everything below has come with one stamp. Prefixes are those of the topics.
"""

import json
import sys

import numpy as np
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import LabelInfo

out, frames, reliability = sys.argv[1], int(sys.argv[2]), sys.argv[3]
camera, truth, perception = sys.argv[4:]
STREAMS = {
    "image": (Image, f"{camera}/image_raw"),
    "jpeg": (CompressedImage, f"{camera}/image_raw/compressed"),
    "info": (CameraInfo, f"{camera}/camera_info"),
    "depth": (Image, f"{camera}/depth/image_raw"),
    "depth_info": (CameraInfo, f"{camera}/depth/camera_info"),
    "classes": (Image, f"{truth}/semantic/image"),
    "instances": (Image, f"{truth}/instances/image"),
    "found": (Image, f"{perception}/semantic/image"),
    "overlay": (Image, f"{perception}/overlay/image"),
}
LABELS = {"class_names": f"{truth}/label_info", "found_names": f"{perception}/semantic/label_info"}
TYPES = {"rgb8": np.uint8, "mono8": np.uint8, "mono16": np.uint16, "16UC1": np.uint16}

rclpy.init()
node = rclpy.create_node("test_recorder")
moments: dict[int, dict] = {}
names: dict[str, dict] = {}
complete: list[dict] = []


def arrived(name):
    def keep(message):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        moment = moments.setdefault(stamp, {"stamp": stamp})
        moment[name] = message
        if len(moment) == len(STREAMS) + 1:
            complete.append(moments.pop(stamp))

    return keep


def labelled(name):
    def keep(message):
        names[name] = {entry.class_id: entry.class_name for entry in message.class_map}

    return keep


def pixels(message):
    data = np.frombuffer(message.data, TYPES[message.encoding])
    assert message.step * message.height == data.nbytes and message.is_bigendian == 0
    return data.reshape(message.height, message.width, -1)


def column(name):
    messages = [moment[name] for moment in complete]
    if STREAMS[name][0] is Image:
        return {name: np.stack([pixels(m) for m in messages]), f"{name}_encoding": sorted({m.encoding for m in messages})}
    if STREAMS[name][0] is CameraInfo:
        return {f"{name}_k": np.stack([m.k for m in messages]), f"{name}_size": np.array([(m.width, m.height) for m in messages])}
    return {name: np.array([bytes(m.data) for m in messages], object), f"{name}_format": sorted({m.format for m in messages})}


offered = QoSProfile(depth=20, reliability=ReliabilityPolicy[reliability.upper()])
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
for stream, (kind, topic) in STREAMS.items():
    node.create_subscription(kind, topic, arrived(stream), offered)
for label, topic in LABELS.items():
    node.create_subscription(LabelInfo, topic, labelled(label), latched)
print("listening", flush=True)
while len(complete) < frames or len(names) < len(LABELS):
    rclpy.spin_once(node, timeout_sec=1.0)
    print(f"{len(complete)} moments complete, {len(moments)} not", flush=True)
values = {key: value for stream in STREAMS for key, value in column(stream).items()}
values["stamps"] = np.array([moment["stamp"] for moment in complete])
values["frames"] = sorted({moment[stream].header.frame_id for moment in complete for stream in STREAMS})
np.savez(out, names=json.dumps(names), **values)
print("written", flush=True)
