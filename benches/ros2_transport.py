"""What it costs to take images from a real ROS 2: through r2r, through the embedded transport (dds), and with the least
subscriber that rclcpp can be, in one run. Needs a sourced ROS 2 workspace with this package in it, rclcpp and a C++ compiler.

    python benches/ros2_transport.py [SECONDS]

A camera (rclcpp, Cyclone DDS or whatever RMW_IMPLEMENTATION says) sends rgb8 images, best effort; each receiver has it to
itself. Latency is from just before the image is published to where its pixels can be used. Written to
out/bench/ros2_transport.json."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from processes import ROOT, TARGET, bench_executable, cpu_seconds

OUT = ROOT / "out" / "bench"
TOPIC = "/camera/image_raw"
SIZES = {"640x480": 30, "1280x720": 30, "1920x1080": 15}
ROUNDS = 2
# What r2r binds to; all others would only make the build longer.
PACKAGES = (
    "scenelex builtin_interfaces diagnostic_msgs geometry_msgs lifecycle_msgs rcl_interfaces rosgraph_msgs sensor_msgs "
    "std_msgs std_srvs vision_msgs"
)


def peers() -> Path:
    build = OUT / "rclcpp"
    for command in (["cmake", "-S", ROOT / "benches" / "rclcpp", "-B", build], ["cmake", "--build", build]):
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return build


def measure(command, camera: Path, size: str, rate: int, seconds: int, environment: dict) -> dict:
    """One camera in front of one receiver."""
    count, (width, height) = rate * seconds, size.split("x")
    taker = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True)
    sender = subprocess.Popen(
        list(map(str, [camera, TOPIC, rate, width, height, count])), env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert "publishing" in sender.stdout.readline(), "the camera has ended"
        before, start = cpu_seconds(taker.pid), time.monotonic()
        sender.wait(timeout=seconds * 3 + 30)
        cpu = (cpu_seconds(taker.pid) - before) / (time.monotonic() - start)
        said, _ = taker.communicate(timeout=30)
    finally:
        for process in (taker, sender):
            if process.poll() is None:
                process.kill()
                process.wait()
    # The first ones find caches and buffers cold.
    ages = np.array(re.search(r"ages_ms (.*)", said)[1].split(), float)[rate // 2 :]
    p50, p99 = np.percentile(ages, [50, 99]) if len(ages) else (None, None)
    received = int(re.search(r"received (\d+) images", said)[1])
    return {"sent": count, "received": received, "p50_ms": p50, "p99_ms": p99, "cores": cpu}


def main():
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(":")
    if not any((Path(prefix) / "share/scenelex").is_dir() for prefix in prefixes) or not shutil.which("ros2"):
        sys.exit("source a ROS 2 workspace with this package first (colcon build && . install/setup.sh)")
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    OUT.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "ROS_DOMAIN_ID": str(10 + os.getpid() % 90),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "CYCLONEDDS_URI": (ROOT / "config" / "cyclonedds.xml").as_uri(),
        "SCENELEX_BENCH_TOPIC": TOPIC,
    }
    environment.pop("ROS_LOCALHOST_ONLY", None)
    built = peers()
    r2r = environment | {"IDL_PACKAGE_FILTER": PACKAGES.replace(" ", ";"), "CARGO_TARGET_DIR": str(TARGET / "r2r")}
    receivers = {
        "rclcpp": [built / "subscriber", TOPIC],
        "r2r": [bench_executable("transport", "--no-default-features", "--features", "r2r", environment=r2r)],
        "dds": [bench_executable("transport", environment=environment)],
    }
    summary = {"rmw": os.environ.get("RMW_IMPLEMENTATION", "the default"), "cores": os.cpu_count()}
    print(f"{'size':>10} {'Hz':>3} {'receiver':>8} {'arrived':>11} {'p50':>9} {'p99':>9} {'CPU':>7}")
    for size, rate in SIZES.items():
        for name, command in receivers.items():
            # Another load on the machine can only make a round worse: the better one counts.
            rounds = [measure(command, built / "camera", size, rate, seconds, environment) for _ in range(ROUNDS)]
            row = min(rounds, key=lambda found: (found["sent"] - found["received"], found["p50_ms"] or 1e9))
            summary.setdefault(size, {})[name] = row
            arrived = f"{row['received']}/{row['sent']}"
            times = f"{row['p50_ms']:6.2f} ms {row['p99_ms']:6.2f} ms"
            print(f"{size:>10} {rate:>3} {name:>8} {arrived:>11} {times} {100 * row['cores']:5.1f} %", flush=True)
    (OUT / "ros2_transport.json").write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
