# SPDX-License-Identifier: Apache-2.0
"""Copies the license texts of an installed package, whose code gets into ours, into a folder that the recipe names.

usage: python copy_licenses.py PREFIX PACKAGE FOLDER

A package keeps its texts beside its files and not among them, so they are not in the prefix: the
prefix's record of the package says where it was unpacked. PACKAGE may end with a ``*``, for the
platform that its name ends with.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path


def texts(prefix: Path, package: str) -> list[Path]:
    """The license texts of the one package of ``prefix`` with that name.

    Raises:
        SystemExit: it is not there, or brings no text.
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
            "texts ours has to carry"
        )
    (record,) = found
    unpacked = record.get("extracted_package_dir") or (record.get("link") or {}).get("source") or ""
    folder = Path(unpacked, "info", "licenses")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not unpacked or not files:
        raise SystemExit(
            f"error: {record['name']} {record['version']} has no license text in {folder}\n"
            "  expected: the texts that it was packaged with\n"
            "  to do:    take it from a channel whose package has them"
        )
    return files


def main(prefix: str, package: str, folder: str) -> None:
    """Copy, each text under its own name."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for text in texts(Path(prefix), package):
        if (target / text.name).exists():
            raise SystemExit(
                f"error: {package} has two license texts called {text.name}\n"
                "  expected: names that are told apart"
            )
        shutil.copyfile(text, target / text.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
