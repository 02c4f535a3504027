#!/usr/bin/env python3
"""Starts `scenelex_sim.live`, or says what it lacks. rosdep has no key for MuJoCo, so pip has to bring it."""

import sys

PACKAGES = {"mujoco": "mujoco", "numpy": "numpy", "PIL": "pillow"}

try:
    from scenelex_sim.live import main
except ModuleNotFoundError as missing:
    package = PACKAGES.get((missing.name or "").partition(".")[0])
    if package is None:
        raise
    sys.exit(
        f"sim_camera: the Python package {package} is not installed for {sys.executable}: pip install {package}\n"
        "Where pip refuses to change the system's Python: python3 -m venv --system-site-packages sim && "
        f"sim/bin/pip install {' '.join(PACKAGES.values())}, and give simulation.launch.py python:=sim/bin/python"
    )
except KeyboardInterrupt:
    sys.exit(0)

main()
