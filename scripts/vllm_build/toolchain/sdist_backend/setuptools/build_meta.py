# SPDX-License-Identifier: Apache-2.0
"""Build backend that tells pip what ``PKG-INFO`` says and runs nothing of the project.

pip asks every sdist for its metadata, also when it is only to download it. Projects answer by
running their ``setup.py``, which may want torch or a compiler; here the sources are wanted, and
nothing of theirs is to run. :func:`vllm_build.toolchain.pypi.download_sdist` puts the folder above
this package first on the path of that one pip.
"""

from __future__ import annotations

from email import message_from_bytes
from pathlib import Path
from types import SimpleNamespace

_WHEEL = "Wheel-Version: 1.0\nGenerator: vllm-build\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    """Nothing is needed to read a file."""
    del config_settings
    return []


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: object = None
) -> str:
    """The metadata of the sdist in the current folder; returns the name of the ``.dist-info`` folder."""
    del config_settings
    text = Path("PKG-INFO").read_bytes()
    said = message_from_bytes(text)
    folder = Path(
        metadata_directory, f"{said['Name'].replace('-', '_')}-{said['Version']}.dist-info"
    )
    folder.mkdir()
    (folder / "METADATA").write_bytes(text)
    (folder / "WHEEL").write_text(_WHEEL, encoding="utf-8")
    return folder.name


#: What pip takes for a project that names no backend.
__legacy__ = SimpleNamespace(
    get_requires_for_build_wheel=get_requires_for_build_wheel,
    prepare_metadata_for_build_wheel=prepare_metadata_for_build_wheel,
)
