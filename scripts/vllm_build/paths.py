# SPDX-License-Identifier: Apache-2.0
"""Where things lie: the source tree, the user's cache, the channel."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def source_root() -> Path:
    """The root of the source tree that this library lies in (the folder above ``scripts``)."""
    return Path(__file__).resolve().parents[2]


def library_folder() -> Path:
    """The folder that this library is imported from: what the ``PYTHONPATH`` of a child needs that runs one of its modules."""
    return source_root() / "scripts"


def _home() -> Path:
    """The user's home, from the password database when the environment has no ``HOME`` (``env -i``, batch jobs)."""
    home = os.environ.get("HOME")
    return Path(home) if home else Path(pwd.getpwuid(os.getuid()).pw_dir)


def cache_root() -> Path:
    """The cache folder of all checkouts of this user: ``VLLM_BUILD_CACHE``, else ``vllm-build`` in the XDG cache folder."""
    chosen = os.environ.get("VLLM_BUILD_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else _home() / ".cache").absolute() / "vllm-build"


def toolchain_channel() -> Path:
    """The local conda channel made from PyPI and Debian packages."""
    return cache_root() / "channel"


def ccache_dir() -> Path:
    """The compiler cache of all builds: ``CCACHE_DIR`` when the user has one, else a folder of the cache."""
    chosen = os.environ.get("CCACHE_DIR")
    return Path(chosen).absolute() if chosen else cache_root() / "ccache"


def rattler_cache() -> Path:
    """Rattler's cache for rattler-build, apart from the user's own: names there may stand for other bytes."""
    return cache_root() / "rattler"


def extracted_packages() -> Path:
    """Extracted conda packages that were compared with their index; whatever rattler-build extracted lies elsewhere."""
    return cache_root() / "extracted"
