"""`scenelex demo` on a bag that is not the shipped one: a camera recorded best effort, under a name that does not say that
its images are files, and no ground truth."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from conftest import COLOURS, END, ROOT, START, TINY
from pictures import jpeg, scene

rosbags = pytest.importorskip("rosbags.rosbag2", reason="the Python package rosbags is not installed")
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

TOPIC = "/front/jpeg"
IMAGES = 30
NEVER = QosTime(9223372036, 854775807)
BEST_EFFORT = Qos(
    history=QosHistory.KEEP_LAST,
    depth=5,
    reliability=QosReliability.BEST_EFFORT,
    durability=QosDurability.VOLATILE,
    deadline=NEVER,
    lifespan=NEVER,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=NEVER,
    avoid_ros_namespace_conventions=False,
)


@pytest.fixture
def bag(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = store.types["sensor_msgs/msg/CompressedImage"]
    time, header = store.types["builtin_interfaces/msg/Time"], store.types["std_msgs/msg/Header"]
    data = np.frombuffer(jpeg(scene({(0, 0): "red", (2, 1): "blue"})), np.uint8)
    path = tmp_path / "best_effort"
    with rosbags.Writer(path, version=9, storage_plugin=rosbags.StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(TOPIC, kind.__msgtype__, typestore=store, offered_qos_profiles=[BEST_EFFORT])
        for number in range(IMAGES):
            at = number * 10**8
            stamp = time(sec=at // 10**9, nanosec=at % 10**9)
            message = kind(header=header(stamp=stamp, frame_id="camera"), format="jpeg", data=data)
            writer.write(connection, 10**18 + at, store.serialize_cdr(message, kind.__msgtype__))
    return path


def test_a_camera_recorded_best_effort_is_watched(program, environment, domain, bag, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("overlay_99.png", "mine.png"):
        (out / name).write_bytes(b"of an earlier run")
    colours = ", ".join(COLOURS)
    command = [program, "demo", "--bag", bag, "--camera", TOPIC, "--models", TINY, "--out", out, "--domain-id", str(domain),
               "--classes", colours, "--then-classes", colours]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * START + END)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    # Best effort: some may be lost on the way.
    assert IMAGES // 2 < summary["frames_in"] <= IMAGES
    assert 0 < summary["frames_out"] <= summary["frames_in"]
    assert summary["objects"] == 2 * summary["frames_out"], "red and blue"
    assert summary["miou"] is None and summary["scored_frames"] == 0
    assert (out / "overlay_01.png").is_file() and (out / "mine.png").is_file()
    assert not (out / "overlay_99.png").exists()
    with rosbags.Reader(out / "bag") as reader:
        offered = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}
    assert offered[TOPIC][0].reliability is QosReliability.BEST_EFFORT
    assert not any(topic.startswith("/ground_truth") for topic in offered)
