"""What the benches that drive a node share: where the program is, and the demo bag's pictures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))

from rosbags.highlevel import AnyReader  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
MODELS = ROOT / "models" / "sim"
TOPIC = "/camera/image_raw/compressed"


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
