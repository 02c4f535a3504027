"""`scenelex play` and `scenelex record` against CycloneDDS and two independent readers of bags."""

from __future__ import annotations

import signal

import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from bags import write_bag  # noqa: E402
from conftest import RESULT, ROOT, START  # noqa: E402
from idl_from_msg import default  # noqa: E402
from peer import until  # noqa: E402
from pictures import compressed, stamp_ns  # noqa: E402

BAG = ROOT / "models" / "sim" / "demo_bag"
TOPIC = "/camera/image_raw/compressed"


def test_play_sends_every_message_as_it_was_recorded(start, peer, demo_bag):
    pictures = peer.subscribe(TOPIC, "sensor_msgs/msg/CompressedImage", depth=200)
    info = peer.subscribe("/camera/camera_info", "sensor_msgs/msg/CameraInfo", depth=200)
    semantic = peer.subscribe("/ground_truth/semantic/image", "sensor_msgs/msg/Image", depth=200)
    latched = peer.subscribe("/ground_truth/label_info", "vision_msgs/msg/LabelInfo", latched=True)
    player = start("play", BAG, "--wait-for-subscribers", "1", "--delay", "2", "--topics", TOPIC, "/camera/camera_info",
                   "/ground_truth/semantic/image", "/ground_truth/label_info")  # fmt: skip
    names = {c.class_id: c.class_name for c in latched.wait(timeout=START).class_map}
    assert names == demo_bag.names
    got = {pictures: [], info: [], semantic: []}

    def everything():
        for topic, samples in got.items():
            samples += topic.take()
        return player.process.poll() is not None

    until(everything, RESULT, "the end of the bag")
    everything()
    assert player.process.returncode == 0, player.output()
    assert [bytes(p.data) for p in got[pictures]] == [p.jpeg for p in demo_bag.pictures]
    stamps = [p.stamp_ns for p in demo_bag.pictures]
    assert [stamp_ns(i) for i in got[info]] == stamps
    assert [bytes(i.data) for i in got[semantic]] == [p.truth.tobytes() for p in demo_bag.pictures]


def test_any_type_is_played_but_names_that_are_none(start, peer, tmp_path):
    bag = write_bag(tmp_path / "bag.mcap", {"/odd": "acme_msgs/msg/Odd", "/nameless": "Odd"})
    player = start("play", bag, "--delay", "2")
    topics = until(lambda: player.alive() and (found := peer.topics()).get("rt/odd") and found, START, "the player")
    assert topics["rt/odd"] == "acme_msgs::msg::dds_::Odd_"
    assert player.process.wait(timeout=RESULT) == 0, player.output()
    assert "played 3 messages on 1 topics" in player.output()
    assert player.output().count("/nameless is not played") == 1, player.output()

    player = start("play", write_bag(tmp_path / "none.mcap", {"/nameless": "Odd"}))
    assert player.process.wait(timeout=START) == 1
    assert "no topic to play" in player.output()


def test_two_readers_read_what_record_wrote(start, peer, demo_bag, tmp_path):
    rosbags = pytest.importorskip("rosbags.highlevel", reason="the Python package rosbags is not installed")
    mcap = pytest.importorskip("mcap_ros2.reader", reason="the Python package mcap-ros2-support is not installed")
    publisher = peer.publisher(TOPIC, "sensor_msgs/msg/CompressedImage")
    masks = peer.publisher("/scenelex/masks", "scenelex/msg/LabeledMaskArray")
    recorder = start("record", TOPIC, "/scenelex/masks", "--out", tmp_path / "bag")
    until(lambda: recorder.alive() and publisher.matched() and masks.matched(), START, "the recorder")
    one = default("scenelex/msg/LabeledMask", instance_id=1, class_id=3, label="mug", counts=[5, 3, 2])
    for number, picture in enumerate(demo_bag.pictures[:20], start=1):
        publisher.send(compressed(picture.jpeg, number))
        array = default("scenelex/msg/LabeledMaskArray", height=2, width=5, masks=[one])
        array.header.stamp.nanosec = number
        masks.send(array)
    assert publisher.writer.wait_for_acks(10**10) and masks.writer.wait_for_acks(10**10)
    assert recorder.end(signal.SIGINT) == 0, recorder.output()

    (path,) = (tmp_path / "bag").glob("*.mcap")
    read = [(m.channel.topic, m.ros_msg) for m in mcap.read_ros2_messages(str(path))]
    jpegs = [bytes(m.data) for topic, m in read if topic == TOPIC]
    assert jpegs == [p.jpeg for p in demo_bag.pictures[:20]]
    arrays = [m for topic, m in read if topic == "/scenelex/masks"]
    assert [m.header.stamp.nanosec for m in arrays] == list(range(1, 21))
    assert {(m.masks[0].label, tuple(m.masks[0].counts)) for m in arrays} == {("mug", (5, 3, 2))}

    with rosbags.AnyReader([tmp_path / "bag"]) as bag:
        assert {c.topic: c.msgcount for c in bag.connections} == {TOPIC: 20, "/scenelex/masks": 20}
        for connection, _, data in bag.messages():
            message = bag.deserialize(data, connection.msgtype)
            if connection.topic == "/scenelex/masks":
                assert message.masks[0].counts.tolist() == [5, 3, 2]
