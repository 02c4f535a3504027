"""A sourced ROS 2 for the tests named test_ros2_*: its command line tools, and peers in its own Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import ROOT

HERE = Path(__file__).resolve().parent
NODE = "/scenelex"
IMAGE = "/camera/image_raw"
# Tools of ROS 2 take seconds to start and to look around, on a busy machine many.
TOOL = 60.0


def why_not() -> str | None:
    """Why these tests cannot run here; None where they can."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "")
    if not prefixes:
        return "no ROS 2 is sourced (AMENT_PREFIX_PATH is not set)"
    if not any((Path(prefix) / "lib/scenelex/scenelex").is_file() for prefix in prefixes.split(":")):
        return "the package is not built in the sourced workspace (colcon build)"
    return None if shutil.which("ros2") else "ROS 2 is sourced without its command line tools"


needs_ros2 = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def ros_python() -> str:
    """The interpreter ROS 2's own tools run in: rclpy is compiled for that one."""
    first = Path(str(shutil.which("ros2"))).read_text().split("\n", 1)[0]
    return first.removeprefix("#!").strip()


def installed(*parts: str) -> Path:
    """A file of the installed package."""
    for prefix in os.environ["AMENT_PREFIX_PATH"].split(":"):
        if (Path(prefix) / "lib/scenelex/scenelex").is_file():
            return Path(prefix).joinpath(*parts)
    raise FileNotFoundError("/".join(parts))


class Running:
    """A process in a group of its own, its output line by line as it comes."""

    def __init__(self, command, environment):
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # What a shell runs in the background ignores SIGINT, and so would all that is started from there.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.reader = threading.Thread(target=self._read, name="output")
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout: float = TOOL) -> str:
        """The first line with `text` in it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if text in line:
                    return line
            assert self.process.poll() is None or self.reader.is_alive(), f"ended without {text!r}:\n{self.output()}"
            time.sleep(0.05)
        raise AssertionError(f"no {text!r} within {timeout:.0f} s:\n{self.output()}")

    def end(self, by=signal.SIGINT, timeout: float = TOOL) -> int:
        """Ask it to end; its exit status."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, by)
        try:
            return self.process.wait(timeout)
        finally:
            self.reader.join(timeout)

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Consumer(Running):
    """An rclpy node that prints every message of ~/masks as a line of JSON."""

    def messages(self) -> list[dict]:
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def next(self, wanted=lambda message: True, timeout: float = TOOL) -> dict:
        """The first message from now on that is wanted."""
        seen = len(self.messages())
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for message in self.messages()[seen:]:
                if wanted(message):
                    return message
            assert self.process.poll() is None, self.output()
            time.sleep(0.05)
        raise AssertionError(f"no such result within {timeout:.0f} s:\n" + "\n".join(self.lines[-5:]))


class Ros2:
    """One ROS domain with what a test runs in it."""

    def __init__(self, domain: int):
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("CYCLONEDDS_")} | {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "CYCLONEDDS_URI": installed("share/scenelex/config/cyclonedds.xml").as_uri(),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }
        self.environment.pop("ROS_LOCALHOST_ONLY", None)
        self.running: list[Running] = []

    def start(self, *command, kind=Running):
        self.running.append(kind(command, self.environment))
        return self.running[-1]

    def tool(self, *arguments, timeout: float = TOOL) -> str:
        """What `ros2 ARGUMENTS…` prints; it has to end by itself."""
        done = subprocess.run(
            ["ros2", *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def node(self, parameters: dict, *arguments: str) -> Running:
        """`ros2 run scenelex scenelex node`, ready."""
        command = ["ros2", "run", "scenelex", "scenelex", "node", "--ros-args", "-r", f"image:={IMAGE}", *arguments]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={value}"]
        node = self.start(*command)
        node.wait_for("waiting for images")
        return node

    def camera(self, *arguments, topic: str = IMAGE) -> Running:
        camera = self.start(ros_python(), HERE / "ros2_camera.py", topic, *arguments)
        camera.wait_for("publishing")
        return camera

    def consumer(self, topic: str = f"{NODE}/masks") -> Consumer:
        consumer = self.start(ros_python(), HERE / "ros2_consumer.py", topic, kind=Consumer)
        consumer.wait_for("listening")
        return consumer


@pytest.fixture
def ros2(domain):
    session = Ros2(domain)
    yield session
    for one in session.running:
        one.kill()
        one.reader.join(5)
