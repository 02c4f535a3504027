"""Scenelex's simulated world: rooms and table tops built procedurally in MuJoCo."""

import ctypes.util
import os

# MuJoCo chooses its GL library when it is imported, so this has to come first.
if "MUJOCO_GL" not in os.environ:
    os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "osmesa"
