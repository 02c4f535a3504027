"""Writes types.json: fields and RIHS01 hashes of every message type the node uses, computed by `rosbags` from the
definitions (this package's .msg and .srv files, ROS 2 Jazzy's standard types, vision_msgs 4.1)."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "python"))

from idl_from_msg import SERVICES, definitions  # noqa: E402
from rosbags.interfaces import Nodetype  # noqa: E402

TYPES = [
    "builtin_interfaces/msg/Duration", "builtin_interfaces/msg/Time", "diagnostic_msgs/msg/DiagnosticArray",
    "diagnostic_msgs/msg/DiagnosticStatus", "diagnostic_msgs/msg/KeyValue", "geometry_msgs/msg/Point",
    "geometry_msgs/msg/Pose", "geometry_msgs/msg/PoseWithCovariance", "geometry_msgs/msg/Quaternion",
    "rosgraph_msgs/msg/Clock", "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image",
    "sensor_msgs/msg/RegionOfInterest", "std_msgs/msg/Header", "std_msgs/msg/String", "vision_msgs/msg/BoundingBox2D",
    "vision_msgs/msg/Detection2D", "vision_msgs/msg/Detection2DArray", "vision_msgs/msg/LabelInfo",
    "vision_msgs/msg/ObjectHypothesis", "vision_msgs/msg/ObjectHypothesisWithPose", "vision_msgs/msg/Point2D",
    "vision_msgs/msg/Pose2D", "vision_msgs/msg/VisionClass", "lifecycle_msgs/msg/State", "lifecycle_msgs/msg/Transition",
    "lifecycle_msgs/msg/TransitionDescription", "lifecycle_msgs/msg/TransitionEvent",
    "rcl_interfaces/msg/FloatingPointRange", "rcl_interfaces/msg/IntegerRange", "rcl_interfaces/msg/ListParametersResult",
    "rcl_interfaces/msg/Log",
    "rcl_interfaces/msg/Parameter", "rcl_interfaces/msg/ParameterDescriptor", "rcl_interfaces/msg/ParameterEvent",
    "rcl_interfaces/msg/ParameterValue", "rcl_interfaces/msg/SetParametersResult",
]  # fmt: skip


def text(node):
    kind, detail = node
    if kind == Nodetype.BASE:
        return detail[0]
    if kind == Nodetype.NAME:
        return detail
    element, length = detail
    return f"{text(element)}[{length}]" if kind == Nodetype.ARRAY else f"{text(element)}[]"


store = definitions()
halves = [f"{name}_{half}" for name in SERVICES for half in ("Request", "Response")]
names = sorted(TYPES + halves + [name for name in store.fielddefs if name.startswith("scenelex/")])
types = {
    name: {"hash": store.hash_rihs01(name), "fields": [[field, text(node)] for field, node in store.fielddefs[name][1]]}
    for name in names
}
(HERE / "types.json").write_text(json.dumps(types, indent=1) + "\n")
