# SPDX-License-Identifier: Apache-2.0
"""Reads ``requirements/<device>.txt``, the run requirements for both pip and conda.

See the build contract, section 6. A line of these files is a requirement, a comment, or
``-r common.txt``. Anything else that pip accepts is an error here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

from vllm_build.settings.choices import DEVICES
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import read_text

if TYPE_CHECKING:
    from pathlib import Path

COMMON = "common.txt"
#: A comment begins at the start of a line or after white space. A `#` inside a URL is part of it.
_COMMENT = re.compile(r"(^|\s)#.*")


def _read_file(path: Path) -> list[str]:
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} does not exist", expected="a file with requirements"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}", expected="a file with requirements"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8 at byte {error.start}", expected="requirements as UTF-8 text"
        ) from error
    found: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw).strip()
        if line == f"-r {COMMON}" and path.name != COMMON:
            found += _read_file(path.with_name(COMMON))
        elif line:
            try:
                Requirement(line)
            except InvalidRequirement as error:
                raise ConfigurationError(
                    f"{path}:{number}: {line!r} is not a requirement: {error}",
                    expected=f"a requirement as PEP 508 defines it, a comment, or -r {COMMON}",
                ) from error
            found.append(line)
    return found


def read(root: Path, device: str) -> list[str]:
    """The requirements of ``device`` without duplicates; ``empty`` has only the common ones.

    Raises:
        ConfigurationError: there is no such device, a file is missing, or a line is malformed.
    """
    if device not in DEVICES:
        raise ConfigurationError(
            f"no requirements for device {device!r}", expected="one of " + ", ".join(DEVICES)
        )
    path = root / "requirements" / (COMMON if device == "empty" else f"{device}.txt")
    return list(dict.fromkeys(_read_file(path)))
