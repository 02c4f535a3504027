#!/usr/bin/env python3
"""Scenelex beside what people use today, in one run on one machine: a table and out/bench/summary.json.

- stages: criterion's medians beside Hugging Face's processors (torchvision and PIL backends) and pycocotools, on the same
  sizes; PyTorch has a thread for each core, ours too for preprocessing, one for masks. Of the masks the row from logits to
  run lengths counts. Its parts do not start and end with the same on both sides: our upscaler knows a rectangle around the
  object, keeps only that, and our encoder reads no more, while pycocotools is given a full image by rows, which it
  wants by columns, and also packs the lengths into text;
- node: `scenelex node` beside python_node.py, the same ONNX files, pictures from one publisher over the wire; both are asked
  for every output, and a result counts when all of them have come.

What is wanted stands beside what was measured.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco
from transformers import GroundingDinoImageProcessor, SamImageProcessor
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from demo_bag import MODELS, demo_pictures  # noqa: I001  (it opens the way to the tests' modules)
from camera import NODE, PER_FRAME
from idl_from_msg import default
from peer import Peer, until
from pictures import pixels, stamp_ns
from processes import ROOT, TARGET, TOPIC, bench_executable, cpu_seconds

LOW_RES_SIDE = 256
SECONDS = float(os.environ.get("SCENELEX_BENCH_SECONDS", "40"))
TURNS = 10  # of each node
# Share by which the two nodes' masks of the same pictures, and the pixels labelled in them, may differ.
SAME_WORK = 0.1
# What a frame is answered with, beginning with what both nodes send last.
OUTPUTS = {"instances/image": PER_FRAME["instances/image"], **PER_FRAME}


@dataclass(frozen=True)
class Target:
    """What is wanted of a figure."""

    wanted: float
    unit: str
    at_least: bool = True

    def met(self, value: float) -> bool:
        return value >= self.wanted if self.at_least else value <= self.wanted

    def judge(self, value: float) -> str:
        return f"{'>=' if self.at_least else '<='} {self.wanted:g} {self.unit}: {'met' if self.met(value) else 'missed'}"


STAGES = {"preprocess/": Target(10, "x"), "masks/upscale_and_run_lengths/": Target(10, "x")}
FRAMES = Target(2, "x")
# Of 1280x720.
OVERHEAD_SHARE, OVERHEAD = Target(3, "%", at_least=False), Target(2, "ms", at_least=False)
TRANSPORT = Target(6, "% of a core", at_least=False)


# --- stages -------------------------------------------------------------------------------------


def run_criterion():
    command = ["cargo", "bench", "--locked", "--bench", "imaging", "--bench", "pipeline"]
    subprocess.run(command, cwd=ROOT, check=True)


def criterion_ms(name: str) -> float:
    """Median of a criterion bench in milliseconds."""
    path = TARGET / "criterion" / name / "new" / "estimates.json"
    return json.loads(path.read_text())["median"]["point_estimate"] / 1e6


def python_ms(function, seconds=2.0) -> float:
    """Median time of a call in milliseconds."""
    function()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def disc(height: int, width: int) -> np.ndarray:
    """Logits of a disc of a third of the image's height, as SAM's decoder gives them; the same as in imaging.rs."""
    scale = LOW_RES_SIDE / max(height, width)
    y, x = np.mgrid[:LOW_RES_SIDE, :LOW_RES_SIDE] / scale
    distance = np.hypot(x - width * 0.4, y - height * 0.5)
    return ((height / 6 - distance) / (height / 20)).astype(np.float32)


def processors() -> dict:
    """Hugging Face's processors by the name of our bench, each on both of its backends."""
    # The shipped detector's; both rules make 416x312 of 640x480 and 416x234 of 1280x720.
    letterbox = {
        "size": {"shortest_edge": 320, "longest_edge": 416},
        "pad_size": {"height": 320, "width": 416},
    }
    return {
        "letterbox_416x320": (GroundingDinoImageProcessor(**letterbox), GroundingDinoImageProcessorPil(**letterbox)),
        "shortest_edge_800": (GroundingDinoImageProcessor(), GroundingDinoImageProcessorPil()),
        "longest_side_1024": (SamImageProcessor(), SamImageProcessorPil()),
    }


def stages() -> dict:
    """Every stage: ours, theirs, and how many times faster."""
    torch.set_num_threads(os.cpu_count() or 1)
    found = {}
    for height, width in ((480, 640), (720, 1280)):
        size = f"{width}x{height}"
        coarse = np.random.default_rng(7).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        image = np.array(Image.fromarray(coarse).resize((width, height)))
        cases = {}
        for name, (torchvision, pil) in processors().items():
            cases[f"preprocess/{name}/{size}"] = {
                "Hugging Face (torchvision)": lambda of=torchvision: of(images=image, return_tensors="pt"),
                "Hugging Face (PIL)": lambda of=pil: of(images=image, return_tensors="np"),
            }
        sam = SamImageProcessor()
        sizes = sam(images=image, return_tensors="pt")
        logits = torch.from_numpy(disc(height, width)[None, None])

        def upscale():
            (masks,) = sam.post_process_masks([logits], sizes["original_sizes"], sizes["reshaped_input_sizes"])
            return masks[0, 0].numpy().view(np.uint8)

        mask = upscale()
        cases[f"masks/upscale/{size}"] = {"Hugging Face": upscale}
        cases[f"masks/run_lengths/{size}"] = {"pycocotools": lambda: coco.encode(np.asfortranarray(mask))}
        cases[f"masks/upscale_and_run_lengths/{size}"] = {
            "Hugging Face + pycocotools": lambda: coco.encode(np.asfortranarray(upscale())),
        }
        for name, others in cases.items():
            ours = criterion_ms(name.replace("/", "_"))
            theirs = {label: python_ms(function) for label, function in others.items()}
            times_faster = {label: value / ours for label, value in theirs.items()}
            found[name] = {"scenelex_ms": ours, "others_ms": theirs, "times_faster": times_faster}
    return found


# --- the node -----------------------------------------------------------------------------------


class Measured:
    """A node that is offered 60 pictures a second, in turns: its results, their age, and what it uses meanwhile."""

    WARM = 5  # results of a turn before its clock starts

    def __init__(self, command: list, environment: dict, domain: int, log: Path):
        self.command, self.log, self.seconds, self.cpu, self.sent, self.masks = command, log, 0.0, 0.0, 0, 0
        self.ages: list[float] = []
        self.shown: dict[int, int] = {}  # picture by stamp
        self.coming: dict[int, dict] = {}  # what has come so far, by stamp
        self.last: dict[int, dict] = {}  # the last result of each picture
        self.incomplete = self.twice = 0
        self.peer = Peer(domain)
        self.outputs = {name: self.peer.subscribe(f"{NODE}/{name}", kind, depth=100) for name, kind in OUTPUTS.items()}
        self.images = self.peer.publisher(TOPIC, "sensor_msgs/msg/CompressedImage", reliable=False, depth=1)
        with log.open("w") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output)

    def wait(self) -> None:
        until(self.connected, 120, "the node")

    def connected(self) -> bool:
        return self.alive() and self.images.matched() and all(output.matched() for output in self.outputs.values())

    def alive(self) -> bool:
        return self.process.poll() is None or sys.exit(f"{self.command[0]} ended: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def turn(self, pictures: list[bytes], seconds: float) -> None:
        """So long from the first results of the turn on, which do not count."""
        warm, start, cpu, number = 0, None, 0.0, 0
        give_up = time.monotonic() + 120
        while self.alive() and (start is None or time.monotonic() < start + seconds):
            if start is None and time.monotonic() > give_up:
                sys.exit(f"{self.command[0]}: no results with all of {', '.join(OUTPUTS)}")
            self.show(pictures, number)
            number += 1
            self.sent += start is not None
            pause = time.monotonic() + 1 / 60
            while (left := pause - time.monotonic()) > 0:
                for stamp in self.complete(left):
                    if start is None:
                        warm += 1
                        if warm == self.WARM:
                            start, cpu = time.monotonic(), cpu_seconds(self.process.pid)
                    else:
                        self.count(stamp)
        self.seconds += time.monotonic() - start
        self.cpu += cpu_seconds(self.process.pid) - cpu
        # What is on its way is not the next turn's.
        time.sleep(0.5)
        self.complete(0.0)
        self.incomplete += sum(len(parts) < len(OUTPUTS) for parts in self.coming.values())
        self.coming.clear()

    def show(self, pictures: list[bytes], number: int) -> None:
        now = time.time_ns()
        self.shown[now] = number % len(pictures)
        picture = default("sensor_msgs/msg/CompressedImage", format="jpeg", data=pictures[self.shown[now]])
        picture.header.stamp.sec, picture.header.stamp.nanosec = divmod(now, 10**9)
        self.images.send(picture)

    def complete(self, wait: float) -> list[int]:
        """Stamps of the pictures whose last missing output has come, waiting for what is sent last."""
        found = []
        for name, output in self.outputs.items():
            for sample in output.take(timeout=wait):
                parts = self.coming.setdefault(stamp_ns(sample), {})
                if name in parts:
                    self.twice += 1
                    continue
                parts[name] = sample
                if len(parts) == len(OUTPUTS):
                    found.append(stamp_ns(sample))
            wait = 0.0
        return found

    def count(self, stamp: int) -> None:
        parts = self.coming.pop(stamp)
        self.ages.append((time.time_ns() - stamp) / 1e6)
        self.masks += len(parts["masks"].masks)
        self.last[self.shown[stamp]] = parts

    def figures(self) -> dict:
        percentile = lambda q: float(np.percentile(self.ages, q))
        return {
            "fps": len(self.ages) / self.seconds,
            "offered_fps": self.sent / self.seconds,
            "age_ms": {"p50": percentile(50), "p90": percentile(90), "p99": percentile(99)},
            "cores": self.cpu / self.seconds,
            "cpu_ms_per_frame": 1e3 * self.cpu / len(self.ages),
            "masks_per_frame": self.masks / len(self.ages),
            "results_without_some_output": self.incomplete,
            "outputs_that_came_twice": self.twice,
        }


def work(ours: Measured, theirs: Measured) -> dict:
    """What the nodes made of the pictures that both labelled: the slower one sees fewer of them, and not evenly."""
    both = sorted(ours.last.keys() & theirs.last.keys())
    total = lambda of: [int(sum(of(node.last[number]) for number in both)) for node in (ours, theirs)]
    labelled = lambda result: pixels(result["instances/image"]) != 0
    differ = lambda number: (labelled(ours.last[number]) != labelled(theirs.last[number])).sum()
    return {
        "pictures": len(both),
        "masks": total(lambda result: len(result["masks"].masks)),
        "detections": total(lambda result: len(result["detections"].detections)),
        "semantic_bytes": total(lambda result: len(result["semantic/image"].data)),
        "labelled_pixels": total(lambda result: labelled(result).sum()),
        "labelled_by_one_only": int(sum(differ(number) for number in both)),
    }


def nodes(pictures: list[bytes], classes: list[str]) -> dict:
    """Both nodes, of which one is offered pictures at a time: in turns, since the machine may be slower a minute later."""
    threads = os.cpu_count()
    domain = 20 + os.getpid() % 60
    out = ROOT / "out" / "bench"
    ours = [TARGET / "release" / "scenelex", "node", "--ros-args", "-r", f"image:={TOPIC}"]
    ours += ["-p", "image_transport:=compressed", "-p", f"classes:=[{', '.join(classes)}]"]
    theirs = [sys.executable, ROOT / "benches" / "python_node.py", MODELS, TOPIC, str(threads), str(domain + 1), *classes]
    environment = {"ROS_DOMAIN_ID": str(domain), "ROS_LOCALHOST_ONLY": "1"}
    measured = {"scenelex": Measured(ours, environment, domain, out / "scenelex_node.log")}
    try:
        measured["python"] = Measured(theirs, {}, domain + 1, out / "python_node.log")
        for node in measured.values():
            node.wait()
        for _ in range(TURNS):
            for node in measured.values():
                node.turn(pictures, SECONDS / TURNS)
    finally:
        for node in measured.values():
            node.stop()
    found = {name: node.figures() for name, node in measured.items()}
    found["times_faster"] = found["scenelex"]["fps"] / found["python"]["fps"]
    found["work"] = work(measured["scenelex"], measured["python"])
    return found


def unequal_work(work: dict) -> str | None:
    """Why the nodes' speeds cannot be compared; None where they can. Each mask costs time, and so does each of its pixels."""
    ours, theirs = work["masks"]
    area = work["labelled_pixels"][0]
    same_masks = ours and abs(ours - theirs) <= SAME_WORK * ours
    same_pixels = work["labelled_by_one_only"] <= SAME_WORK * area
    whole = work["detections"] == work["masks"] and len(set(work["semantic_bytes"])) == 1
    if same_masks and same_pixels and whole:
        return None
    share = f"but for {100 * SAME_WORK:.0f} %"
    return (
        f"the nodes did not do the same work: expected as many masks of both and the same pixels labelled, {share}, at least "
        f"one mask, a detection for each and label images of one size; found of scenelex and of the Python node: {work}"
    )


def transport() -> dict:
    """What arrives of 1280x720 rgb8 at 30 Hz, best effort, from CycloneDDS, and what receiving it costs."""
    domain, rate, topic = 20 + (os.getpid() + 7) % 60, 30, "/camera/image_raw"
    peer = Peer(domain)
    images = peer.publisher(topic, "sensor_msgs/msg/Image", reliable=False, depth=5)
    picture = default("sensor_msgs/msg/Image", height=720, width=1280, encoding="rgb8", step=3840, data=bytes(720 * 3840))
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_LOCALHOST_ONLY": "1", "SCENELEX_BENCH_TOPIC": topic}
    process = subprocess.Popen([bench_executable("transport")], env=environment, stdout=subprocess.PIPE, text=True)
    until(images.matched, 60, "the receiver")
    time.sleep(1)
    before, start, sent = cpu_seconds(process.pid), time.monotonic(), 0
    while sent < rate * SECONDS:
        images.send(picture)
        sent += 1
        time.sleep(max(0.0, start + sent / rate - time.monotonic()))
    cpu = cpu_seconds(process.pid) - before
    said, _ = process.communicate(timeout=60)
    return {"sent": sent, "received": int(re.search(r"received (\d+) images", said)[1]), "cores": cpu / SECONDS}


# --- report -------------------------------------------------------------------------------------


def target_of(stage: str) -> Target | None:
    return next((target for name, target in STAGES.items() if stage.startswith(name)), None)


def report_stages(stages: dict):
    print(f"\n{'stage':40} {'scenelex':>10}   {'other':27} {'other':>10} {'faster':>8}   wanted")
    for name, row in stages.items():
        target = target_of(name)
        for label, value in row["others_ms"].items():
            times = row["times_faster"][label]
            ours, judged = f"{row['scenelex_ms']:.3f} ms", target.judge(times) if target else "(a part)"
            print(f"{name:40} {ours:>10}   {label:27} {f'{value:.3f} ms':>10} {f'{times:.1f} x':>8}   {judged}")
    for prefix, target in STAGES.items():
        factors = {}
        for name, row in stages.items():
            for label, times in row["times_faster"].items() if name.startswith(prefix) else ():
                factors.setdefault(label, []).append(times)
        for label, times in factors.items():
            least, most, met = min(times), max(times), sum(map(target.met, times))
            print(f"{prefix}* beside {label}: {least:.1f} to {most:.1f} x, worst {target.judge(least)}, met by {met} of {len(times)}")


def report_node(node: dict):
    print(f"\n{'node':12} {'frames/s':>9} {'age p50':>9} {'p90':>9} {'p99':>9} {'cores':>6} {'CPU/frame':>10} {'masks/frame':>12}")
    for name in ("scenelex", "python"):
        row = node[name]
        ages = " ".join(f"{row['age_ms'][q]:6.1f} ms" for q in ("p50", "p90", "p99"))
        print(f"{name:12} {row['fps']:9.1f} {ages} {row['cores']:6.2f} {row['cpu_ms_per_frame']:7.1f} ms {row['masks_per_frame']:12.2f}")
    times = node["times_faster"]
    print(f"frames per second, times the Python node's: {times:.2f} (wanted {FRAMES.judge(times)})")
    done = node["work"]
    share = 100 * done["labelled_by_one_only"] / max(1, done["labelled_pixels"][0])
    ours, theirs = done["masks"]
    print(f"in the {done['pictures']} pictures that both labelled: {ours} and {theirs} masks, {share:.1f} % of the labelled pixels differ")


def processor() -> str:
    """This machine's, and which of the vector instructions it has that make the most difference here."""
    cpuinfo = Path("/proc/cpuinfo")
    known = dict(re.findall(r"^(model name|flags)\s*: (.*)", cpuinfo.read_text(), re.MULTILINE)) if cpuinfo.exists() else {}
    vectors = {"avx2": "AVX2", "avx_vnni": "AVX VNNI", "avx512_vnni": "AVX-512 VNNI"}
    found = [name for flag, name in vectors.items() if flag in known.get("flags", "").split()]
    return f"{known.get('model name', platform.machine())} ({', '.join(found) or 'none of ' + ', '.join(vectors.values())})"


def report(summary: dict):
    print(f"\non {summary['cores']} cores of {summary['processor']}")
    report_stages(summary["stages"])
    report_node(summary["node"])
    for size, row in summary["pipeline"].items():
        overhead = row["overhead_ms"]
        share = 100 * overhead / (row["total_ms"] - overhead)
        judged = f" (wanted {OVERHEAD.judge(overhead)}; {OVERHEAD_SHARE.judge(share)})" if size == "1280x720" else ""
        print(f"pipeline {size}: {row['total_ms']:.2f} ms a frame, {overhead:.2f} ms beyond the models, {share:.1f} %{judged}")
    row = summary["transport"]
    judged = TRANSPORT.judge(100 * row["cores"])
    print(f"transport 1280x720 rgb8 at 30 Hz: {row['received']} of {row['sent']} frames, {row['cores']:.3f} cores (wanted {judged})")


def main():
    (ROOT / "out" / "bench").mkdir(parents=True, exist_ok=True)
    pictures, classes = demo_pictures()
    run_criterion()
    pipeline = {
        size: {f"{part}_ms": criterion_ms(f"pipeline/{part}_{size}") for part in ("total", "overhead")}
        for size in ("640x480", "1280x720")
    }
    summary = {
        "cores": os.cpu_count(),
        "processor": processor(),
        "stages": stages(),
        "pipeline": pipeline,
        "node": nodes(pictures, classes),
        "transport": transport(),
    }
    path = ROOT / "out" / "bench" / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    report(summary)
    print(f"written to {path.relative_to(ROOT)}")
    if why := unequal_work(summary["node"]["work"]):
        sys.exit(why)


if __name__ == "__main__":
    main()
