#!/usr/bin/env python3
"""Every gate of the project, each run even where an earlier one failed, and a summary of all.

Everything is built in the release profile, so that dependencies are compiled once for the demo,
the tests and the benches.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINTS = ["cargo", "clippy", "--release", "--locked", "--all-targets"]
GATES = {
    "format": ["cargo", "fmt", "--check"],
    "lints": [*LINTS, "--", "-D", "warnings"],
    "lints of the r2r path": [*LINTS, "--no-default-features", "--features", "r2r-check", "--", "-D", "warnings"],
    "Rust tests": ["cargo", "test", "--release", "--locked"],
    "Python tests": [ROOT / ".deps/venv/bin/python", "-m", "pytest", "-ra", "tests/python"],
}
# A sourced ROS 2 puts plugins of its own before pytest, which need packages of the system's Python.
ENVIRONMENT = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def main():
    results = {}
    for name, command in GATES.items():
        print(f"\n=== {name}: {' '.join(map(str, command))}", flush=True)
        start = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT).returncode
        results[name] = code
        print(f"=== {name}: {'passed' if code == 0 else 'FAILED'} in {time.monotonic() - start:.0f} s", flush=True)
    failed = [name for name, code in results.items() if code != 0]
    print(f"\n=== gates: {len(results) - len(failed)} passed, {len(failed)} failed{': ' * bool(failed)}{', '.join(failed)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
