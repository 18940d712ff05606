# SPDX-License-Identifier: Apache-2.0
"""Build backend that reads an sdist's metadata from ``PKG-INFO`` and runs no code of the project.

pip asks the build backend for the metadata of every sdist, even if it only downloads it. That would
run the project's ``setup.py``, which may need torch or a compiler. We need only the sources, and
must not run their code. :func:`vllm_build.toolchain.pypi.download_sdist` puts the folder above this
package first on the path of the pip that it starts.
"""

from __future__ import annotations

import re
from email import message_from_bytes
from pathlib import Path
from types import SimpleNamespace

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
_WHEEL = "Wheel-Version: 1.0\nGenerator: vllm-build\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    """Require nothing: the metadata is read from a file."""
    del config_settings
    return []


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: object = None
) -> str:
    """Write the metadata of the sdist in the current folder.

    Returns the name of the ``.dist-info`` folder.
    """
    del config_settings
    text = Path("PKG-INFO").read_bytes()
    said = message_from_bytes(text)
    name, version = str(said["Name"]), str(said["Version"])
    if not _WORD.fullmatch(name) or not _WORD.fullmatch(version):
        raise SystemExit(f"PKG-INFO has the name {name!r} and the version {version!r}")
    folder = Path(metadata_directory, f"{name.replace('-', '_')}-{version}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_bytes(text)
    (folder / "WHEEL").write_text(_WHEEL, encoding="utf-8")
    return folder.name


#: pip uses this object for a project that names no backend.
__legacy__ = SimpleNamespace(
    get_requires_for_build_wheel=get_requires_for_build_wheel,
    prepare_metadata_for_build_wheel=prepare_metadata_for_build_wheel,
)
