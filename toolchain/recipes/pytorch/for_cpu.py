# SPDX-License-Identifier: Apache-2.0
"""Removes CUDA from the version and the metadata of PyTorch's CUDA build.

usage: for_cpu.py SITE_PACKAGES

Afterwards ``torch.version`` names no CUDA release, and the metadata does not require CUDA's wheels,
which nothing would load. RECORD gets the new hashes of these files.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import sys
from pathlib import Path

CUDA = re.compile(r"Requires-Dist: (nvidia-|cuda-|triton\b).*\n")
VERSION = (
    (re.compile(r"^(__version__ = '[\d.]+)\+cu\d+'$", re.MULTILINE), r"\1+cpu.pypi'"),
    (re.compile(r"^(cuda: Optional\[str\] = )'[\d.]+'$", re.MULTILINE), r"\1None"),
)


def metadata_for_cpu(text: str) -> str:
    """Remove requirements on CUDA's wheels from the metadata.

    Raises:
        ValueError: there are none, so this is not the wheel that the recipe was written for.
    """
    changed, count = CUDA.subn("", text)
    if not count:
        raise ValueError("METADATA requires no CUDA wheel")
    return changed


def version_for_cpu(text: str) -> str:
    """Remove CUDA from the text of ``torch/version.py``.

    Raises:
        ValueError: an expected line is missing.
    """
    for pattern, line in VERSION:
        text, count = pattern.subn(line, text)
        if count != 1:
            raise ValueError(f"version.py: {count} lines match {pattern.pattern}, expected one")
    return text


def rewrite(site: Path, info: Path) -> None:
    """Change both files and their rows in RECORD."""
    files = {site / "torch" / "version.py": version_for_cpu, info / "METADATA": metadata_for_cpu}
    rows = list(csv.reader(io.StringIO((info / "RECORD").read_text(encoding="utf-8"))))
    for path, change in files.items():
        data = change(path.read_text(encoding="utf-8")).encode()
        path.write_bytes(data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        (row,) = (row for row in rows if row[0] == path.relative_to(site).as_posix())
        row[1:] = [f"sha256={digest}", str(len(data))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    (info / "RECORD").write_text(text.getvalue(), encoding="utf-8")


def main() -> None:
    """Rewrite the installation in SITE_PACKAGES."""
    site = Path(sys.argv[1])
    (info,) = site.glob("torch-*.dist-info")
    rewrite(site, info)


if __name__ == "__main__":
    main()
