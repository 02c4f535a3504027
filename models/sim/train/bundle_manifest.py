"""What the export scripts write into a bundle's `bundle.toml`."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

CPU_FILES = """\
# Run on a processor in place of those above; models/sim/README.md says what they are.
[cpu_files]
"""
SECTION = re.compile(r"(?:^#.*\n)*^\[cpu_files\]\n(?:.+\n)*\n?", re.MULTILINE)
FILES = re.compile(r"^\[files\]\n(?:.+\n)*", re.MULTILINE)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entry(role: str, path: Path) -> str:
    """A line of `[files]` or `[cpu_files]`."""
    return f'{role} = {{ path = "{path.name}", sha256 = "{sha256(path)}" }}\n'


def pin(bundle: Path, role: str) -> None:
    """Renews the checksum of a file of `[files]`; what was made of the file before, `[cpu_files]`, is left out."""
    manifest = bundle / "bundle.toml"
    if not manifest.is_file():
        return
    text = SECTION.sub("", manifest.read_text(encoding="utf-8"))
    line = re.compile(rf'^({role} = \{{.*sha256 = ")[^"]*(".*)$', re.MULTILINE)
    path = bundle / tomllib.loads(text)["files"][role]["path"]
    manifest.write_text(line.sub(lambda m: m[1] + sha256(path) + m[2], text), encoding="utf-8")


def name_cpu_files(bundle: Path, files: dict[str, Path]) -> None:
    """Names files, by role, in the section `[cpu_files]`; others that are there stay."""
    manifest = bundle / "bundle.toml"
    text = manifest.read_text(encoding="utf-8")
    others = {role: bundle / file["path"] for role, file in tomllib.loads(text).get("cpu_files", {}).items()}
    text = SECTION.sub("", text)
    section = CPU_FILES + "".join(entry(role, path) for role, path in sorted((others | files).items()))
    manifest.write_text(FILES.sub(lambda m: f"{m[0]}\n{section}", text, count=1), encoding="utf-8")
