#!/usr/bin/env python3
"""A ROS 2 node in Python that does what `scenelex node` does, with the same ONNX files: the bench's counterpart.

    python_node.py MODELS TOPIC THREADS DOMAIN CLASS...
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

from idl_from_msg import default, message  # noqa: E402
from peer import Peer  # noqa: E402
from python_pipeline import PythonPipeline  # noqa: E402


def labelled_masks(header, found, shape):
    """The result as the message of `~/masks`."""
    array = default("scenelex/msg/LabeledMaskArray", header=header, height=shape[0], width=shape[1])
    region = message("sensor_msgs/msg/RegionOfInterest")
    for number, item in enumerate(found, start=1):
        x0, y0 = np.maximum(np.floor(item["box"][:2]), 0).astype(int).tolist()
        x1, y1 = np.minimum(np.ceil(item["box"][2:]), shape[::-1]).astype(int).tolist()
        array.masks.append(
            default(
                "scenelex/msg/LabeledMask",
                instance_id=number,
                class_id=item["class_id"],
                label=item["label"],
                phrase=item["label"],
                score=item["score"],
                mask_score=item["mask_score"],
                bbox=region(x_offset=x0, y_offset=y0, height=y1 - y0, width=x1 - x0, do_rectify=False),
                counts=item["counts"],
            )
        )
    return array


def detections(header, found):
    """The same for `~/detections`, without the masks."""
    array = default("vision_msgs/msg/Detection2DArray", header=header)
    for number, item in enumerate(found, start=1):
        x0, y0, x1, y1 = item["box"].tolist()
        result = default("vision_msgs/msg/ObjectHypothesisWithPose")
        result.hypothesis.class_id, result.hypothesis.score = item["label"], item["score"]
        box = default("vision_msgs/msg/BoundingBox2D", size_x=x1 - x0, size_y=y1 - y0)
        box.center.position.x, box.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
        array.detections.append(default("vision_msgs/msg/Detection2D", header=header, results=[result], bbox=box, id=str(number)))
    return array


def label_image(header, pixels: np.ndarray, encoding: str):
    height, width = pixels.shape
    return default(
        "sensor_msgs/msg/Image",
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        step=width * pixels.itemsize,
        data=pixels.tobytes(),
    )


def main():
    models, topic, threads, domain, *classes = sys.argv[1:]
    pipeline = PythonPipeline(Path(models), classes, int(threads))
    peer = Peer(int(domain))
    images = peer.subscribe(topic, "sensor_msgs/msg/CompressedImage", reliable=False, depth=1)
    masks = peer.publisher("/scenelex/masks", "scenelex/msg/LabeledMaskArray")
    boxes = peer.publisher("/scenelex/detections", "vision_msgs/msg/Detection2DArray")
    semantic = peer.publisher("/scenelex/semantic/image", "sensor_msgs/msg/Image")
    instances = peer.publisher("/scenelex/instances/image", "sensor_msgs/msg/Image")
    while True:
        for sample in images.take(timeout=1.0)[-1:]:
            image = np.asarray(Image.open(io.BytesIO(sample.data)))
            shape = image.shape[:2]
            found = pipeline.process(image)
            classes_image, instance_image = pipeline.resolve(found, shape)
            masks.send(labelled_masks(sample.header, found, shape))
            boxes.send(detections(sample.header, found))
            semantic.send(label_image(sample.header, classes_image, "mono8"))
            instances.send(label_image(sample.header, instance_image, "mono16"))


if __name__ == "__main__":
    main()
