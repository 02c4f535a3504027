"""A camera in front of the node: sends pictures, gathers what the node makes of each."""

from __future__ import annotations

import time

from conftest import COMPRESSED, IMAGE, RESULT, START
from peer import Peer, until
from pictures import stamp_ns

NODE = "/scenelex"
LATCHED = {"vocabulary": "scenelex/msg/Vocabulary", "semantic/label_info": "vision_msgs/msg/LabelInfo"}
PER_FRAME = {
    "masks": "scenelex/msg/LabeledMaskArray",
    "detections": "vision_msgs/msg/Detection2DArray",
    "semantic/image": "sensor_msgs/msg/Image",
    "instances/image": "sensor_msgs/msg/Image",
}


class Camera:
    """Publishes images of one kind, subscribes to some of the node's outputs. `name`: one of the node's several cameras."""

    def __init__(self, peer: Peer, node, compressed=True, outputs=("masks",), name=""):
        topic, kind = (COMPRESSED, "CompressedImage") if compressed else (IMAGE, "Image")
        topic, base = (f"/{name}/image", f"{NODE}/{name}") if name else (topic, NODE)
        self.node = node
        self.images = peer.publisher(topic, f"sensor_msgs/msg/{kind}")
        self.outputs = {output: peer.subscribe(f"{base}/{output}", PER_FRAME[output], depth=100) for output in outputs}
        self.kept = {output: {} for output in outputs}
        # Wall clock by stamp, in nanoseconds, of the last message about an image.
        self.arrived = {}
        # Pictures sent again, see serve().
        self.lost = 0
        # What meetings() was when a picture was last served.
        self.acquainted = None
        until(self.connected, START, "the node's topics")

    def connected(self) -> bool:
        matched = self.images.matched() and all(output.matched() for output in self.outputs.values())
        return self.node.alive() and matched

    def meetings(self) -> list[int]:
        """How often each topic has found its other side so far."""
        readers = [output.reader.get_subscription_matched_status() for output in self.outputs.values()]
        return [status.total_count for status in (self.images.writer.get_publication_matched_status(), *readers)]

    def send(self, image):
        self.images.send(image)

    def collect(self, wait=0.0):
        """Sort what has come by stamp."""
        for name, output in self.outputs.items():
            for sample in output.take(wait):
                self.kept[name][stamp_ns(sample)] = sample
                self.arrived[stamp_ns(sample)] = time.time_ns()

    def result(self, time_ns: int, timeout=RESULT) -> dict:
        """Every subscribed output for the image with this stamp."""

        def complete():
            self.node.alive()
            self.collect(0.02)
            return all(time_ns in samples for samples in self.kept.values())

        until(complete, timeout, f"a result with stamp {time_ns}")
        return {name: samples.pop(time_ns) for name, samples in self.kept.items()}

    def serve(self, image) -> dict:
        """Send an image and wait for its results. Only the first after the two sides met is sent again: it, or what came of
        it, may have been lost before both knew of each other. One lost later is a fault.
        """
        met = self.meetings()
        attempts = 1 if met == self.acquainted else 3
        for attempt in range(attempts):
            self.send(image)
            try:
                found = self.result(stamp_ns(image), RESULT / attempts)
            except TimeoutError:
                if attempt == attempts - 1:
                    raise
                self.lost += 1
            else:
                self.acquainted = met
                return found
        raise AssertionError("not reached")

    def stream(self, images, rate: float):
        """Send images at a fixed rate, gathering results on the way."""
        for image in images:
            due = time.monotonic() + 1 / rate
            self.send(image)
            while (left := due - time.monotonic()) > 0:
                self.collect(min(left, 0.01))


def counters(diagnostics, condition) -> dict[str, int]:
    """The node's counts, as soon as `condition` holds for them."""

    def complete():
        for array in diagnostics.take(timeout=0.5):
            pairs = {pair.key: pair.value for status in array.status for pair in status.values}
            found = {key: int(value) for key, value in pairs.items() if value.isdigit()}
            if condition(found):
                return found
        return None

    return until(complete, RESULT, "counts on /diagnostics")
