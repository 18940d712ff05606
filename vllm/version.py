# SPDX-License-Identifier: Apache-2.0
"""The version of this package.

A build writes ``_version.py``; ``__version__`` then equals the version in the distribution's
metadata. A source tree that was never built has no such file. Its version is the base version with
the local part ``source``, so that it cannot be mistaken for a release. The metadata of the
environment is not used, because it could belong to another installation that this tree shadows.
"""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).absolute().parent


def _of_source_tree(package: Path) -> str:
    """``<base>+source`` for a package folder in a source tree.

    Raises:
        ImportError: there is no ``VERSION`` next to the package, so this is an installation that
            lost its ``_version.py``.
    """
    try:
        base = (package.parent / "VERSION").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ImportError(
            f"{package} has no _version.py and is not in a source tree: the installation is "
            "incomplete.\n"
            "Install vllm again (conda install vllm), or build a checkout with: pip install -e ."
        ) from error
    return f"{base}{'.' if '+' in base else '+'}source"


def _parts(version: str) -> tuple[int | str, ...]:
    """Split a version: ``"0.1.0+cpu"`` becomes ``(0, 1, 0, "cpu")``."""
    return tuple(
        int(part) if part.isascii() and part.isdecimal() else part
        for part in re.split(r"[.+-]", version)
    )


# Look in the folder instead of importing: import hooks of editable installs would find another
# tree's file.
if (_PACKAGE / "_version.py").is_file():
    from vllm._version import __version__
else:
    __version__ = _of_source_tree(_PACKAGE)

#: The parts of the version, for comparisons; release numbers come first.
__version_tuple__: tuple[int | str, ...] = _parts(__version__)

__all__ = ["__version__", "__version_tuple__"]
