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
        # First pictures sent again: they, or their results, were lost before both sides knew of each other.
        self.lost = 0
        until(self.connected, START, "the node's topics")

    def connected(self) -> bool:
        matched = self.images.matched() and all(output.matched() for output in self.outputs.values())
        return self.node.alive() and matched

    def send(self, image):
        self.images.send(image)

    def collect(self, wait=0.0):
        """Sort what has come by stamp."""
        for name, output in self.outputs.items():
            for sample in output.take(wait):
                self.kept[name][stamp_ns(sample)] = sample

    def result(self, time_ns: int, timeout=RESULT) -> dict:
        """Every subscribed output for the image with this stamp."""

        def complete():
            self.node.alive()
            self.collect(0.02)
            return all(time_ns in samples for samples in self.kept.values())

        until(complete, timeout, f"a result with stamp {time_ns}")
        return {name: samples.pop(time_ns) for name, samples in self.kept.items()}

    def serve(self, image) -> dict:
        """Send an image and wait for its results; once more where the first was lost on the way."""
        for attempt in range(3):
            self.send(image)
            try:
                return self.result(stamp_ns(image), RESULT / 3)
            except TimeoutError:
                if attempt == 2:
                    raise
                self.lost += 1
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
