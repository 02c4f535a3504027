#!/usr/bin/env python3
"""What the vocabulary loop costs the frame loop: the same node on the same pictures at 10 a second, by turns without the
loop and with it running without a pause: every look asks the detector for 240 words. The list itself stays the same, so
that frames cost the same. Prints the age of results, their processing time, and how many pictures got none.

Needs what `make test` installs:  .deps/venv/bin/python benches/refresh.py [SECONDS OF ONE TURN] [TURNS]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))

from idl_from_msg import default  # noqa: E402
from peer import Peer, until  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TOPIC = "/camera/image_raw/compressed"
RATE, WARM = 10, 20
LOOP = {
    "refresh.enabled": "true", "refresh.period": 0.001, "refresh.min_interval": 0, "refresh.scene_change": 0,
    "refresh.unmatched": 0, "refresh.keep": 0,
}  # fmt: skip


def bag() -> tuple[list[bytes], list[str]]:
    """The demo bag's JPEG pictures and its classes."""
    pictures, classes = [], []
    with AnyReader([ROOT / "models" / "sim" / "demo_bag"]) as reader:
        for connection, _, raw in reader.messages():
            if connection.topic == TOPIC:
                pictures.append(bytes(reader.deserialize(raw, connection.msgtype).data))
            elif connection.topic == "/ground_truth/label_info":
                classes = [c.class_name for c in reader.deserialize(raw, connection.msgtype).class_map]
    return pictures, [name for name in classes if name not in ("background", "ignore")]


def turn(loop: bool, pictures: list[bytes], classes: list[str], seconds: float, domain: int) -> dict:
    """One node's results for a while."""
    peer = Peer(domain)
    names = f"[{', '.join(classes)}]"
    parameters = {"image_transport": "compressed", "classes": names}
    if loop:
        parameters |= LOOP | {"refresh.targets": names, "refresh.fixed": names, "refresh.probe.words": f"[{', '.join(words())}]"}
    command = [TARGET / "release" / "scenelex", "node", "--ros-args", "-r", f"image:={TOPIC}"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    results = peer.subscribe("/scenelex/masks", "scenelex/msg/LabeledMaskArray", depth=100)
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)
    images = peer.publisher(TOPIC, "sensor_msgs/msg/CompressedImage", reliable=False, depth=1)
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_LOCALHOST_ONLY": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is None and images.matched() and results.matched(), 120, "the node")
        ages, totals, sent, looks = [], [], 0, 0
        begun = time.monotonic()
        while sent < WARM + RATE * seconds:
            now = time.time_ns()
            picture = default("sensor_msgs/msg/CompressedImage", format="jpeg", data=pictures[sent % len(pictures)])
            picture.header.stamp.sec, picture.header.stamp.nanosec = divmod(now, 10**9)
            images.send(picture)
            sent += 1
            while (left := begun + sent / RATE - time.monotonic()) > 0:
                for sample in results.take(timeout=left):
                    stamp = sample.header.stamp
                    ages.append((time.time_ns() - stamp.sec * 10**9 - stamp.nanosec) / 1e6)
                    totals.extend(s.duration.sec * 1e3 + s.duration.nanosec / 1e6 for s in sample.stages if s.stage == "total")
        for array in diagnostics.take(timeout=2.0):
            for status in array.status:
                looks = next((int(pair.value) for pair in status.values if pair.key == "refreshes"), looks)
    finally:
        process.terminate()
        process.wait(timeout=30)
    return {"ages": ages[WARM:], "totals": totals[WARM:], "lost": sent - len(ages), "looks": looks}


def words() -> list[str]:
    """240 nouns that everybody knows, by WordNet's own counts."""
    counted = {}
    for line in Path("/usr/share/wordnet/index.noun").read_text().splitlines():
        lemma, *fields = line.split()
        if lemma.isalpha() and 3 < len(lemma) < 12:
            counted[lemma] = int(fields[int(fields[2]) + 4]) * 1000 + int(fields[1])
    return sorted(counted, key=lambda lemma: (-counted[lemma], lemma))[:240]


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    pictures, classes = bag()
    found = {False: [], True: []}
    for number in range(2 * turns):
        loop = number % 2 == 1
        found[loop].append(turn(loop, pictures, classes, seconds, 20 + (os.getpid() + number) % 60))
        row = found[loop][-1]
        p50, p99 = np.percentile(row["ages"], [50, 99])
        print(f"{'with   ' if loop else 'without'} age p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  without a result {row['lost']}  looks {row['looks']}", flush=True)
    summary = {}
    for what in ("ages", "totals"):
        without, with_loop = (np.concatenate([row[what] for row in found[loop]]) for loop in (False, True))
        for quantile in (50, 99):
            one, two = np.percentile(without, quantile), np.percentile(with_loop, quantile)
            summary[f"{what}_p{quantile}"] = {"without_ms": one, "with_ms": two, "ratio": two / one}
            print(f"{what} p{quantile}: {one:.1f} ms without, {two:.1f} ms with: ratio {two / one:.3f}")
    summary["without_a_result"] = {str(loop): sum(row["lost"] for row in rows) for loop, rows in found.items()}
    out = ROOT / "out" / "bench"
    out.mkdir(parents=True, exist_ok=True)
    (out / "refresh.json").write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
