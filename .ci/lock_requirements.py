#!/usr/bin/env python3
"""Write requirements/*.txt from requirements/*.in: every package pinned by version and hash.

Resolves for Linux wheels of the Pythons and machines below, on whatever package index pip is
configured for. Run it by hand after changing an .in file; set-up reads the .txt files only.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "requirements"
PYTHONS = ["3.11", "3.12", "3.13"]
MACHINES = ["x86_64", "aarch64"]
GLIBC = ["2_28", "2_27", "2_17", "2_12", "2_5"]
MARKER = re.compile(r'\s*;\s*platform_machine == "(\w+)"')


def wanted(source, machine):
    """The requirement lines of `source` that apply to `machine`."""
    lines = []
    for line in source.read_text().splitlines():
        marker = MARKER.search(line)
        if line and not line.startswith("#") and (marker is None or marker[1] == machine):
            lines.append(MARKER.sub("", line))
    return lines


def resolve(lines, python, machine, constraints, *options):
    """{name: (version, sha256)} of what pip would install."""
    with tempfile.TemporaryDirectory() as scratch:
        report, pins = Path(scratch, "report.json"), Path(scratch, "pins.txt")
        pins.write_text("".join(f"{name}=={version}\n" for name, version in constraints.items()))
        platforms = [f"--platform=manylinux_{glibc}_{machine}" for glibc in GLIBC]
        platforms += [f"--platform=manylinux2014_{machine}", f"--platform=linux_{machine}"]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--only-binary=:all:", f"--python-version={python}", f"--target={scratch}/target", *platforms]
        subprocess.run([*command, f"--report={report}", f"--constraint={pins}", *options, *lines], check=True)
        items = json.loads(report.read_text())["install"]
    found = {}
    for item in items:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        found[name] = (item["metadata"]["version"], item["download_info"]["archive_info"]["hashes"]["sha256"])
    return found


def lock(source, versions, *options):
    """Write the .txt beside `source`; `versions` holds pins of earlier files and grows."""
    hashes, seen_on = {}, {}
    for machine in MACHINES:
        lines = wanted(source, machine)
        for python in PYTHONS:
            for name, (version, digest) in resolve(lines, python, machine, versions, *options).items():
                versions.setdefault(name, version)
                hashes.setdefault(name, set()).add(digest)
                seen_on.setdefault(name, set()).add(machine)
    text = f"# Written by .ci/lock_requirements.py from {source.name} for Linux, Python {', '.join(PYTHONS)}.\n"
    for name in sorted(hashes):
        only = seen_on[name] if len(seen_on[name]) < len(MACHINES) else ()
        marker = "".join(f' ; platform_machine == "{machine}"' for machine in only)
        digests = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(hashes[name]))
        text += f"{name}=={versions[name]}{marker}{digests}\n"
    source.with_suffix(".txt").write_text(text)
    print(f"{source.with_suffix('.txt').name}: {len(hashes)} packages")


def main():
    """Lock the named files (all by default), keeping to the versions the other files hold."""
    stems = ["language_encoder", "models", "test", "bench"]
    chosen = sys.argv[1:] or stems
    pinned = {}
    for stem in stems:
        if stem not in chosen:
            lines = (FOLDER / f"{stem}.txt").read_text().splitlines()
            pinned.update(line.split(" ")[0].split("==") for line in lines if "==" in line)
    for stem in chosen:
        lock(FOLDER / f"{stem}.in", pinned, *(["--no-deps"] if stem == "language_encoder" else []))


if __name__ == "__main__":
    main()
