"""The simulated world: what is held out, the meshes' geometry, and the shards' labels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="the Python package numpy is not installed")

SIM = Path(__file__).resolve().parents[2] / "models" / "sim"
sys.path.insert(0, str(SIM))

from scenelex_sim import meshes, taxonomy  # noqa: E402
from scenelex_sim.objects import BUILDERS, distractor  # noqa: E402


def test_words_are_held_out():
    assert len(taxonomy.CATEGORIES) >= 24 and len(taxonomy.COLORS) >= 10
    assert list(taxonomy.HELD_OUT_WORDS) == taxonomy.CATEGORIES == list(BUILDERS)
    trained = Counter(w for words in taxonomy.TRAIN_WORDS.values() for w in words)
    held = Counter(w for words in taxonomy.HELD_OUT_WORDS.values() for w in words)
    assert not set(trained) & set(held)
    assert max((trained + held).values()) == 1, "a word names one category"
    assert all(words[0] == c for c, words in taxonomy.TRAIN_WORDS.items())


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
    pytest.importorskip("mujoco", reason="the Python package mujoco is not installed")
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
