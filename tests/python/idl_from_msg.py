"""CycloneDDS types out of ROS 2 message definitions: ours from `msg/` and `srv/`, the standard ones from `rosbags`.

The independent side of the tests: nothing here comes from the Rust structs. Names on the wire are
those of ROS 2, `pkg/msg/Name` being `pkg::msg::dds_::Name_`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cyclonedds.idl import IdlStruct, make_idl_struct, types
from cyclonedds.idl._machinery import BytesMachine
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

ROOT = Path(__file__).resolve().parents[2]

# vision_msgs 4 (Jazzy), which rosbags does not carry.
VISION_MSGS = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose",
    "Detection2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox2D bbox\nstring id",
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
    "VisionClass": "uint16 class_id\nstring class_name",
    "LabelInfo": "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold",
}

# Standard services, which rosbags does not carry; their messages it does.
SERVICES = {
    "std_srvs/srv/Trigger": "\n---\nbool success\nstring message",
    "std_srvs/srv/SetBool": "bool data\n---\nbool success\nstring message",
    "lifecycle_msgs/srv/ChangeState": "lifecycle_msgs/Transition transition\n---\nbool success",
    "lifecycle_msgs/srv/GetState": "\n---\nlifecycle_msgs/State current_state",
    "lifecycle_msgs/srv/GetAvailableStates": "\n---\nlifecycle_msgs/State[] available_states",
    "lifecycle_msgs/srv/GetAvailableTransitions": "\n---\nlifecycle_msgs/TransitionDescription[] available_transitions",
    "rcl_interfaces/srv/ListParameters": "string[] prefixes\nuint64 depth\n---\nrcl_interfaces/ListParametersResult result",
    "rcl_interfaces/srv/GetParameters": "string[] names\n---\nrcl_interfaces/ParameterValue[] values",
    "rcl_interfaces/srv/GetParameterTypes": "string[] names\n---\nuint8[] types",
    "rcl_interfaces/srv/DescribeParameters": "string[] names\n---\nrcl_interfaces/ParameterDescriptor[] descriptors",
    "rcl_interfaces/srv/SetParameters": "rcl_interfaces/Parameter[] parameters\n---\nrcl_interfaces/SetParametersResult[] results",
    "rcl_interfaces/srv/SetParametersAtomically":
        "rcl_interfaces/Parameter[] parameters\n---\nrcl_interfaces/SetParametersResult result",
}  # fmt: skip

PRIMITIVES = {
    "bool": bool,
    "byte": types.uint8,
    "char": types.uint8,
    "float32": types.float32,
    "float64": types.float64,
    "int8": types.int8,
    "int16": types.int16,
    "int32": types.int32,
    "int64": types.int64,
    "string": str,
    "uint8": types.uint8,
    "uint16": types.uint16,
    "uint32": types.uint32,
    "uint64": types.uint64,
}


@cache
def definitions():
    """Every message definition known here: ROS 2 Jazzy's, vision_msgs', ours."""
    store = get_typestore(Stores.ROS2_JAZZY)
    found = {}
    for name, text in VISION_MSGS.items():
        found.update(get_types_from_msg(text, f"vision_msgs/msg/{name}"))
    for path in sorted(ROOT.glob("msg/*.msg")):
        found.update(get_types_from_msg(path.read_text(), f"scenelex/msg/{path.stem}"))
    services = {f"scenelex/srv/{path.stem}": path.read_text() for path in sorted(ROOT.glob("srv/*.srv"))}
    for name, definition in (services | SERVICES).items():
        for half, text in zip(("Request", "Response"), definition.split("\n---\n"), strict=True):
            # rosbags would call it scenelex/srv/msg/…
            (fields,) = get_types_from_msg(text, name.replace("/srv/", "/msg/")).values()
            found[f"{name}_{half}"] = fields
    store.register(found)
    return store


def dds_name(ros_type: str) -> str:
    """`sensor_msgs/msg/Image` as it is called on the wire."""
    package, kind, name = ros_type.split("/")
    return f"{package}::{kind}::dds_::{name}_"


def _field_type(kind, argument):
    if kind == Nodetype.BASE:
        return PRIMITIVES[argument[0]]
    if kind == Nodetype.NAME:
        return message(argument)
    (item, length) = argument
    if kind == Nodetype.ARRAY:
        return types.array[_field_type(*item), length]
    return types.sequence[_field_type(*item)]


@cache
def message(ros_type: str) -> type[IdlStruct]:
    """The CycloneDDS class of a ROS 2 message; `uint8[]` fields hold `bytes`."""
    _, fields = definitions().fielddefs[ros_type]
    return _struct(ros_type, {name: _field_type(*kind) for name, kind in fields})


@cache
def service(ros_type: str) -> tuple[type[IdlStruct], type[IdlStruct]]:
    """Request and response of a service as rmw_cyclonedds sends them: after a header of client and sequence number."""
    header = {"client": types.uint64, "sequence": types.int64}
    halves = []
    for half in ("Request", "Response"):
        name = f"{ros_type}_{half}"
        _, fields = definitions().fielddefs[name]
        halves.append(_struct(name, header | {field: _field_type(*kind) for field, kind in fields}))
    return halves[0], halves[1]


def _struct(ros_type, fields):
    made = make_idl_struct(ros_type.split("/")[2], dds_name(ros_type), fields)
    made.__idl__.populate()
    # An image as a list of Python integers takes 30 ms and more; as bytes, with the same encoding, nothing.
    for machine in (made.__idl__.v1_machine, made.__idl__.v2_machine):
        for name, kind in fields.items():
            if kind == types.sequence[types.uint8]:
                machine.members_machines[name] = BytesMachine()
    return made


def constants(ros_type: str) -> dict:
    """The constants of a message definition."""
    return {name: value for name, _, value in definitions().fielddefs[ros_type][0]}


def default(ros_type: str, **values):
    """A message with every field zero or empty but those given."""
    made = message(ros_type).__idl__.v1_machine.default_initialize()
    for name, value in values.items():
        setattr(made, name, value)
    return made
