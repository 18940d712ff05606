# SPDX-License-Identifier: Apache-2.0
"""The version of this package.

A build writes ``_version.py``, and then ``__version__`` equals the distribution's metadata. A
source tree that was never built has no such
file: its version is the base version with the local part ``source``, so that nobody takes it for a
release. The metadata of the environment is not asked: it could belong to another installation that
this tree shadows.
"""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).absolute().parent


def _of_source_tree(package: Path) -> str:
    """``<base>+source`` for a package folder that lies in a source tree.

    Raises:
        ImportError: there is no ``VERSION`` beside the package, so this is an installation that
            lost its ``_version.py``.
    """
    try:
        base = (package.parent / "VERSION").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ImportError(
            f"{package} has no _version.py and lies in no source tree: the installation is "
            "incomplete.\n"
            "Install vllm again (conda install vllm), or build a checkout with: pip install -e ."
        ) from error
    return f"{base}{'.' if '+' in base else '+'}source"


def _parts(version: str) -> tuple[int | str, ...]:
    """``"0.1.0+cpu"`` as ``(0, 1, 0, "cpu")``: numbers as integers, words as they are."""
    return tuple(
        int(part) if part.isascii() and part.isdecimal() else part
        for part in re.split(r"[.+-]", version)
    )


# Asked of the folder, not of the import system: import hooks of editable installs answer with
# another tree's file.
if (_PACKAGE / "_version.py").is_file():
    from vllm._version import __version__
else:
    __version__ = _of_source_tree(_PACKAGE)

#: The version in parts that compare, release numbers first.
__version_tuple__: tuple[int | str, ...] = _parts(__version__)

__all__ = ["__version__", "__version_tuple__"]
