"""Bags for the tests."""

from __future__ import annotations

from pathlib import Path

import pytest


def write_bag(path: Path, topics: dict[str, str], count: int = 3) -> Path:
    """An MCAP file with so many messages on each topic, all of them a string whatever their type is called."""
    mcap = pytest.importorskip("mcap.writer", reason="the Python package mcap is not installed")
    with path.open("wb") as file:
        writer = mcap.Writer(file)
        writer.start(profile="ros2", library="tests")
        channels = [
            writer.register_channel(topic, "cdr", writer.register_schema(kind, "ros2msg", b"string data\n"))
            for topic, kind in topics.items()
        ]
        for number in range(count):
            text = f"message {number}".encode() + b"\0"
            data = b"\0\1\0\0" + len(text).to_bytes(4, "little") + text
            for channel in channels:
                time_ns = 10**18 + number * 10**7
                writer.add_message(channel, log_time=time_ns, publish_time=time_ns, data=data)
        writer.finish()
    return path
