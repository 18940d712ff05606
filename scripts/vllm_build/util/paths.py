# SPDX-License-Identifier: Apache-2.0
"""Paths of the source tree, and of this user's cache for code that has no :class:`Places`."""

from __future__ import annotations

from pathlib import Path

from vllm_build.util import environ


def source_root() -> Path:
    """The root of the source tree that contains this library (the folder above ``scripts``)."""
    return Path(__file__).resolve().parents[3]


def library_folder() -> Path:
    """The folder from which this library is imported, for the module path of a child process."""
    return source_root() / "scripts"


def cache_root() -> Path:
    """The cache of this user.

    Raises:
        ConfigurationError: as for ``Places.cache``.
    """
    return environ.places().cache


def toolchain_channel() -> Path:
    """The folder of the toolchain's packages and channels; each state of a tree has a channel.

    The packages are made from PyPI and Debian packages (see ``toolchain.channel_views``).
    """
    return cache_root() / "channel"


def ccache_dir() -> Path:
    """The compiler cache of this user."""
    return environ.places().ccache


def rattler_cache() -> Path:
    """The cache of rattler-build.

    It is separate from the user's own: the same package names may have other contents there.
    """
    return cache_root() / "rattler"


def extracted_packages() -> Path:
    """Extracted conda packages that were compared with their index.

    Packages that rattler-build extracted lie in :func:`rattler_cache`.
    """
    return cache_root() / "extracted"
