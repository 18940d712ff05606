# SPDX-License-Identifier: Apache-2.0
"""Where things lie: the source tree, the user's cache, the channel."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from vllm_build.util.environ import snapshot
from vllm_build.util.errors import ConfigurationError


def source_root() -> Path:
    """The root of the source tree that this library lies in (the folder above ``scripts``)."""
    return Path(__file__).resolve().parents[3]


def library_folder() -> Path:
    """The folder that this library is imported from: what the module path of a child needs that runs one of its modules."""
    return source_root() / "scripts"


def expanded(text: str, name: str) -> Path:
    """The absolute path that ``name`` (a variable, an option) was given as ``text``, in which ``~`` means a home folder.

    Raises:
        ConfigurationError: there is no such user, or no home folder is known.
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(
            f"{name}={text!r} is not valid: {error}",
            expected="a path; ~ and ~user only where there is such a home folder",
            remedy=f"correct {name}",
        ) from error


def home() -> Path | None:
    """The user's home folder: ``HOME``, else what the password database says; None where neither knows one.

    ``HOME`` is unset under ``env -i`` and in some batch jobs; in containers the user id is often in
    no password database.
    """
    chosen = snapshot().get("HOME")
    if chosen:
        return Path(chosen)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def cache_root() -> Path:
    """The cache folder of all checkouts of this user: ``VLLM_BUILD_CACHE``, else ``vllm-build`` in the XDG cache folder.

    Raises:
        ConfigurationError: none of the variables names a folder, and the user has no home; or
            XDG_CACHE_HOME is relative.
    """
    if chosen := snapshot().get("VLLM_BUILD_CACHE"):
        return expanded(chosen, "VLLM_BUILD_CACHE")
    if xdg := snapshot().get("XDG_CACHE_HOME"):
        if not xdg.startswith(("/", "~")):
            raise ConfigurationError(
                f"XDG_CACHE_HOME={xdg!r} is not valid: it is relative",
                expected="an absolute path: other programs ignore a relative one",
                remedy="correct XDG_CACHE_HOME, or unset it; VLLM_BUILD_CACHE names a folder for "
                "this build alone",
            )
        return expanded(xdg, "XDG_CACHE_HOME") / "vllm-build"
    folder = home()
    if folder is None:
        raise ConfigurationError(
            "there is no folder for the cache: HOME is not set, and no account has the user id "
            f"{os.getuid()}",
            expected="a folder that can be written to",
            remedy="set VLLM_BUILD_CACHE to one",
        )
    return folder.absolute() / ".cache" / "vllm-build"


def toolchain_channel() -> Path:
    """The packages made from PyPI and Debian packages, and the channels over them: one for each state of a tree (``toolchain.views``)."""
    return cache_root() / "channel"


def ccache_dir() -> Path:
    """The compiler cache of all builds: ``CCACHE_DIR`` when the user has one, else a folder of the cache."""
    chosen = snapshot().get("CCACHE_DIR")
    return expanded(chosen, "CCACHE_DIR") if chosen else cache_root() / "ccache"


def rattler_cache() -> Path:
    """Rattler's cache for rattler-build, apart from the user's own: names there may stand for other bytes."""
    return cache_root() / "rattler"


def extracted_packages() -> Path:
    """Extracted conda packages that were compared with their index; whatever rattler-build extracted lies elsewhere."""
    return cache_root() / "extracted"
