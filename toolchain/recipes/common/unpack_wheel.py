# SPDX-License-Identifier: Apache-2.0
"""Extracts the matching members of one wheel in ``TOOLCHAIN_SOURCES``.

usage: unpack_wheel.py WHEEL_PATTERN FOLDER MEMBER_PATTERN...
"""

from __future__ import annotations

import argparse
import os
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path


def main() -> None:
    """Extract into FOLDER; fail if a pattern matches nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel")
    parser.add_argument("folder", type=Path)
    parser.add_argument("members", nargs="+")
    options = parser.parse_args()
    sources = Path(os.environ["TOOLCHAIN_SOURCES"])
    found = sorted(sources.glob(options.wheel))
    if len(found) != 1:
        parser.error(f"{options.wheel} matches {len(found)} files in {sources}, expected one")
    with zipfile.ZipFile(found[0]) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        for pattern in options.members:
            matching = [name for name in names if fnmatchcase(name, pattern)]
            if not matching:
                parser.error(f"{pattern} matches nothing in {found[0].name}")
            archive.extractall(options.folder, matching)


if __name__ == "__main__":
    main()
