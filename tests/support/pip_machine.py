# SPDX-License-Identifier: Apache-2.0
"""A machine whose pip has the configuration that a test writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

#: Settings that users have for their own environments. Each one breaks a download or an
#: installation of this project.
HOSTILE = {
    "constraint": "CONSTRAINTS",
    "user": "true",
    "target": "ELSEWHERE",
    "prefix": "ELSEWHERE",
    "root": "ELSEWHERE",
    "src": "ELSEWHERE",
    "require-virtualenv": "true",
    "require-hashes": "true",
    "only-binary": "none",
    "no-binary": ":all:",
    "platform": "win_amd64",
    "python-version": "2.7",
    "dry-run": "true",
    "quiet": "3",
    "verbose": "2",
    "report": "ELSEWHERE/report.json",
    "dest": "ELSEWHERE",
    "uploaded-prior-to": "2001-01-01",
}


def make_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the machine's configuration of pip; return the folder for new configuration files."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "machine"
    (folder / "etc" / "pip").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(folder / "etc"))
    return folder


def write(path: Path, **sections: dict[str, str]) -> Path:
    """Write a configuration file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in values.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
