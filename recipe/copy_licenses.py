# SPDX-License-Identifier: Apache-2.0
"""Copies the license texts of an installed package whose code becomes part of ours.

usage: python copy_licenses.py PREFIX PACKAGE FOLDER

The texts are in the unpacked package and not in the prefix. The prefix's record of the package
names the folder in which it was unpacked. PACKAGE may end with ``*`` if its name ends with a
platform.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path


def texts(prefix: Path, package: str) -> list[Path]:
    """Find the license texts of the only package of ``prefix`` with that name.

    Raises:
        SystemExit: there is not exactly one such package, or it has no text.
    """
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(prefix.glob("conda-meta/*.json"))
    ]
    found = [record for record in records if Path(record["name"]).match(package)]
    if len(found) != 1:
        names = ", ".join(record["name"] for record in found) or "none"
        raise SystemExit(
            f"error: {prefix} has {names} for {package}\n  expected: one package, whose license "
            "texts ours must contain"
        )
    (record,) = found
    unpacked = record.get("extracted_package_dir") or (record.get("link") or {}).get("source") or ""
    folder = Path(unpacked, "info", "licenses")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not unpacked or not files:
        raise SystemExit(
            f"error: {record['name']} {record['version']} has no license text in {folder}\n"
            "  expected: the license texts in the package\n"
            "  to do:    use a channel whose package has them"
        )
    return files


def main(prefix: str, package: str, folder: str) -> None:
    """Copy each text under its own name."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for text in texts(Path(prefix), package):
        if (target / text.name).exists():
            raise SystemExit(
                f"error: {package} has two license texts called {text.name}\n"
                "  expected: different names"
            )
        shutil.copyfile(text, target / text.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
