# SPDX-License-Identifier: Apache-2.0
"""Installs a wheel from ``TOOLCHAIN_SOURCES`` into ``PREFIX`` without pip and the target's Python.

usage: install_wheel.py WHEEL_PATTERN SITE_PACKAGES [--scripts] [--without PATTERN]...

The result follows the wheel format's specification. SITE_PACKAGES is relative to PREFIX.
``--scripts`` also writes the console scripts, for packages that are for one interpreter. The
recipes of noarch packages declare them as ``entry_points``, and the installer writes them.
``--without`` leaves out the matching members.
"""

from __future__ import annotations

import argparse
import base64
import configparser
import csv
import hashlib
import io
import os
import stat
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

# Maps the folders in a wheel's *.data to folders below the prefix; None means site-packages.
SCHEMES = {"purelib": None, "platlib": None, "scripts": "bin", "data": "", "headers": "include"}
SCRIPT = """#!{prefix}/bin/python
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.exit({call}())
"""


def target(name: str, site: str) -> str:
    """Return the path of the wheel's member ``name``, relative to the prefix."""
    head, _, rest = name.partition("/")
    if not head.endswith(".data"):
        return f"{site}/{name}"
    scheme, _, rest = rest.partition("/")
    base = SCHEMES[scheme]
    return "/".join(part for part in (site if base is None else base, rest) if part)


def write(path: Path, data: bytes, *, executable: bool) -> None:
    """Write one file with mode 755 or 644."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755 if executable else 0o644)


def is_license(name: str) -> bool:
    """Whether the wheel's member ``name`` is a license text of the distribution."""
    folder, _, rest = name.partition("/")
    return folder.endswith(".dist-info") and (
        rest.startswith("licenses/") or rest.upper().startswith(("LICEN", "COPYING", "NOTICE"))
    )


def console_scripts(text: str) -> dict[str, str]:
    """Map the name of every console script in ``entry_points.txt`` to its object reference."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names are case sensitive
    parser.read_string(text)
    return dict(parser["console_scripts"]) if parser.has_section("console_scripts") else {}


def install(wheel: Path, prefix: Path, site: str, *, scripts: bool, without: list[str]) -> None:
    """Install ``wheel`` with its scripts and RECORD; copy its license texts to ``./licenses``."""
    written: list[Path] = []
    info = ""
    entry_points = ""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.is_dir() or any(fnmatchcase(member.filename, pattern) for pattern in without):
                continue
            if member.filename.count("/") == 1 and member.filename.endswith(".dist-info/RECORD"):
                info = member.filename.rpartition("/")[0]
                continue
            data = archive.read(member)
            path = prefix / target(member.filename, site)
            in_bin = path.parent == prefix / "bin"
            if in_bin and data.startswith(b"#!python"):
                data = b"#!" + os.fsencode(prefix / "bin" / "python") + data[len(b"#!python") :]
            write(path, data, executable=in_bin or bool(member.external_attr >> 16 & stat.S_IXUSR))
            written.append(path)
            if is_license(member.filename):
                write(
                    Path("licenses") / member.filename.partition("/")[2].removeprefix("licenses/"),
                    data,
                    executable=False,
                )
            if member.filename.endswith(".dist-info/entry_points.txt"):
                entry_points = data.decode()
    for name, reference in console_scripts(entry_points).items() if scripts else ():
        module, _, call = reference.partition("[")[0].strip().partition(":")
        text = SCRIPT.format(
            prefix=prefix, module=module.strip(), first=call.partition(".")[0], call=call.strip()
        )
        write(prefix / "bin" / name, text.encode(), executable=True)
        written.append(prefix / "bin" / name)
    write(prefix / site / info / "INSTALLER", b"conda\n", executable=False)
    written.append(prefix / site / info / "INSTALLER")
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    for path in sorted(written):
        digest = (
            base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
            .rstrip(b"=")
            .decode()
        )
        # Scripts contain the prefix, which an installer replaces, so they get no hash.
        fixed = prefix / "bin" not in path.parents
        table.writerow(
            (
                os.path.relpath(path, prefix / site),
                f"sha256={digest}" if fixed else "",
                path.stat().st_size if fixed else "",
            )
        )
    table.writerow((f"{info}/RECORD", "", ""))
    write(prefix / site / info / "RECORD", rows.getvalue().encode(), executable=False)


def main() -> None:
    """Install the one wheel that the pattern matches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern")
    parser.add_argument("site")
    parser.add_argument("--scripts", action="store_true")
    parser.add_argument("--without", action="append", default=[])
    options = parser.parse_args()
    folder = Path(os.environ["TOOLCHAIN_SOURCES"])
    found = sorted(folder.glob(options.pattern))
    if len(found) != 1:
        parser.error(f"{options.pattern} matches {len(found)} files in {folder}, expected one")
    install(
        found[0],
        Path(os.environ["PREFIX"]),
        options.site,
        scripts=options.scripts,
        without=options.without,
    )


if __name__ == "__main__":
    main()
