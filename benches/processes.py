"""What the benches run beside themselves: this project's programs, a node among them, and the processor time they take."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# The demo bag's camera.
TOPIC = "/camera/image_raw/compressed"
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time a process has taken, with the kernel's share."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def bench_executable(name: str, *options: str, environment: dict | None = None) -> str:
    """Builds a bench and gives its path; `options` are cargo's."""
    command = ["cargo", "bench", "--locked", "--no-run", "--message-format=json", "--bench", name, *options]
    lines = subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    artifacts = [message for line in lines if (message := json.loads(line)).get("executable")]
    return next(message["executable"] for message in artifacts if message["target"]["name"] == name)


class Running(subprocess.Popen):
    """The process, as the tests' camera asks after it."""

    def alive(self) -> bool:
        if self.poll() is not None:
            raise RuntimeError(f"the node ended with {self.returncode}")
        return True


@contextmanager
def node(parameters: dict, domain: int):
    """A running node that looks at the demo's camera topic, ended afterwards."""
    command = [TARGET / "release" / "scenelex", "node", "--ros-args", "-r", f"image:={TOPIC}", "-p", "image_transport:=compressed"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_LOCALHOST_ONLY": "1"}
    process = Running(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
