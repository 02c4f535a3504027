"""What .ci/setup.py finds missing, what it says then, and what it does a second time; nothing is installed here."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path

import pytest

from conftest import ROOT


@pytest.fixture
def set_up(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("set_up", ROOT / ".ci" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DEPS", tmp_path / "deps")
    module.DEPS.mkdir()
    return module


class Programs:
    """Shell scripts in a folder, which is all of the PATH but for `more`."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, script: str):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def path(self, *more: str) -> str:
        return os.pathsep.join([str(self.folder), *more])


@pytest.fixture
def programs(monkeypatch, tmp_path):
    made = Programs(tmp_path / "programs")
    monkeypatch.setenv("PATH", made.path())
    return made


# --- Rust ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "rustc 1.92.0 (ded5c06cf 2025-12-08)",
        "rustc 1.100.0-nightly (59807616e 2027-04-14)",
        "info: syncing channel updates\nrustc 2.0.0",
    ],
)
def test_a_rust_that_is_new_enough_is_taken(set_up, programs, said):
    programs.add("cargo", "")
    programs.add("rustc", f"echo '{said}'")
    set_up.check_rust()


@pytest.mark.parametrize("said", ["rustc 1.63.0 (built from a source tarball)", "rustc 1.91.1", "no Rust at all"])
def test_a_rust_that_is_too_old_is_named_with_what_is_needed(set_up, programs, said):
    programs.add("cargo", "")
    programs.add("rustc", f"echo '{said}'")
    with pytest.raises(set_up.Failed) as failed:
        set_up.check_rust()
    for part in ("Rust 1.92 or later", said, str(programs.folder / "rustc"), "rustup update"):
        assert part in str(failed.value)


def test_without_rust_the_user_is_told_where_it_is_from(set_up, programs):
    with pytest.raises(set_up.Failed, match=r"cargo and rustc not found: install Rust 1\.92 or later \(rustup\.rs\)"):
        set_up.check_rust()


def test_tools_of_the_gates_are_added_where_rustup_is(set_up, programs):
    added = programs.folder / "added"
    programs.add("cargo", f'[ "$1" = fmt ] || [ -e "{added}" ]')
    programs.add("rustup", f'[ "$*" = "component add clippy" ] && : > "{added}"')
    set_up.check_gate_tools()
    assert added.exists()


@pytest.mark.parametrize(
    ("there", "said"),
    [("none", "cargo fmt and cargo clippy not found"), ("fmt", "cargo clippy not found"), ("clippy", "cargo fmt not found")],
)
def test_tools_of_the_gates_that_are_missing_are_named(set_up, programs, there, said):
    programs.add("cargo", f'[ "$1" = {there} ]')
    with pytest.raises(set_up.Failed, match=f"^{said}.*rustup component add"):
        set_up.check_gate_tools()


@pytest.mark.parametrize(("goal", "checked"), [("demo", False), ("test", True)])
def test_only_the_gates_need_their_tools(set_up, monkeypatch, goal, checked):
    called = []
    for step in ("install_system", "check_rust", "check_gate_tools", "fetch_crates"):
        monkeypatch.setattr(set_up, step, lambda *_, step=step: called.append(step))
    monkeypatch.setattr(set_up, "build_program", lambda: called.append("build_program"))
    monkeypatch.setattr(set_up, "create_venv", lambda: {}["not this test's"])
    monkeypatch.setattr(sys, "argv", ["setup.py", goal])
    with pytest.raises(SystemExit):
        set_up.main()
    assert "build_program" in called and ("check_gate_tools" in called) == checked


# --- Debian packages ----------------------------------------------------------------------------


@pytest.fixture
def apt(set_up, programs, monkeypatch):
    """Says what set-up does with an apt-get of which the commands named fail."""
    calls = programs.folder / "calls"

    def installed(*failing: str) -> list[str]:
        fails = "".join(f'case "$*" in *" {name}"*) echo "{name} is broken"; exit 100;; esac\n' for name in failing)
        programs.add("apt-get", f'echo "$*" >> "{calls}"\n{fails}')
        set_up.install_system("demo")
        return calls.read_text().splitlines()

    monkeypatch.setenv("PATH", programs.path("/usr/bin", "/bin"))  # for env
    monkeypatch.setattr(set_up, "missing_debian_packages", lambda goal: ["wordnet-base"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return installed


def test_apt_waits_for_others_that_install(apt, capsys):
    update, install = apt()
    assert update.endswith("update") and install.endswith("install --no-install-recommends wordnet-base")
    assert all("-o DPkg::Lock::Timeout=300" in call for call in (update, install))
    assert "system: installed" in capsys.readouterr().out


def test_packages_are_installed_though_the_lists_could_not_be_updated(apt, capsys):
    assert len(apt("update")) == 2
    said = capsys.readouterr().out
    assert "system: installed" in said and "update failed" in said


def test_both_failures_of_apt_are_told(apt, capsys):
    assert len(apt("update", "install")) == 2
    said = capsys.readouterr().out
    assert "could not be installed" in said and "install is broken" in said and "update is broken" in said


# --- what is done once --------------------------------------------------------------------------


def test_of_python_only_what_wheels_depend_on_counts(set_up):
    expected = [platform.machine(), sys.implementation.name, *map(str, sys.version_info[:2])]
    assert set_up.abi(sys.executable).split() == expected


def test_a_step_is_done_again_only_where_something_is_another(set_up, monkeypatch, tmp_path):
    listed, result, done = tmp_path / "listed.txt", tmp_path / "result", []
    listed.write_text("a==1\n")

    def action():
        done.append(1)
        result.touch()

    def times() -> int:
        set_up.once("step", [listed], [result], action)
        return len(done)

    assert [times(), times()] == [1, 1]
    # What a security update of Python changes.
    monkeypatch.setattr(sys, "version", "3.11.99 (main, Jan  1 2030, 00:00:00) [GCC 99]")
    assert times() == 1
    listed.write_text("a==2\n")
    assert [times(), times()] == [2, 2]
    result.unlink()
    assert times() == 3
    monkeypatch.setattr(set_up, "abi", lambda python: "riscv64 cpython 3 12")
    assert [times(), times()] == [4, 4]


# --- what fails ---------------------------------------------------------------------------------


def test_whatever_ends_a_step_is_reported_and_the_others_go_on(set_up):
    done = []

    def fails(error):
        raise error

    failures = set_up.together(
        good=lambda: done.append("good"),
        told=lambda: fails(set_up.Failed("install it")),
        system=lambda: fails(FileNotFoundError(2, "No such file", "x")),
        unforeseen=lambda: fails(KeyError("capi")),
        empty=lambda: next(iter(())),
    )
    assert done == ["good"] and len(failures) == 4
    by_name = dict(failure.split(": ", 1) for failure in failures)
    assert by_name["told"] == "install it"
    assert "No such file: 'x'" in by_name["system"] and "Traceback" not in by_name["system"]
    assert "KeyError: 'capi'" in by_name["unforeseen"] and "test_setup.py" in by_name["unforeseen"]
    assert "StopIteration" in by_name["empty"]


def test_make_stops_where_a_step_ended_with_an_unforeseen_error(set_up, monkeypatch, capsys):
    monkeypatch.setattr(set_up, "create_venv", lambda: {}["no such key"])
    monkeypatch.setattr(sys, "argv", ["setup.py", "runtime"])
    with pytest.raises(SystemExit) as ended:
        set_up.main()
    assert ended.value.code == 1
    assert "set-up failed: python:" in (said := capsys.readouterr().err) and "KeyError: 'no such key'" in said


def test_without_rust_nothing_is_built_or_fetched(set_up, programs, monkeypatch, capsys):
    called = []
    for step in ("install_system", "build_program", "create_venv"):
        monkeypatch.setattr(set_up, step, lambda *_, step=step: called.append(step))
    for step in ("install_packages", "extract_onnxruntime", "assemble_text_encoder"):
        monkeypatch.setattr(set_up, step, lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["setup.py", "demo"])
    with pytest.raises(SystemExit) as ended:
        set_up.main()
    assert ended.value.code == 1 and called == ["install_system"]
    assert capsys.readouterr().err.count("set-up failed") == 1
