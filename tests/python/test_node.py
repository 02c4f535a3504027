"""`scenelex node` seen from another ROS 2 implementation, with models whose right answer is known."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="the Python package cyclonedds is not installed (no wheel for this machine)")

from camera import LATCHED, NODE, PER_FRAME, Camera, counters  # noqa: E402
from conftest import COLOURS, COMPRESSED, RESULT, ROOT  # noqa: E402
from peer import until  # noqa: E402
from pictures import (  # noqa: E402
    HEIGHT,
    WIDTH,
    cell,
    compressed,
    jpeg,
    mask,
    overlap,
    painted,
    pixels,
    raw,
    scene,
    stamp_ns,
)

CELLS = {(0, 0): "red", (2, 1): "blue", (3, 2): "yellow", (1, 2): "green"}
# Value of a pixel without a class in an 8-bit semantic image.
UNLABELLED = 255


def check_masks(masks, cells=CELLS):
    """Every painted cell is one labelled mask, and nothing else is."""
    assert (masks.height, masks.width) == (HEIGHT, WIDTH)
    assert sorted(one.label for one in masks.masks) == sorted(cells.values())
    places = {colour: place for place, colour in cells.items()}
    for one in masks.masks:
        rows, columns = cell(*places[one.label])
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        expected[rows, columns] = 1
        assert overlap(mask(one.counts, HEIGHT, WIDTH), expected) > 0.9, one.label
        box = one.bbox
        assert abs(box.x_offset - columns.start) <= 2 and abs(box.x_offset + box.width - columns.stop) <= 2
        assert abs(box.y_offset - rows.start) <= 2 and abs(box.y_offset + box.height - rows.stop) <= 2
        assert 0.5 < one.score <= 1
        assert one.phrase == one.label


def test_every_output_of_a_frame(node, peer):
    camera = Camera(peer, node(), outputs=tuple(PER_FRAME))
    latched = {name: peer.subscribe(f"{NODE}/{name}", kind, latched=True) for name, kind in LATCHED.items()}
    vocabulary = latched["vocabulary"].wait(timeout=RESULT)
    names = {entry.class_id: entry.label for entry in vocabulary.entries}
    assert list(names.values()) == list(COLOURS)
    assert (vocabulary.version, vocabulary.source) == (1, "configuration")
    info = latched["semantic/label_info"].wait(timeout=RESULT)
    assert {c.class_id: c.class_name for c in info.class_map} == names

    for number in (1_700_000_000_123_456_789, 5):
        got = camera.serve(compressed(jpeg(scene(CELLS)), number))
        assert {m.header.frame_id for m in got.values()} == {"camera_optical_frame"}
        masks, detections = got["masks"], got["detections"]
        check_masks(masks)
        assert masks.vocabulary_version == 1
        assert masks.vocabulary_age.sec >= 0
        durations = {s.stage: s.duration.sec * 10**9 + s.duration.nanosec for s in masks.stages}
        assert {"decode", "detect", "encode_image", "decode_masks", "models", "total", "queue"} <= durations.keys()
        assert durations["total"] >= durations["models"] > 0
        assert all(names[one.class_id] == one.label for one in masks.masks)
        assert len({one.instance_id for one in masks.masks}) == len(masks.masks)

        semantic, instances = got["semantic/image"], got["instances/image"]
        assert (semantic.encoding, instances.encoding) == ("mono8", "mono16")
        classes = painted(masks.masks, HEIGHT, WIDTH, lambda m: m.class_id, UNLABELLED)
        assert np.array_equal(pixels(semantic), classes)
        assert np.array_equal(pixels(instances), painted(masks.masks, HEIGHT, WIDTH, lambda m: m.instance_id))

        by_id = {d.id: d for d in detections.detections}
        assert by_id.keys() == {str(one.instance_id) for one in masks.masks}
        for one in masks.masks:
            found = by_id[str(one.instance_id)]
            assert found.results[0].hypothesis.class_id == one.label
            assert found.results[0].hypothesis.score == pytest.approx(one.score, abs=1e-6)
            centre = one.bbox.x_offset + one.bbox.width / 2, one.bbox.y_offset + one.bbox.height / 2
            assert (found.bbox.center.position.x, found.bbox.center.position.y) == pytest.approx(centre, abs=1)
            assert (found.bbox.size_x, found.bbox.size_y) == pytest.approx((one.bbox.width, one.bbox.height), abs=2)


@pytest.mark.parametrize(("encoding", "padding"), [("rgb8", 0), ("bgr8", 24)])
def test_raw_images(node, peer, encoding, padding):
    camera = Camera(peer, node(compressed=False), compressed=False)
    check_masks(camera.serve(raw(scene(CELLS), 1, encoding, padding))["masks"])
    # Another size, another scene, in the same process.
    small = {(1, 1): "red"}
    check_masks(camera.serve(raw(scene(small), 2, encoding, padding))["masks"], small)


def test_a_frame_without_objects_has_a_result_too(node, peer):
    camera = Camera(peer, node(), outputs=tuple(PER_FRAME))
    got = camera.serve(compressed(jpeg(scene({})), 1))
    assert got["masks"].masks == [] and got["detections"].detections == []
    assert set(np.unique(pixels(got["semantic/image"]))) == {UNLABELLED}
    assert set(np.unique(pixels(got["instances/image"]))) == {0}


def test_overlay_is_made_only_while_somebody_listens(node, peer):
    running = node()
    camera = Camera(peer, running)
    rgb = scene(CELLS)
    camera.serve(compressed(jpeg(rgb), 1))
    time.sleep(0.5)  # its masks are there, its overlay would come last
    overlays = peer.subscribe(f"{NODE}/overlay/image", "sensor_msgs/msg/Image")
    until(lambda: running.alive() and overlays.matched(), RESULT, "the overlay's publisher")
    assert overlays.take(timeout=1.0) == [], "an overlay of a frame from before the subscription"
    camera.serve(compressed(jpeg(rgb), 2))
    overlay = overlays.wait(lambda o: stamp_ns(o) == 2, RESULT)
    assert (overlay.height, overlay.width, overlay.encoding) == (HEIGHT, WIDTH, "rgb8")
    shown = np.frombuffer(overlay.data, np.uint8).reshape(overlay.height, overlay.step)[:, : 3 * overlay.width]
    changed = np.abs(shown.reshape(rgb.shape).astype(int) - rgb).max(axis=2) > 24
    assert changed.mean() > 0.02, "nothing was drawn"
    assert (~changed).mean() > 0.3, "the picture itself is gone"


def test_newest_picture_wins(node, peer):
    """Many more pictures than can be served: results keep their order, end with the last picture, drops are counted."""
    camera = Camera(peer, node())
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=100)
    picture, sent = jpeg(scene(CELLS)), 1500
    camera.serve(compressed(picture, 10**6))
    camera.kept["masks"].clear()
    camera.stream([compressed(picture, 10**6 + n) for n in range(1, sent + 1)], rate=2000)
    camera.result(10**6 + sent)
    stamps = list(camera.kept["masks"])
    assert stamps == sorted(stamps)
    assert 0 < len(stamps) < sent

    def settled(found):  # Reports from the middle of the stream may hold no picture under way either.
        return len(stamps) <= found["processed"] == found["received"] - found["dropped"]

    counts = counters(diagnostics, settled)
    assert counts["dropped"] > 0
    assert counts["bad_images"] == 0


def model_time_ns(masks) -> int:
    """How long the models took for this result, as it says itself."""
    (models,) = (stage.duration for stage in masks.stages if stage.stage == "models")
    return models.sec * 10**9 + models.nanosec


def stamped_now(files, count: int):
    """So many pictures, each with the time at which it is asked for."""
    for file in itertools.islice(itertools.cycle(files), count):
        yield compressed(file, time.time_ns())


def check_ages(camera, files, rate: float, sent: int):
    """Streams pictures faster than they can be labelled; every result is fresh, the last one included."""
    # What the wire and a busy machine may add. A queue of 64 pictures adds 1.07 s at 60 a second, and more where it is the
    # newest that finds no place in it.
    slack_ns = 300_000_000
    camera.kept["masks"].clear()
    camera.stream(stamped_now(files, sent), rate)
    last = compressed(files[0], time.time_ns())
    camera.send(last)
    until(lambda: camera.collect(0.02) or stamp_ns(last) in camera.kept["masks"], RESULT, "the last picture's result")
    results = camera.kept["masks"]
    assert 3 <= len(results) < sent / 2, "the node is the slower one"
    ages = {stamp: camera.arrived[stamp] - stamp for stamp in results}
    # The picture waits for the one before it, which may have taken longer, then for its own models.
    before = 0
    for stamp, masks in results.items():
        own = model_time_ns(masks)
        assert ages[stamp] < 2 * max(own, before) + slack_ns, f"ages in ms: {[age // 10**6 for age in ages.values()]}"
        before = own


@pytest.mark.parametrize("reliability", ["best_effort", "reliable"])
def test_a_slow_node_shows_the_world_as_it_is_now(node, peer, demo_bag, reliability):
    """A reader of the middleware may hold many pictures more than it is asked to: one after the other, they would show a slow
    node the world of seconds ago.
    """
    threads = {f"threads.{model}": 1 for model in ("detector", "image_encoder", "mask_decoder", "resolve")}
    shipped = {"models_dir": ROOT / "models" / "sim", "classes": f"[{', '.join(demo_bag.classes())}]"}
    camera = Camera(peer, node(shipped | threads | {"qos.image.reliability": reliability}))
    files = [picture.jpeg for picture in demo_bag.pictures]
    for number in range(3):  # the first ones take longer
        masks = camera.serve(compressed(files[0], number))["masks"]
    # Several pictures in the time of one result, however fast the machine is.
    rate = max(60.0, 4e9 / model_time_ns(masks))
    check_ages(camera, files, rate, sent=300)


def test_names_and_types_on_the_graph(node, peer):
    running = node()
    expected = {
        f"rt{COMPRESSED}": "sensor_msgs::msg::dds_::CompressedImage_",
        f"rt{NODE}/masks": "scenelex::msg::dds_::LabeledMaskArray_",
        f"rt{NODE}/detections": "vision_msgs::msg::dds_::Detection2DArray_",
        f"rt{NODE}/semantic/image": "sensor_msgs::msg::dds_::Image_",
        f"rt{NODE}/semantic/label_info": "vision_msgs::msg::dds_::LabelInfo_",
        f"rt{NODE}/instances/image": "sensor_msgs::msg::dds_::Image_",
        f"rt{NODE}/overlay/image": "sensor_msgs::msg::dds_::Image_",
        f"rt{NODE}/vocabulary": "scenelex::msg::dds_::Vocabulary_",
        f"rt{NODE}/set_vocabulary": "std_msgs::msg::dds_::String_",
        "rt/diagnostics": "diagnostic_msgs::msg::dds_::DiagnosticArray_",
        f"rq{NODE}/set_vocabularyRequest": "scenelex::srv::dds_::SetVocabulary_Request_",
        f"rr{NODE}/set_vocabularyReply": "scenelex::srv::dds_::SetVocabulary_Response_",
    }
    found = {}

    def complete():
        running.alive()
        found.update(peer.topics())
        return expected.items() <= found.items()

    try:
        until(complete, RESULT, "every topic")
    except TimeoutError:
        assert found == found | expected


def camera_status(diagnostics, part):
    """What /diagnostics says of the camera, once `part` is in it."""

    def said():
        found = [status for array in diagnostics.take(0.3) for status in array.status if status.name == "scenelex: frames"]
        return next((status.message for status in found if part in status.message), None)

    return until(said, RESULT, f"{part!r} on /diagnostics")


def test_a_camera_whose_quality_does_not_fit_is_not_called_absent(node, peer):
    """The node asks for reliable images here; most cameras offer best effort."""
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)
    running = node({"diagnostics.period": 0.2})
    camera_status(diagnostics, "nobody publishes")
    camera = peer.publisher(COMPRESSED, "sensor_msgs/msg/CompressedImage", reliable=False)
    said = camera_status(diagnostics, "qos.image.reliability")
    assert COMPRESSED in said and "(reliability)" in said
    camera_status(diagnostics, "qos.image.reliability")
    assert running.output().count("qos.image.reliability") == 1, "it is logged, once"
    assert not camera.matched()


def test_a_camera_of_the_other_image_transport_is_named(node, peer):
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)
    running = node({"diagnostics.period": 0.2})
    camera = peer.publisher(COMPRESSED, "sensor_msgs/msg/Image")
    camera_status(diagnostics, "published as sensor_msgs/msg/Image: set image_transport to raw")
    assert running.alive() and not camera.matched()


def test_what_a_long_class_list_costs_is_told(node, peer):
    """The tiny detector reads 16 tokens, two of which frame a caption: these names and their full stops have 17."""
    diagnostics = peer.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", depth=10)
    node({"diagnostics.period": 0.2})
    counters(diagnostics, lambda found: found.get("detector_runs_per_frame") == 1)
    names = ["mug", "ball", "traffic cone", "chair", "cup", "box", "red", "blue"]
    answer = peer.call(f"{NODE}/set_vocabulary", "scenelex/srv/SetVocabulary", timeout=RESULT, classes=names)
    assert answer.success, answer.message
    found = counters(diagnostics, lambda found: found.get("detector_runs_per_frame") == 2)
    assert found["image_batch"] == 1, "one camera"
