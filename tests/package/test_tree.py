# SPDX-License-Identifier: Apache-2.0
"""Rules for every file of the tree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Exact copies of upstream's texts, or formats without comments.
WITHOUT_HEADER = re.compile(
    r"(.*/)?(LICENSE[^/]*|VERSION|py\.typed|.*\.json|.*\.patch|\.gitignore|.*\.md)|tests/data/.*"
)


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("no git checkout: which files belong to the tree is unknown")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_every_source_begins_with_its_license() -> None:
    missing = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        first = path.read_text(encoding="utf-8").splitlines()[:2]
        if not WITHOUT_HEADER.fullmatch(name) and not any(
            "SPDX-License-Identifier: Apache-2.0" in line for line in first
        ):
            missing.append(name)
    assert missing == []


def test_text_is_clean() -> None:
    """UTF-8; lines end in one newline, without whitespace before it."""
    bad = []
    for path in tracked():
        data = path.read_bytes()
        data.decode()
        upstream = "third_party/licenses/" in path.as_posix() or path.name == "LICENSE"
        if not upstream and (
            b"\r" in data
            or re.search(rb"[ \t]+$", data, re.MULTILINE)
            or (data and not data.endswith(b"\n"))
        ):
            bad.append(path.relative_to(ROOT).as_posix())
    assert bad == []


def test_links_between_documents_lead_somewhere() -> None:
    links = [
        (path, target)
        for path in tracked()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    ]
    assert [
        f"{path}: {target}"
        for path, target in links
        if "://" not in target and not (path.parent / target).exists()
    ] == []
