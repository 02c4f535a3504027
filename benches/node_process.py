"""A node as a process of its own, looking at the demo's camera topic."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

from demo_bag import ROOT, TARGET, TOPIC


class Running(subprocess.Popen):
    """The process, as the tests' camera asks after it."""

    def alive(self) -> bool:
        if self.poll() is not None:
            raise RuntimeError(f"the node ended with {self.returncode}")
        return True


@contextmanager
def node(parameters: dict, domain: int):
    """A running node, ended afterwards."""
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
