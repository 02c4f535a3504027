"""Writes small bags with the Python packages `rosbags` and `mcap`, and what those packages read back from them.

- `latched/`: a bag folder of two topics, zstd chunks, QoS in metadata.yaml (rosbags)
- `unordered_lz4.mcap`: log times that go back and forth within and across lz4 chunks (mcap)
- `unchunked.mcap`: records outside chunks, hence without a chunk index (mcap)

Run from this folder with rosbags, mcap and lz4 installed.
"""

import hashlib
import json
import shutil
from pathlib import Path

from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer as McapWriter
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

INFINITE = QosTime(9223372036, 854775807)
expected = {}


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def latched():
    shutil.rmtree("latched", ignore_errors=True)
    store = get_typestore(Stores.ROS2_HUMBLE)
    text, byte_array = store.types["std_msgs/msg/String"], store.types["std_msgs/msg/ColorRGBA"]
    qos = Qos(
        QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
        INFINITE, INFINITE, QosLiveliness.AUTOMATIC, INFINITE, False,
    )  # fmt: skip
    with Writer(Path("latched"), version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        names = writer.add_connection("/names", text.__msgtype__, typestore=store, offered_qos_profiles=[qos])
        colours = writer.add_connection("/colours", byte_array.__msgtype__, typestore=store)
        for i in range(20):
            stamp = 1_700_000_000_000_000_000 + i * 50_000_000
            if i % 10 == 0:
                data = store.serialize_cdr(text(data=f"list {i}"), text.__msgtype__)
                writer.write(names, stamp, data)
            message = byte_array(r=i / 20, g=0.5, b=0.25, a=1.0)
            writer.write(colours, stamp + 1, store.serialize_cdr(message, byte_array.__msgtype__))
    with AnyReader([Path("latched")]) as reader:
        expected["latched"] = [[c.topic, c.msgtype, t, digest(d)] for c, t, d in reader.messages()]


def with_mcap(name, times, **options):
    with open(name, "wb") as file:
        writer = McapWriter(file, **options)
        writer.start(profile="ros2", library="make.py")
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data\n")
        channels = [writer.register_channel(topic, "cdr", schema) for topic in ("/a", "/b")]
        for i, time in enumerate(times):
            text = f"message {i}, {'x' * 150}".encode() + b"\0"
            data = b"\0\1\0\0" + len(text).to_bytes(4, "little") + text
            writer.add_message(channels[i % 2], time, data, time)
        writer.finish()
    with open(name, "rb") as file:
        messages = make_reader(file).iter_messages(log_time_order=True)
        expected[name] = [[c.topic, s.name, m.log_time, digest(m.data)] for s, c, m in messages]


latched()
with_mcap(
    "unordered_lz4.mcap",
    [1000 + (i * 37) % 60 * 10 for i in range(60)],
    chunk_size=1500,
    compression=CompressionType.LZ4,
)
with_mcap("unchunked.mcap", [5000 + 10 * i for i in range(20)], use_chunking=False)
Path("expected.json").write_text(json.dumps(expected, indent=0))
