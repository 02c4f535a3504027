"""Images no camera should send: each is counted, none stops the node."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from camera import Camera, counters  # noqa: E402
from pictures import compressed, jpeg, raw, scene  # noqa: E402

OFTEN = {"diagnostics.period": 0.1}
SMALL = np.full((48, 64, 3), 90, np.uint8)
RAW = {
    "step shorter than a row": dict(step=10),
    "data shorter than the rows": dict(data=b"\x01" * 100),
    "no data": dict(data=b""),
    "no pixels": dict(height=0, width=0, step=0, data=b""),
    "absurd size": dict(height=2**32 - 1, width=2**32 - 1, step=2**32 - 1),
    "size whose product overflows": dict(height=2**31, width=2**31, step=2**31 + 2),
    "unknown encoding": dict(encoding="rgb9"),
    "empty encoding": dict(encoding=""),
}


def with_size(file: bytes, height: int, width: int) -> bytes:
    """The JPEG with another size in its frame header."""
    start = re.search(rb"\xff[\xc0\xc1\xc2]", file).start()
    return file[: start + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + file[start + 9 :]


def broken_jpegs(file: bytes) -> dict[str, bytes]:
    return {
        "nothing": b"",
        "not a picture": b"\x00" * 5000,
        "cut off": file[: len(file) // 3],
        "head only": file[:20],
        "absurd size in the header": with_size(file, 65500, 65500),
        "PNG signature and rubbish": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    }


def run_through(camera, peer, bad: dict, good) -> set[str]:
    """Every bad image is counted, and after each a good one is served; the kinds of faults counted."""
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=100)
    # From here on no picture is sent again.
    camera.serve(good(1000))
    for number, (name, image) in enumerate(bad.items(), start=1):
        camera.send(image)
        # Counted before the good one comes, which would take its place.
        counts = counters(diagnostics, lambda found: found["bad_images"] >= number)
        assert counts["bad_images"] == number, name
        camera.serve(good(1000 + number))
    kinds = {key: count for key, count in counts.items() if key.startswith("bad_images.")}
    assert sum(kinds.values()) == len(bad), kinds
    return kinds.keys()


def test_raw(node, peer):
    camera = Camera(peer, node(OFTEN, compressed=False), compressed=False)
    bad = {name: raw(SMALL, number + 1, **fields) for number, (name, fields) in enumerate(RAW.items())}
    kinds = run_through(camera, peer, bad, lambda stamp: raw(SMALL, stamp))
    assert len(kinds) >= 4, f"different faults are counted apart: {kinds}"


def test_compressed(node, peer):
    camera = Camera(peer, node(OFTEN))
    good = jpeg(scene({(1, 1): "red"}))
    bad = {name: compressed(data, n + 1) for n, (name, data) in enumerate(broken_jpegs(good).items())}
    run_through(camera, peer, bad, lambda stamp: compressed(good, stamp))
