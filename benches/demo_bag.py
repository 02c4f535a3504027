"""The demo bag's pictures, for the benches that show them to a node; opens the way to the tests' modules."""

from __future__ import annotations

import sys

from processes import ROOT, TOPIC

sys.path.insert(0, str(ROOT / "tests" / "python"))

from rosbags.highlevel import AnyReader  # noqa: E402

MODELS = ROOT / "models" / "sim"


def demo_pictures() -> tuple[list[bytes], list[str]]:
    """The demo bag's JPEG pictures and its classes."""
    pictures, classes = [], []
    with AnyReader([MODELS / "demo_bag"]) as reader:
        for connection, _, raw in reader.messages():
            if connection.topic == TOPIC:
                pictures.append(bytes(reader.deserialize(raw, connection.msgtype).data))
            elif connection.topic == "/ground_truth/label_info":
                classes = [c.class_name for c in reader.deserialize(raw, connection.msgtype).class_map]
    return pictures, [name for name in classes if name not in ("background", "ignore")]
