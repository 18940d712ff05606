# SPDX-License-Identifier: Apache-2.0
"""Finds a source distribution that no lock has yet, on the index of pip's configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.version import InvalidVersion, Version

from vllm_build.toolchain import pypi
from vllm_build.toolchain.pip_selection import SDIST
from vllm_build.util.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def find(name: str, version: str, *, inherited: Mapping[str, str]) -> tuple[str, str]:
    """File name and sha256 of an sdist, without running its code.

    Args:
        name: the distribution.
        version: a version that is not locked yet, as the user spells it.
        inherited: the variables that pip starts from.

    Raises:
        MissingVersionError, FetchError, ConfigurationError: as ``download``; the version may also
            be malformed.
        IntegrityError: the index gives no sha256, or no usable file name.
    """
    try:
        wanted = Version(version)
    except InvalidVersion as error:
        raise ConfigurationError(
            f"{version!r} is no version", expected=f"a release of {name}, such as 1.2.3"
        ) from error
    done, found = pypi.report([f"{name}==={wanted}"], SDIST, inherited)
    if not found:
        what = f"source distribution of {name} {wanted}"
        failure = pypi.not_found(what, done, "", inherited)
        if isinstance(failure, pypi.MissingVersionError):
            raise pypi.MissingVersionError(
                failure.message,
                expected=f"a release of {name} on the configured index",
                remedy=f"`pip index versions {name}` lists them",
            )
        raise failure
    filename = Path(unquote(urlsplit(found[0]["download_info"]["url"]).path)).name
    if not _FILE.fullmatch(filename):
        raise IntegrityError(
            f"the index names the file {filename!r} for {name} {wanted}",
            expected="letters, digits and ._+-",
        )
    if not (sha256 := pypi.sha256_in(found[0])):
        raise IntegrityError(
            f"the index gives no sha256 for {name} {wanted}",
            expected="an index that gives one, such as PyPI",
        )
    return filename, sha256
