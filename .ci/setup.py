#!/usr/bin/env python3
"""Install what the goal needs and this machine lacks, then build the program.

    setup.py [demo|test|bench]
    setup.py runtime    only ONNX Runtime and the language encoder, for a program that colcon builds

Debian packages go into the system; everything else goes into the git-ignored `.deps/`, pinned by
version and hash. What is already there is left alone: every step keeps a stamp of its inputs.
Needs Rust, and Python: any 3.9 or later to run this, one of PYTHONS for what it installs.
"""

import ctypes.util
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import traceback
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEPS = ROOT / ".deps"
VENV = DEPS / "venv"
REQUIREMENTS = ROOT / ".ci" / "requirements"
DETECTOR = ROOT / "models" / "sim" / "detector"
START = time.monotonic()
# Those that the requirement lists have wheels for.
PYTHONS = ((3, 11), (3, 12), (3, 13))
# What `make test` runs of cargo, and rustup's components that have it.
GATE_TOOLS = {"fmt": "rustfmt", "clippy": "clippy"}

ELSEWHERE = """\
  a C++ compiler, pkg-config, OpenCV 4 with its development files (core, imgproc, imgcodecs),
  clang with libclang, Python 3.11 to 3.13 with venv and pip; for the vocabulary loop without a language model
  also WordNet 3.0's database files (then set refresh.lexicon to their folder). For example
    Fedora:  dnf install gcc-c++ pkgconf-pkg-config opencv-devel clang clang-devel python3
    Arch:    pacman -S gcc pkgconf opencv clang python"""


class Failed(Exception):
    """A step that could not be done; the message says what the user can do."""


def say(message):
    print(f"[setup {time.monotonic() - START:4.0f} s] {message}", flush=True)


def run(command, **options):
    """Run quietly; show the output only where it fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}")
    return done.stdout


def succeeds(*command):
    try:
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def suitable_python():
    """This Python, or one on the PATH that the requirement lists are for; None where there is none."""
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    return next(filter(None, (shutil.which(f"python{major}.{minor}") for major, minor in PYTHONS)), None)


# --- the system ---------------------------------------------------------------------------------


def missing_debian_packages(goal):
    """Debian packages of the tools that are not there, whatever way they might have been installed."""
    packages = []
    if not shutil.which("c++"):
        packages.append("g++")
    if not shutil.which("pkg-config"):
        packages.append("pkg-config")
    # The crate asks pkg-config for OpenCV, and of Debian's OpenCV packages only this one has the answer.
    if not succeeds("pkg-config", "--atleast-version=4", "opencv4"):
        packages.append("libopencv-dev")
    # The crate's build runs clang and links libclang, by the name that only the development package has.
    if not shutil.which("clang"):
        packages.append("clang")
    if "LIBCLANG_PATH" not in os.environ and not any(Path("/usr").glob("lib*/**/libclang.so")):
        packages.append("libclang-dev")
    python = suitable_python()
    if python and not succeeds(python, "-c", "import ensurepip, venv"):
        packages.append("python3-venv" if python == sys.executable else f"{Path(python).name}-venv")
    # WordNet's nouns: the vocabulary loop's lexicon where there is no language model.
    if not Path("/usr/share/wordnet/data.noun").is_file():
        packages.append("wordnet-base")
    if goal == "test" and not shutil.which("wn"):
        packages.append("wordnet")  # the tests compare the lexicon with WordNet's own program
    if goal == "test" and not ctypes.util.find_library("EGL"):
        packages.append("libegl1")  # the simulator's tests draw without a display
    return packages


def install_system(goal):
    packages = missing_debian_packages(goal)
    if not packages:
        say("system: nothing is missing")
        return
    by_hand = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if not shutil.which("apt-get"):
        say(f"system: this is not Debian. Please install, then run this again (going on with what is there):\n{ELSEWHERE}")
        return
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    if as_root and not (shutil.which("sudo") and (sys.stdin.isatty() or succeeds("sudo", "-n", "true"))):
        say(f"system: not root and no sudo. Please run as root (going on with what is there):\n  {by_hand}")
        return
    say(f"system: {by_hand}")
    apt_install(packages, as_root)


def apt_install(packages, as_root):
    # A machine that has just started may be installing updates by itself: its lock is waited for.
    apt = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    not_updated = ""
    try:
        run([*apt, "update"])
    except Failed as error:
        # One source that does not answer is enough for that; the packages may come from another.
        say("system: apt-get update failed, trying to install all the same")
        not_updated = f"\n{error}"
    try:
        run([*apt, "install", "--no-install-recommends", *packages])
        say("system: installed")
    except Failed as error:
        say(f"system: could not be installed (going on with what is there): {error}{not_updated}")


# --- Rust ---------------------------------------------------------------------------------------


def check_rust():
    wanted = re.search(r'^rust-version = "(\d+\.\d+)', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    missing = [tool for tool in ("cargo", "rustc") if not shutil.which(tool)]
    if missing:
        raise Failed(f"{' and '.join(missing)} not found: install Rust {wanted} or later (rustup.rs), then run this again")
    said = run(["rustc", "--version"])
    found = re.search(r"^rustc (\d+\.\d+)", said, re.MULTILINE)
    if not found or version(found[1]) < version(wanted):
        raise Failed(
            f"expected Rust {wanted} or later, found {said.strip()} ({shutil.which('rustc')}): run `rustup update`, or install "
            "rustup (rustup.rs) and open a new shell, in which its Rust comes before the system's; then run this again"
        )


def version(text):
    return tuple(map(int, text.split(".")))


def missing_gate_tools():
    return [tool for tool in GATE_TOOLS if not succeeds("cargo", tool, "--version")]


def check_gate_tools():
    """rustup's minimal profile and some distributions' cargo come without them."""
    components = [GATE_TOOLS[tool] for tool in missing_gate_tools()]
    if components and shutil.which("rustup"):
        say(f"rust: rustup component add {' '.join(components)}")
        run(["rustup", "component", "add", *components])
    if missing := missing_gate_tools():
        raise Failed(
            f"{' and '.join(f'cargo {tool}' for tool in missing)} not found, which `make test` needs: "
            f"rustup component add {' '.join(components)} (without rustup, packages of the system with such names); then run this again"
        )


def fetch_crates():
    run(["cargo", "fetch", "--locked"])
    say("crates: all there")


def build_program():
    say("program: cargo build --release (minutes the first time)")
    if subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT).returncode != 0:
        raise Failed("cargo build failed, see above")
    say("program: built")


# --- Python packages, ONNX Runtime, the language encoder -----------------------------------------


@cache
def abi(python):
    """What of a Python decides which wheels fit it. A security update changes nothing here."""
    asked = "import platform, sys; print(platform.machine(), sys.implementation.name, *sys.version_info[:2])"
    return run([python, "-c", asked]).strip()


def fingerprint(*inputs):
    python = suitable_python()
    digest = hashlib.sha256((abi(python) if python else "").encode())
    for path in inputs:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def once(name, inputs, results, action):
    """Run `action` unless its inputs are those of the last time and its results are still there."""
    stamp, wanted = DEPS / f"{name}.stamp", fingerprint(*inputs)
    if stamp.is_file() and stamp.read_text() == wanted and all(path.exists() for path in results):
        say(f"{name}: there")
        return
    stamp.unlink(missing_ok=True)
    action()
    stamp.write_text(wanted)
    say(f"{name}: done")


def create_venv():
    # The stamps of what is installed into it lie inside and go with it.
    def create():
        python = suitable_python()
        if python is None:
            wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
            raise Failed(
                f"expected Python {wanted}, found {platform.python_version()} and none of them on the PATH. "
                "Ubuntu 22.04 has one beside its own: apt-get install python3.11 python3.11-venv"
            )
        run([python, "-m", "venv", "--clear", VENV])

    once("venv/environment", [], [VENV / "bin" / "python"], create)


def install_packages(name):
    """Exactly the packages of one requirement list."""
    listed = REQUIREMENTS / f"{name}.txt"
    pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]

    def action():
        say(f"python packages: fetching {listed.name}")
        run([*pip, "--require-hashes", "-r", listed])

    once(f"venv/{name}", [listed], [], action)


def extract_onnxruntime():
    """The library out of its wheel, to where the program looks for it."""
    target = DEPS / "onnxruntime"

    def action():
        package = next(VENV.glob("lib/python*/site-packages/onnxruntime"))
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for file in [*(package / "capi").glob("libonnxruntime*"), *package.glob("LICENSE"), *package.glob("Third*")]:
            shutil.copy2(file, target)
        library = next(target.glob("libonnxruntime.so.*"))
        (target / "libonnxruntime.so").symlink_to(library.name)

    once("onnxruntime", [REQUIREMENTS / "models.txt"], [target / "libonnxruntime.so"], action)


def assemble_text_encoder():
    script = ROOT / "models" / "sim" / "assemble_text_encoder.py"
    inputs = [script, REQUIREMENTS / "language_encoder.txt", REQUIREMENTS / "models.txt"]
    results = [DETECTOR / "text_encoder.onnx", DETECTOR / "tokenizer.json"]
    once("text-encoder", inputs, results, lambda: run([VENV / "bin" / "python", script]))


# --- what belongs to a goal ----------------------------------------------------------------------


def in_order(*steps):
    """Steps of which each needs those before it."""

    def chain():
        for step in steps:
            step()

    return chain


def together(**chains):
    """Run the chains beside each other and wait for all; report what failed."""
    failures = []

    def guarded(name, chain):
        try:
            chain()
        except (Failed, OSError) as error:
            failures.append(f"{name}: {error}")
            say(f"{name}: FAILED, see the end")
        except Exception:  # it would end this thread only, and set-up would seem done
            failures.append(f"{name}: {traceback.format_exc()}")
            say(f"{name}: FAILED, see the end")

    threads = [threading.Thread(target=guarded, args=item, name=item[0]) for item in chains.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def main():
    goal = sys.argv[1] if len(sys.argv) > 1 else "demo"
    if goal not in ("runtime", "demo", "test", "bench"):
        sys.exit(__doc__)
    DEPS.mkdir(exist_ok=True)
    more = {"runtime": [], "demo": [], "test": ["test"], "bench": ["test", "bench"]}[goal]
    python = in_order(
        create_venv,
        *(partial(install_packages, name) for name in ("language_encoder", "models")),
        extract_onnxruntime,
        assemble_text_encoder,
        *(partial(install_packages, name) for name in more),
    )
    if goal == "runtime":
        failures = together(python=python)
    else:
        rust = in_order(check_rust, *([check_gate_tools] if goal == "test" else []), fetch_crates)
        # Without Rust there is nothing to build, and no reason to let its user wait for the rest.
        failures = together(system=partial(install_system, goal), rust=rust) or together(program=build_program, python=python)
    for failure in failures:
        print(f"\nset-up failed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
