#!/usr/bin/env python3
"""Every gate of the project, each run even where an earlier one failed, and a summary of all.

Everything is built in the release profile, so that dependencies are compiled once for the demo,
the tests and the benches.

Tests that are skipped are told with their reasons. A test may only be skipped for a reason that setup.py cannot mend, see
ALLOWED and RUST_ALLOWED; for any other the gate fails.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINTS = ["cargo", "clippy", "--release", "--locked", "--all-targets"]
# A sourced ROS 2 puts plugins of its own before pytest, which need packages of the system's Python.
ENVIRONMENT = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

# Beginnings of the reasons for which a Python test may be skipped. Packages of requirements/test.in are not among them.
ALLOWED = [
    "no ROS 2 is sourced",
    "the package is not built in the sourced workspace",
    "ROS 2 is sourced without its command line tools",
    "rosbag2 with MCAP storage is not installed",
    "nav2_lifecycle_manager is not in the sourced workspace",
    "the package tf2_msgs is not there",
    "no Python has rclpy, MuJoCo and offscreen OpenGL",
    "no offscreen OpenGL here",
    "the folder shared/data with the tagger's weights is not there",
    "needs a core to take away",
    # Of requirements/bench.in: it is large, and only training and export need it.
    "the Python package torch is not installed",
]
# The one package that requirements/test.in has for some machines only.
NO_PEER = "the Python package cyclonedds is not installed"

# The reasons for which a Rust test may be skipped, as patterns of the whole: most begin with a path.
RUST_ALLOWED = [r"(.*/)?shared/data.* is not on this machine", "this ONNX Runtime has CUDA"]
# What setup.py installs on Debian, and elsewhere leaves to the user.
NO_WORDNET = [r".* is absent \(apt-get install wordnet(-base)?\)", "no WordNet in .*"]


def allowed(machine):
    return ALLOWED if machine == "x86_64" else [*ALLOWED, NO_PEER]


class Plain:
    """A gate whose output is shown as it is."""

    pipe = None

    def shows(self, line):
        return True

    def skipped(self):
        return Counter()

    def refused(self):
        return []


class RustTests(Plain):
    """Rust has no skipping: such a test says "skipped: …" and passes. `--show-output` tells what passing tests said; all of
    it would be a flood, so only those lines are kept.
    """

    pipe = subprocess.PIPE

    def __init__(self, debian=None):
        debian = shutil.which("apt-get") is not None if debian is None else debian
        self.found, self.passed = Counter(), False
        self.allowed = RUST_ALLOWED if debian else [*RUST_ALLOWED, *NO_WORDNET]

    def shows(self, line):
        if line.rstrip() == "successes:":
            self.passed = True
        elif line.startswith(("failures:", "test result:")):
            self.passed = False
        elif self.passed and line.startswith("skipped: "):
            self.found[line.removeprefix("skipped: ").strip()] += 1
        return not self.passed

    def skipped(self):
        return self.found

    def refused(self):
        return [reason for reason in self.found if not any(re.fullmatch(pattern, reason) for pattern in self.allowed)]


class PythonTests(Plain):
    """pytest with `-ra` tells at its end what was skipped where, and why."""

    pipe = subprocess.PIPE
    LINE = re.compile(r"SKIPPED \[(\d+)\] \S+?: (.*)")

    def __init__(self, machine=None):
        self.found, self.allowed = Counter(), allowed(machine or platform.machine())

    def shows(self, line):
        if found := self.LINE.match(line):
            self.found[found[2].strip()] += int(found[1])
        return True

    def skipped(self):
        return self.found

    def refused(self):
        return [reason for reason in self.found if not reason.startswith(tuple(self.allowed))]


PYTEST = [ROOT / ".deps/venv/bin/python", "-m", "pytest", "-ra", "--color=no", "tests/python"]
GATES = {
    "format": (["cargo", "fmt", "--check"], Plain),
    "lints": ([*LINTS, "--", "-D", "warnings"], Plain),
    "lints of the r2r path": (
        [*LINTS, "--no-default-features", "--features", "r2r-check", "--", "-D", "warnings"],
        Plain,
    ),
    "Rust tests": (["cargo", "test", "--release", "--locked", "--", "--show-output"], RustTests),
    "Python tests": (PYTEST, PythonTests),
}


def run(command, gate):
    """The command's exit status."""
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=gate.pipe, text=True, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout or ():
            if gate.shows(line):
                print(line, end="", flush=True)
    return process.returncode


def main():
    failed, skipped = [], 0
    for name, (command, kind) in GATES.items():
        print(f"\n=== {name}: {' '.join(map(str, command))}", flush=True)
        start, gate = time.monotonic(), kind()
        code = run(command, gate)
        for reason, count in gate.skipped().items():
            print(f"=== {name}: {count} skipped: {reason}")
        for reason in gate.refused():
            print(f"=== {name}: no test may be skipped here because {reason} (run .ci/setup.py test)")
        if code != 0 or gate.refused():
            failed.append(name)
        number = sum(gate.skipped().values())
        skipped += number
        outcome = "FAILED" if name in failed else "passed"
        and_skipped = f", {number} skipped (a whole Python module counts as one)" if number else ""
        print(f"=== {name}: {outcome} in {time.monotonic() - start:.0f} s{and_skipped}", flush=True)
    print(f"\n=== gates: {len(GATES) - len(failed)} passed, {len(failed)} failed{': ' * bool(failed)}{', '.join(failed)}")
    if skipped:
        print(f"=== {skipped} tests were skipped, see above")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
