"""The demo bag and freshly recorded bags, read by two independent readers: `rosbags` and `mcap-ros2-support`."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

rosbags_reader = pytest.importorskip("rosbags.rosbag2", reason="the Python package rosbags is not installed")
mcap_reader = pytest.importorskip("mcap_ros2.reader", reason="the Python package mcap-ros2-support is not installed")
pil = pytest.importorskip("PIL.Image", reason="the Python package pillow is not installed")

SIM = Path(__file__).resolve().parents[2] / "models" / "sim"
DEMO = SIM / "demo_bag"

KINDS = {
    "/camera/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/depth/image_raw": "sensor_msgs/msg/Image",
    "/camera/depth/camera_info": "sensor_msgs/msg/CameraInfo",
    "/ground_truth/semantic/image": "sensor_msgs/msg/Image",
    "/ground_truth/label_info": "vision_msgs/msg/LabelInfo",
    "/ground_truth/instances/image": "sensor_msgs/msg/Image",
    "/tf": "tf2_msgs/msg/TFMessage",
}
FRAMES = 120
EVERY_FRAME = [t for t in KINDS if "depth" not in t and "label_info" not in t]


def stamp_ns(message) -> int:
    header = message.transforms[0].header if hasattr(message, "transforms") else message.header
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def pixels(message) -> np.ndarray:
    kind = {"mono8": np.uint8, "mono16": "<u2", "16UC1": "<u2"}[message.encoding]
    data = np.frombuffer(bytes(message.data), kind).reshape(message.height, message.width)
    assert message.step == message.width * data.itemsize
    assert message.is_bigendian == 0
    return data


def messages(bag: Path, topics: list[str] | None = None):
    """Decoded by mcap-ros2-support, from nothing but the schemas inside the file."""
    (path,) = bag.glob("*.mcap")
    for m in mcap_reader.read_ros2_messages(str(path), topics=topics):
        yield m.channel.topic, m.schema.name, m.log_time_ns, m.ros_msg


@pytest.fixture(scope="module")
def demo():
    return list(messages(DEMO))


def test_metadata_says_what_the_file_holds():
    with rosbags_reader.Reader(DEMO) as reader:
        assert {c.topic: c.msgtype for c in reader.connections} == KINDS
        assert reader.message_count == sum(1 for _ in reader.messages())
        counts = {c.topic: c.msgcount for c in reader.connections}
        latched = {c.topic for c in reader.connections if c.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"}
    assert all(counts[t] == FRAMES for t in EVERY_FRAME)
    assert counts["/ground_truth/label_info"] == 1
    assert counts["/camera/depth/image_raw"] == counts["/camera/depth/camera_info"] >= 10
    assert latched == {"/ground_truth/label_info"}
    assert sum(f.stat().st_size for f in DEMO.iterdir()) <= 12_000_000


def test_rosbags_decodes_every_message_with_the_schemas_of_the_file():
    typesys = pytest.importorskip("rosbags.typesys")
    seen = Counter()
    with rosbags_reader.Reader(DEMO) as reader:
        store = typesys.get_typestore(typesys.Stores.EMPTY)
        for c in reader.connections:
            store.register({k: v for k, v in typesys.get_types_from_msg(c.msgdef.data, c.msgtype).items() if k not in store.fielddefs})
        for connection, log_time, raw in reader.messages():
            message = store.deserialize_cdr(raw, connection.msgtype)
            assert stamp_ns(message) == log_time
            seen[connection.topic] += 1
    assert seen.total() == 5 * FRAMES + 1 + 2 * seen["/camera/depth/image_raw"]


def test_both_readers_agree_with_jazzys_own_definitions():
    typesys = pytest.importorskip("rosbags.typesys")
    jazzy = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    with rosbags_reader.Reader(DEMO) as reader:
        for c in reader.connections:
            if c.msgtype.startswith("vision_msgs"):
                continue
            assert c.digest == jazzy.hash_rihs01(c.msgtype), c.topic
            inside = typesys.get_types_from_msg(c.msgdef.data, c.msgtype)
            assert inside[c.msgtype][1] == jazzy.fielddefs[c.msgtype][1], c.topic


def test_stamps_frames_and_pictures(demo):
    kinds = {topic: kind for topic, kind, _, _ in demo}
    assert kinds == KINDS
    by_topic: dict[str, list] = {}
    for topic, _, log_time, message in demo:
        assert stamp_ns(message) == log_time
        if topic != "/tf":
            assert message.header.frame_id == "camera_optical_frame"
        by_topic.setdefault(topic, []).append((log_time, message))
    times = [t for t, _ in by_topic["/camera/image_raw/compressed"]]
    steps = np.diff(times)
    assert (np.abs(steps - 1e9 / 12) < 2).all(), "12 frames a second"
    for topic in EVERY_FRAME:
        assert [t for t, _ in by_topic[topic]] == times
    for _, m in by_topic["/camera/image_raw/compressed"][::20]:
        assert "jpeg" in m.format
        assert pil.open(io.BytesIO(bytes(m.data))).size == (640, 480)
    for _, m in by_topic["/tf"]:
        q = m.transforms[0].transform.rotation
        assert q.x**2 + q.y**2 + q.z**2 + q.w**2 == pytest.approx(1.0, abs=1e-9)


def test_ground_truth_is_consistent(demo):
    by_topic: dict[str, list] = {}
    for topic, _, _, message in demo:
        by_topic.setdefault(topic, []).append(message)
    (info,) = by_topic["/ground_truth/label_info"]
    names = {c.class_id: c.class_name for c in info.class_map}
    assert names[0] == "background" and names[255] == "ignore" and len(names) >= 26
    shown = Counter()
    owner: dict[int, int] = {}
    for s, i in zip(by_topic["/ground_truth/semantic/image"], by_topic["/ground_truth/instances/image"]):
        classes, numbers = pixels(s), pixels(i)
        assert s.encoding == "mono8" and i.encoding == "mono16"
        assert ((classes == 0) == (numbers == 0)).all()
        for n in np.unique(numbers[numbers > 0]):
            (c,) = np.unique(classes[numbers == n])
            if c != 255:
                assert owner.setdefault(int(n), int(c)) == c, "an instance keeps its class"
        shown.update(int(c) for c in np.unique(classes) if c not in (0, 255))
    assert set(shown) <= set(names)
    assert 8 <= len(shown) <= 12
    assert sum(n >= FRAMES // 2 for n in shown.values()) >= 8


def test_depth_fits_the_camera_and_the_moving_frame(demo):
    """Points of two depth images, moved into the world by /tf, lie on the same table."""
    poses, depths, info = {}, {}, None
    for topic, _, t, m in demo:
        if topic == "/tf":
            poses[t] = m.transforms[0].transform
        elif topic == "/camera/depth/image_raw":
            depths[t] = m
        elif topic == "/camera/depth/camera_info":
            info = m
    assert info is not None and (info.width, info.height) == (320, 240)
    tops = []
    for t, m in depths.items():
        assert m.encoding == "16UC1"
        z = pixels(m).astype(float) / 1000
        v, u = np.mgrid[0 : m.height, 0 : m.width]
        p = np.stack([(u - info.k[2]) / info.k[0] * z, (v - info.k[5]) / info.k[4] * z, z], -1)[z > 0]
        q, o = poses[t].rotation, poses[t].translation
        x, y, zq, w = q.x, q.y, q.z, q.w
        up = np.array([2 * (x * zq - w * y), 2 * (y * zq + w * x), 1 - 2 * (x * x + y * y)])
        height = p @ up + o.z
        levels, edges = np.histogram(height, bins=np.arange(-0.2, 2.5, 0.01))
        table = edges[3:][np.argmax(levels[3:] * (edges[3:-1] > 0.2))] + 0.005
        tops.append(table)
    assert np.ptp(tops) <= 0.0201, f"the table top wanders: {tops}"


def _hash(folder: Path) -> str:
    (path,) = folder.glob("*.mcap")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def record(tmp_path):
    """Records half a second of a scene's flight, in a process of its own; gives the folder."""
    pytest.importorskip("mujoco", reason="the Python package mujoco is not installed")
    env = os.environ | {"PYTHONPATH": str(SIM)}
    base = [sys.executable, "-m", "scenelex_sim.bag", "--seconds", "0.5", "--fps", "6", "--width", "160", "--height", "120", "--path", "orbit"]
    probe = subprocess.run(
        [sys.executable, "-c", "from scenelex_sim.render import Renderer; Renderer(32, 32).close()"], env=env, capture_output=True, text=True
    )
    if probe.returncode != 0:
        pytest.skip(f"no offscreen OpenGL here: {probe.stderr.strip().splitlines()[-1:]}")

    def call(name: str, seed: int) -> Path:
        folder = tmp_path / name / "bag"
        folder.parent.mkdir()
        subprocess.run([*base, "--seed", str(seed), "--out", str(folder)], env=env, check=True, capture_output=True)
        return folder

    return call


def test_same_seed_same_bytes(record):
    digests = {name: _hash(record(name, seed)) for name, seed in (("a", 5), ("b", 5), ("c", 6))}
    assert digests["a"] == digests["b"]
    assert digests["a"] != digests["c"]


def test_depth_of_half_the_size_has_the_rays_of_the_pixels_it_was_taken_from(record):
    """Its pixel (u, v) is pixel (2 u, 2 v) of the camera's picture."""
    infos: dict[str, list] = {}
    for topic, _, _, m in messages(record("bag", 5), ["/camera/camera_info", "/camera/depth/camera_info"]):
        infos.setdefault(topic, []).append(m)
    whole, half = infos["/camera/camera_info"][0], infos["/camera/depth/camera_info"][0]
    assert (whole.width, whole.height, half.width, half.height) == (160, 120, 80, 60)
    for axis, size in ((0, half.width), (1, half.height)):
        pixel = np.arange(size)
        rays = [(n * pixel - k[3 * axis + 2]) / k[4 * axis] for n, k in ((1, half.k), (2, whole.k))]
        np.testing.assert_allclose(*rays, atol=1e-9)
