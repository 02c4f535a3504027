"""Starts the built program the way a user does, and gives tests a peer in a ROS domain of their own."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "/camera/image_raw"
COMPRESSED = f"{IMAGE}/compressed"
# Models that see coloured cells of a 4 x 3 grid (tests/golden/make_tiny_models.py).
TINY = ROOT / "tests" / "golden" / "tiny"
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (178, 178, 0)}
# Generous: test machines are busy.
START, RESULT, END = 90.0, 60.0, 30.0


@dataclass(frozen=True)
class Picture:
    """One frame of the demo bag."""

    stamp_ns: int
    jpeg: bytes
    truth: np.ndarray  # u8[H,W], classes of the bag's label_info

    @property
    def rgb(self) -> np.ndarray:
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.jpeg)))


@dataclass(frozen=True)
class DemoBag:
    pictures: list[Picture]
    names: dict[int, str]  # class ids of the ground truth

    def classes(self) -> list[str]:
        return [name for name in self.names.values() if name not in ("background", "ignore")]


@pytest.fixture(scope="session")
def program() -> Path:
    path = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "scenelex"
    assert path.is_file(), f"{path} is not there: run cargo build --release"
    return path


@pytest.fixture(scope="session")
def demo_bag() -> DemoBag:
    reader = pytest.importorskip("rosbags.highlevel", reason="the Python package rosbags is not installed")
    jpegs, truths, names = {}, {}, {}
    with reader.AnyReader([ROOT / "models" / "sim" / "demo_bag"]) as bag:
        for connection, time_ns, raw in bag.messages():
            if connection.topic == "/camera/image_raw/compressed":
                jpegs[time_ns] = bytes(bag.deserialize(raw, connection.msgtype).data)
            elif connection.topic == "/ground_truth/semantic/image":
                image = bag.deserialize(raw, connection.msgtype)
                truths[time_ns] = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width)
            elif connection.topic == "/ground_truth/label_info":
                names = {c.class_id: c.class_name for c in bag.deserialize(raw, connection.msgtype).class_map}
    return DemoBag([Picture(t, jpegs[t], truths[t]) for t in sorted(jpegs)], names)


@pytest.fixture
def domain():
    """A ROS domain of the test's own. Whoever holds the last port of its range has claimed it, the Rust tests included."""
    for number in random.sample(range(10, 101), 91):
        first = 7400 + 250 * number
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as claim, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                claim.bind(("127.0.0.1", first + 249))
                probe.bind(("", first + 10))  # the first participant's port
            except OSError:
                continue
            probe.close()
            yield number
            return
    raise RuntimeError("every ROS domain is taken")


@pytest.fixture
def environment(domain) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROS_", "CYCLONEDDS_"))}
    return kept | {"ROS_DOMAIN_ID": str(domain), "ROS_LOCALHOST_ONLY": "1"}


@pytest.fixture
def peer(domain):
    pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")
    from peer import Peer

    return Peer(domain)


class Process:
    """A running `scenelex`, its output in a file."""

    def __init__(self, command, environment, log: Path):
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)

    def output(self) -> str:
        return self.log.read_text()

    def alive(self) -> bool:
        """True, or a failure that shows what it said before it ended."""
        code = self.process.poll()
        assert code is None, f"ended with {code}:\n{self.output()[-4000:]}"
        return True

    def end(self, by=signal.SIGINT) -> int:
        """Ask it to end; its exit status."""
        self.process.send_signal(by)
        return self.process.wait(timeout=END)


@pytest.fixture
def start(program, environment, tmp_path):
    """Starts `scenelex ARGUMENTS…`; whatever still runs at the end of the test is killed."""
    running = []

    def starter(*arguments) -> Process:
        log = tmp_path / f"scenelex_{len(running)}.log"
        running.append(Process([program, *map(str, arguments)], environment, log))
        return running[-1]

    yield starter
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.fixture
def node(start):
    """Starts `scenelex node` on IMAGE or COMPRESSED with the tiny models; parameters as a dictionary."""

    def starter(parameters=None, compressed=True) -> Process:
        kind, topic = ("compressed", COMPRESSED) if compressed else ("raw", IMAGE)
        defaults = {
            "models_dir": TINY,
            "classes": f"[{', '.join(COLOURS)}]",
            "image_transport": kind,
            # Nothing may be lost between the test's camera and the node; the newest still wins.
            "qos.image.reliability": "reliable",
        }
        arguments = ["node", "--ros-args", "-r", f"image:={topic}"]
        for name, value in (defaults | (parameters or {})).items():
            arguments += ["-p", f"{name}:={value}"]
        return start(*arguments)

    return starter
