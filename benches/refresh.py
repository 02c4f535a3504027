#!/usr/bin/env python3
"""What the vocabulary loop costs.

frames   The same node on the same pictures at 10 a second, by turns without the loop and with it running without a pause:
         every look asks the detector for 240 words. The list itself stays the same, so that frames cost the same. Prints
         the age of results, their processing time, and how many pictures got none.
memory   A node with the tests' tiny models, looking at 30 pictures a second; the scene changes now and then. Prints its
         resident memory over the looks, and the time from the first picture of a new scene to its list in force.

Needs what `make test` installs:  .deps/venv/bin/python benches/refresh.py frames [SECONDS OF ONE TURN] [TURNS]
                                  .deps/venv/bin/python benches/refresh.py memory [LOOKS]
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from demo_bag import demo_pictures  # noqa: I001  (it opens the way to the tests' modules)
from idl_from_msg import default
from peer import Peer, until
from pictures import compressed, jpeg, scene
from processes import ROOT, TOPIC, node

RATE, WARM = 10, 20
LOOP = {
    "refresh.enabled": "true", "refresh.period": 0.001, "refresh.min_interval": 0, "refresh.scene_change": 0,
    "refresh.unmatched": 0, "refresh.keep": 0,
}  # fmt: skip


def looks_in(arrays: list, before: int) -> int:
    """Looks that the newest of the diagnostics counts."""
    pairs = [pair for array in arrays for status in array.status for pair in status.values]
    return next((int(pair.value) for pair in reversed(pairs) if pair.key == "refreshes"), before)


def turn(loop: bool, pictures: list[bytes], classes: list[str], seconds: float, domain: int) -> dict:
    """One node's results for a while."""
    peer = Peer(domain)
    names = f"[{', '.join(classes)}]"
    parameters = {"classes": names}
    if loop:
        parameters |= LOOP | {"refresh.targets": names, "refresh.fixed": names, "refresh.probe.words": f"[{', '.join(words())}]"}
    results = peer.subscribe("/scenelex/masks", "scenelex/msg/LabeledMaskArray", depth=100)
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)
    images = peer.publisher(TOPIC, "sensor_msgs/msg/CompressedImage", reliable=False, depth=1)
    with node(parameters, domain) as process:
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
        looks = looks_in(diagnostics.take(timeout=2.0), looks)
    return {"ages": ages[WARM:], "totals": totals[WARM:], "lost": sent - len(ages), "looks": looks}


def words() -> list[str]:
    """240 nouns that everybody knows, by WordNet's own counts."""
    counted = {}
    for line in Path("/usr/share/wordnet/index.noun").read_text().splitlines():
        lemma, *fields = line.split()
        if lemma.isalpha() and 3 < len(lemma) < 12:
            counted[lemma] = int(fields[int(fields[2]) + 4]) * 1000 + int(fields[1])
    return sorted(counted, key=lambda lemma: (-counted[lemma], lemma))[:240]


def frames(seconds: float, turns: int):
    """Ages of results with and without the loop, by turns."""
    pictures, classes = demo_pictures()
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


def memory(most: int):
    """Resident memory over looks, and how soon a new scene has its list."""
    domain = 20 + os.getpid() % 60
    peer = Peer(domain)
    scenes = [
        (jpeg(scene({(0, 0): "red", (2, 1): "blue"})), ["blue", "red"]),
        (jpeg(scene({(3, 2): "green", (0, 2): "yellow"})), ["green", "yellow"]),
    ]
    parameters = LOOP | {
        "models_dir": ROOT / "tests" / "golden" / "tiny", "classes": "[]", "refresh.probe.words": "[red, green, blue, yellow]",
        "refresh.pre_refine": "false", "diagnostics.period": 0.5,
    }  # fmt: skip
    images = peer.publisher(TOPIC, "sensor_msgs/msg/CompressedImage", reliable=False, depth=1)
    vocabulary = peer.subscribe("/scenelex/vocabulary", "scenelex/msg/Vocabulary", latched=True, depth=50)
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)
    sent, looks, shown, taken, delays, changed = 0, 0, 0, [], [], None
    with node(parameters, domain) as process:
        until(lambda: process.poll() is None and images.matched() and vocabulary.matched(), 60, "the node")
        resident = lambda: next(int(line.split()[1]) / 1024 for line in open(f"/proc/{process.pid}/status") if line.startswith("VmRSS"))
        while looks < most:
            if sent % 20 == 0:
                shown, changed = (sent // 20) % 2, time.monotonic()
            images.send(compressed(scenes[shown][0], sent))
            sent += 1
            next_one = time.monotonic() + 1 / 30
            while (left := next_one - time.monotonic()) > 0:
                for list_ in vocabulary.take(left):
                    if changed and sorted(entry.label for entry in list_.entries) == scenes[shown][1]:
                        delays.append(1e3 * (time.monotonic() - changed))
                        changed = None
            looks = looks_in(diagnostics.take(0), looks)
            if looks >= len(taken) * most / 5:
                taken.append(resident())
                print(f"{looks:5} looks: {taken[-1]:.1f} MB", flush=True)
    median, worst = np.percentile(delays, [50, 100])
    print(f"{len(delays)} new scenes; from the first picture to the list in force: median {median:.0f} ms, at most {worst:.0f} ms")


def main():
    what, *numbers = sys.argv[1:] or ["frames"]
    if what == "frames":
        frames(float(numbers[0]) if numbers else 20.0, int(numbers[1]) if len(numbers) > 1 else 3)
    elif what == "memory":
        memory(int(numbers[0]) if numbers else 1000)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
