"""What .ci/test.py makes of the test runners' output: which tests did not run, and whether they had to."""

from __future__ import annotations

import runpy

import pytest

from conftest import ROOT

GATES = runpy.run_path(str(ROOT / ".ci" / "test.py"), run_name="gates")
NO_PEER = "the Python package cyclonedds is not installed (no wheel for this machine)"

# libtest with --show-output.
RUST = """\

running 3 tests
test a_fast_one ... ok
test a_real_recording_is_read ... ok
test a_wrong_one ... FAILED

successes:

---- a_fast_one stdout ----
| fault | seconds |

---- a_real_recording_is_read stdout ----
skipped: shared/data is not on this machine


successes:
    a_fast_one
    a_real_recording_is_read

failures:

---- a_wrong_one stdout ----
skipped: not what this one is about


failures:
    a_wrong_one

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

"""


def test_rust_tests_that_were_skipped_are_told_and_nothing_else_of_those_that_passed():
    gate = GATES["RustTests"]()
    shown = "".join(line for line in RUST.splitlines(keepends=True) if gate.shows(line))
    assert dict(gate.skipped()) == {"shared/data is not on this machine": 1}
    assert "| fault |" not in shown and "not what this one is about" in shown
    assert "test a_fast_one ... ok" in shown and "test result: FAILED" in shown
    assert gate.refused() == []


@pytest.mark.parametrize("debian", [True, False])
def test_a_rust_test_may_be_skipped_only_for_what_set_up_cannot_mend(debian):
    gate = GATES["RustTests"](debian)
    allowed = ["/a b/scenelex/../shared/data/bags/tum_rgbd_5frames is not on this machine", "this ONNX Runtime has CUDA"]
    # set-up installs these with apt only
    wordnet = [
        "/usr/share/wordnet/index.noun is absent (apt-get install wordnet-base)",
        "/usr/share/wordnet is absent (apt-get install wordnet-base)",
        "the program wn is absent (apt-get install wordnet)",
        "no WordNet in /usr/share/wordnet",
    ]
    never = [
        "/a/shared/data/scenelex/models/sim/detector/text_encoder.onnx is missing (make setup)",
        "models/sim/detector has no text_encoder.onnx (make setup assembles it)",
        "a reason that nobody has thought of",
    ]
    gate.shows("successes:\n")
    for reason in [*allowed, *wordnet, *never]:
        gate.shows(f"skipped: {reason}\n")
    assert gate.skipped().total() == 9
    assert gate.refused() == ([*wordnet, *never] if debian else never)


@pytest.mark.parametrize(
    ("machine", "refused"),
    [("x86_64", [NO_PEER, "the Python package rosbags is not installed"]), ("aarch64", ["the Python package rosbags is not installed"])],
)
def test_a_package_that_should_be_there_is_no_reason_to_skip(machine, refused):
    gate = GATES["PythonTests"](machine)
    no_gl = "no offscreen OpenGL here: ['ImportError: no: EGL']"
    for where, reason in [
        ("[1] tests/python/test_node.py:10", NO_PEER),
        ("[1] tests/python/test_vocabulary.py:7", NO_PEER),
        ("[1] tests/python/test_demo.py:15", "the Python package rosbags is not installed"),
        ("[3] tests/python/test_world.py:97", no_gl),
    ]:
        assert gate.shows(f"SKIPPED {where}: {reason}\n")
    assert gate.shows("FAILED tests/python/test_node.py::test_it - AssertionError: SKIPPED [1]\n")
    assert dict(gate.skipped()) == {NO_PEER: 2, "the Python package rosbags is not installed": 1, no_gl: 3}
    assert gate.refused() == refused
