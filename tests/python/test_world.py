"""The simulated world: what is held out, the meshes' geometry, and the shards' labels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="the Python package numpy is not installed")

SIM = Path(__file__).resolve().parents[2] / "models" / "sim"
sys.path[:0] = [str(SIM), str(SIM / "train")]

from detector_words import UNTRAINED_ABSENT_WORDS, plural  # noqa: E402
from scenelex_sim import meshes, taxonomy  # noqa: E402
from scenelex_sim.objects import BUILDERS, distractor  # noqa: E402
from text_features import training_phrases  # noqa: E402

MUJOCO = "the Python package mujoco is not installed"


def test_words_are_held_out():
    assert len(taxonomy.CATEGORIES) >= 24 and len(taxonomy.COLORS) >= 10
    assert list(taxonomy.HELD_OUT_WORDS) == taxonomy.CATEGORIES == list(BUILDERS)
    trained = Counter(w for words in taxonomy.TRAIN_WORDS.values() for w in words)
    held = Counter(w for words in taxonomy.HELD_OUT_WORDS.values() for w in words)
    assert not set(trained) & set(held)
    assert max((trained + held).values()) == 1, "a word names one category"
    assert all(words[0] == c for c, words in taxonomy.TRAIN_WORDS.items())


def test_no_training_prompt_is_a_held_out_word():
    """Prompts are made from the trained words: with articles, with colours and in the plural."""
    colours = "|".join(taxonomy.COLOR_NAMES)
    bare = {re.sub(rf"^(an? |the )?(({colours}) )?|( that is ({colours}))?$", "", text) for text, *_ in training_phrases()}
    assert {w for words in taxonomy.TRAIN_WORDS.values() for w in words} < bare
    held = [w for words in taxonomy.HELD_OUT_WORDS.values() for w in words]
    assert not bare & {form for word in [*held, *UNTRAINED_ABSENT_WORDS] for form in (word, plural(word))}


def test_pairs_are_held_out_evenly():
    pairs = taxonomy.HELD_OUT_PAIRS
    assert {c for _, c in pairs} == set(taxonomy.CATEGORIES)
    assert {k for k, _ in pairs} == set(taxonomy.COLORS)
    share = len(pairs) / (len(taxonomy.COLORS) * len(taxonomy.CATEGORIES))
    assert 0.08 < share < 0.16


def volume(m: meshes.Mesh) -> float:
    """Signed volume by the divergence theorem: positive where triangles face outwards."""
    a, b, c = (m.v[m.f[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def test_meshes_face_outwards_and_have_the_volume_of_their_shape():
    assert volume(meshes.box(2, 3, 4)) == pytest.approx(24)
    assert volume(meshes.sphere(1.0, 96)) == pytest.approx(4 / 3 * np.pi, rel=0.01)
    assert volume(meshes.cylinder(1.0, 2.0, 128)) == pytest.approx(2 * np.pi, rel=0.01)
    assert volume(meshes.torus(2.0, 0.5, 128, 48)) == pytest.approx(2 * np.pi**2 * 2 * 0.25, rel=0.01)
    assert volume(meshes.tube([(0, 0, 0), (0, 0, 1), (0, 0, 3)], 0.5, 96)) == pytest.approx(0.75 * np.pi, rel=0.01)
    square = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    assert volume(meshes.prism(square, 0.5)) == pytest.approx(2.0)
    assert volume(meshes.leaf(1.0, 0.4, 0.5)) > 0


@pytest.mark.parametrize("name", [*BUILDERS, "distractor"])
def test_every_builder_makes_sound_and_varied_objects(name):
    build = BUILDERS.get(name, distractor)
    spans = []
    for seed in range(25):
        built = build(np.random.default_rng(seed))
        assert "main" in built.parts
        for m in built.parts.values():
            assert np.isfinite(m.v).all() and np.isfinite(m.uv).all()
            assert m.v.shape == (len(m.uv), 3) and m.f.min() >= 0 and m.f.max() < len(m.v)
        v = np.concatenate([m.v for m in built.parts.values()])
        spans.append(np.ptp(v, axis=0))
        assert 0.2 < spans[-1].max() < 2.5 and spans[-1].min() > 0.02
        if name != "distractor":
            assert abs(v[:, 2].min()) < 0.06, "stands on z = 0"
    assert np.std(spans, axis=0).max() > 0.005


@pytest.fixture(scope="module")
def gl():
    pytest.importorskip("mujoco", reason=MUJOCO)
    probe = subprocess.run(
        [sys.executable, "-c", "from scenelex_sim.render import Renderer; Renderer(32, 32).close()"],
        env=os.environ | {"PYTHONPATH": str(SIM)}, capture_output=True, text=True,
    )  # fmt: skip
    if probe.returncode != 0:
        pytest.skip(f"no offscreen OpenGL here: {probe.stderr.strip().splitlines()[-1:]}")


def held_share(frames) -> tuple[int, int]:
    rows = [(taxonomy.COLOR_NAMES[k], taxonomy.CATEGORIES[c]) for c, k in zip(frames["category"].ravel(), frames["color"].ravel()) if c >= 0 and k >= 0]
    return sum(r in taxonomy.HELD_OUT_PAIRS for r in rows), len(rows)


def test_frames_and_labels_belong_together(gl):
    from scenelex_sim.dataset import render_small

    train, pairs = render_small("train", 24, 160, 120), render_small("pairs", 16, 160, 120)
    held, coloured = held_share(train)
    assert held == 0 and coloured > 50
    held, coloured = held_share(pairs)
    assert held > 0.25 * coloured
    for frames in (train, pairs):
        assert frames["rgb"].std(axis=(1, 2, 3)).min() > 1, "no empty picture"
        for instance, category, ignore in zip(frames["instance"], frames["category"], frames["ignore"]):
            present = set(np.unique(instance)) - {0}
            assert present == {k + 1 for k in np.flatnonzero(category >= 0)}
            small = {k for k in present if (instance == k).sum() < 0.0015 * instance.size}
            assert small <= {k + 1 for k in np.flatnonzero(ignore)}
    again = render_small("train", 8, 160, 120)
    assert all((again[key] == train[key][:8]).all() for key in ("category", "color", "pattern", "scene"))


def test_shards_are_resumed(gl, tmp_path):
    command = [sys.executable, "-m", "scenelex_sim.dataset", "--out", str(tmp_path), "--split", "val", "--count", "264", "--procs", "2", "--width", "64", "--height", "48"]
    env = os.environ | {"PYTHONPATH": str(SIM)}
    (tmp_path / "shard_00000.npz").write_bytes(b"kept as it is")
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert (tmp_path / "shard_00000.npz").read_bytes() == b"kept as it is"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard_00000.npz", "shard_00001.npz"]
    with np.load(tmp_path / "shard_00001.npz") as z:
        assert z["rgb"].shape == (8, 48, 64, 3) and z["scene"].min() == 32


@pytest.mark.parametrize("room", [False, True])
def test_paths_never_end(room):
    """Far beyond one pass the camera still moves, smoothly, above what it looks at and not away from it."""
    pytest.importorskip("mujoco", reason=MUJOCO)
    from scenelex_sim.camera import FOVY, build_world
    from scenelex_sim.paths import PATHS, make_path

    world, seconds, step = build_world(3, 64, 48, room), 10.0, 0.1
    for kind in PATHS:
        path = make_path(kind, world, np.random.default_rng(3), seconds, FOVY)
        first = np.array([path(t)[0] for t in np.arange(0, 2 * seconds, step)])
        reach = np.linalg.norm(first - first.mean(0), axis=1).max()
        fastest = np.linalg.norm(np.diff(first, axis=0), axis=1).max()
        for begin in (2 * seconds, 40 * seconds, 8640 * seconds):
            poses = [path(t) for t in np.arange(begin, begin + 2 * seconds, step)]
            eyes, targets = np.array([p[0] for p in poses]), np.array([p[1] for p in poses])
            assert np.isfinite(eyes).all() and np.isfinite(targets).all() and all(np.isfinite(p[2]) for p in poses)
            assert (eyes[:, 2] > world.table_z + 0.1 * world.unit).all() and (eyes[:, 2] > targets[:, 2]).all()
            moves = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
            assert moves.max() < 1.5 * fastest and np.ptp(eyes, axis=0).max() > 0.3 * reach, kind
            assert np.linalg.norm(eyes - first.mean(0), axis=1).max() < 3.5 * reach, kind
    around = make_path("orbit", world, np.random.default_rng(3), seconds, FOVY)
    sides = [np.degrees(np.arctan2(*(around(t)[0] - around(t)[1])[1::-1])) for t in np.arange(0, 3.7 * seconds, step)]
    assert np.histogram(sides, bins=12, range=(-180, 180))[0].min() > 0, "all the way round"


@pytest.fixture
def camera(gl):
    """A camera over a table, one sample a pixel: an object's edge is where its label's is."""
    from scenelex_sim.camera import Camera

    camera = Camera(3, 160, 120, "handheld", 10.0, samples=0)
    camera.shoot(2.5)
    yield camera
    camera.close()


def test_labels_and_depth_are_of_the_pixels_that_show_the_object(camera):
    """An object that is taken away changes the picture where its mask is, and the distance there, and nothing else."""
    from scenelex_sim.world import HIDDEN_GROUP

    model, draw = camera.world.model, camera.renderer.draw
    model.light_castshadow[:] = 0
    rgb, instance, metres = draw(True, True, True)
    seen = [(k, item) for k, item in enumerate(camera.world.items) if (instance == k + 1).sum() >= 100]
    assert len(seen) >= 8
    for k, item in seen:
        mask, its = instance == k + 1, model.geom_bodyid == item.body
        groups = model.geom_group[its].copy()
        model.geom_group[its] = HIDDEN_GROUP
        without, labels, behind = draw(True, True, True)
        model.geom_group[its] = groups
        changed, farther = (without != rgb).any(-1), behind > metres + 1e-3
        assert (changed & mask).sum() > 0.9 * mask.sum(), f"item {k}"
        # Light is interpolated over large triangles: a few pixels of the surroundings change by a level or so.
        assert (changed & mask).sum() > 0.7 * changed.sum(), f"item {k}"
        assert (farther & mask).sum() > 0.9 * mask.sum() and not (farther & ~mask).any(), f"item {k}"
        assert (labels[~mask] == instance[~mask]).all() and not (labels == k + 1).any(), f"item {k}"


def test_labels_and_depth_are_where_a_ray_meets_the_scene(camera):
    """MuJoCo's ray casting knows nothing of the renderer: what a pixel's ray hits, how far away, and that it hits nothing."""
    import mujoco  # after scenelex_sim, which chooses its OpenGL

    from scenelex_sim.world import HIDDEN_GROUP

    world, drawn = camera.world, np.arange(mujoco.mjNGROUP) != HIDDEN_GROUP
    eye, target, roll = camera.path(2.5)
    hit = np.zeros(1, np.int32)
    for aim, some in ((target, 0.0), (eye + [0.3, 0, 1], 0.3)):  # at the table, and at the sky above the walls
        camera.path = lambda t, aim=aim: (eye, aim, roll)
        shot, instance = camera.shoot(0.0), camera.renderer.draw(False, True)[1]
        (position, axes), f = camera.pose(), camera.focal()
        good, empty = [], []
        for v in range(2, 120, 6):
            for u in range(2, 160, 6):
                ray = axes @ [(u - 79.5) / f, -(v - 59.5) / f, -1.0]
                length = np.linalg.norm(ray)
                far = mujoco.mj_ray(world.model, world.data, position, ray / length, drawn.astype(np.uint8), 1, -1, hit)
                empty.append(far < 0)
                mm, item = (1000 * far / length, world.geom_item[hit[0]] + 1) if far >= 0 else (0, 0)
                good.append(abs(mm - shot.depth_mm[v, u]) <= 2 and item == instance[v, u])
        assert np.mean(good) > 0.97, "all but rays along an edge"
        assert np.mean(empty) >= some and abs((shot.depth_mm == 0).mean() - np.mean(empty)) < 0.05


def test_a_camera_draws_what_is_wanted_and_nothing_else(gl):
    from scenelex_sim.camera import Camera

    camera = Camera(3, 160, 120, "handheld", 10.0)
    whole = camera.shoot(2.5)
    assert (whole.rgb.shape, whole.rgb.dtype) == ((120, 160, 3), np.uint8) and whole.rgb.std() > 1
    assert (whole.numbers.dtype, whole.depth_mm.dtype) == (np.uint16, np.uint16)
    assert ((whole.classes == 0) == (whole.numbers == 0)).all() and (whole.classes > 0).any()
    assert 0 < np.median(whole.depth_mm) < 10_000
    for wanted in ("colour", "labels", "depth"):
        shot = camera.shoot(2.5, **{kind: kind == wanted for kind in ("colour", "labels", "depth")})
        assert [image is not None for image in (shot.rgb, shot.classes, shot.numbers, shot.depth_mm)] == [
            wanted == "colour", wanted == "labels", wanted == "labels", wanted == "depth"
        ]  # fmt: skip
        for image, same in ((shot.classes, whole.classes), (shot.numbers, whole.numbers), (shot.depth_mm, whole.depth_mm)):
            assert image is None or (image == same).all(), "a picture in between changes nothing"
    camera.close()


def test_messages_hold_what_they_are_made_of():
    pytest.importorskip("mujoco", reason=MUJOCO)
    pytest.importorskip("rosbags", reason="the Python package rosbags is not installed")
    from scenelex_sim import bag

    store = bag.typestore()
    make, stamp = bag.messages(store), 5_000_000_007
    make.frame = "front"
    rng = np.random.default_rng(1)
    rgb, ids = rng.integers(0, 256, (3, 5, 3), dtype=np.uint8), rng.integers(0, 65536, (3, 5), dtype=np.uint16)

    def received(message):
        return store.deserialize_cdr(store.serialize_cdr(message, message.__msgtype__), message.__msgtype__)

    colour, numbers, depth = (received(m) for m in (make.image(stamp, "rgb8", rgb), make.instances(stamp, ids), make.depth(stamp, ids)))
    for image, step in ((colour, 15), (numbers, 10), (depth, 10)):
        assert (image.height, image.width, image.step, image.is_bigendian) == (3, 5, step, 0)
        assert (image.header.stamp.sec, image.header.stamp.nanosec, image.header.frame_id) == (5, 7, "front")
    assert (colour.encoding, numbers.encoding, depth.encoding) == ("rgb8", "mono16", "16UC1")
    assert bytes(colour.data) == rgb.tobytes() and (np.frombuffer(depth.data, "<u2").reshape(3, 5) == ids).all()
    info = received(make.camera_info(stamp, 640, 480, 500.0))
    assert (info.width, info.height, info.k[0], info.k[2], info.k[5], info.p[6]) == (640, 480, 500, 319.5, 239.5, 239.5)
    # Of every second row and column from the first on, pixel (0, 0) is still the whole's, and the ray of any other its double's.
    for width, height in ((640, 480), (641, 479)):
        whole, half = make.camera_info(stamp, width, height, 500.0), received(make.camera_info(stamp, width, height, 500.0, 2))
        u, v = np.arange(half.width), np.arange(half.height)
        assert (half.width, half.height) == (len(range(0, width, 2)), len(range(0, height, 2)))
        np.testing.assert_allclose((u - half.k[2]) / half.k[0], (2 * u - whole.k[2]) / whole.k[0], atol=1e-12)
        np.testing.assert_allclose((v - half.p[6]) / half.p[5], (2 * v - whole.p[6]) / whole.p[5], atol=1e-12)
    names = {c.class_id: c.class_name for c in received(make.label_info(stamp)).class_map}
    assert names == {0: "background", 255: "ignore"} | {k + 1: name for k, name in enumerate(taxonomy.CATEGORIES)}
    # Level, looking along the world's +x: z of the optical frame is forward, x right (the world's -y), y down.
    level = np.stack([[0, -1, 0], [0, 0, 1], [-1, 0, 0]], 1).astype(float)
    (moved,) = received(make.transform(stamp, np.array([1.0, 2, 3]), level)).transforms
    q = moved.transform.rotation
    assert (moved.header.frame_id, moved.child_frame_id, moved.transform.translation.z) == ("world", "front", 3)
    assert abs(np.dot([q.x, q.y, q.z, q.w], [-0.5, 0.5, -0.5, 0.5])) == pytest.approx(1)
