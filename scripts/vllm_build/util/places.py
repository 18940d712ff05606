# SPDX-License-Identifier: Apache-2.0
"""The folders of one user, from the variables and the account that determine them."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


def expanded(text: str, name: str) -> Path:
    """The absolute path for ``text``; ``~`` means a home folder.

    Args:
        text: the path as the user gave it.
        name: the variable or option that has this value.

    Raises:
        ConfigurationError: there is no such user, or no home folder is known.
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(
            f"{name}={text!r} is not valid: {error}",
            expected="a path; ~ and ~user only if that home folder exists",
            remedy=f"correct {name}",
        ) from error


@dataclass(frozen=True)
class Places:
    """The variables that determine a user's folders; an empty text means that one is unset.

    Attributes:
        home_variable: ``HOME``.
        build_cache: ``VLLM_BUILD_CACHE``.
        xdg_cache: ``XDG_CACHE_HOME``.
        compiler_cache: ``CCACHE_DIR``.
    """

    home_variable: str = ""
    build_cache: str = ""
    xdg_cache: str = ""
    compiler_cache: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Places:
        """The places of a user with the variables ``environ``."""
        return cls(
            home_variable=environ.get("HOME", ""),
            build_cache=environ.get("VLLM_BUILD_CACHE", ""),
            xdg_cache=environ.get("XDG_CACHE_HOME", ""),
            compiler_cache=environ.get("CCACHE_DIR", ""),
        )

    @property
    def home(self) -> Path | None:
        """The home folder: ``HOME``, else the account's; None if there is neither.

        ``HOME`` is unset under ``env -i`` and in some batch jobs. In containers the user id is
        often in no password database.
        """
        if self.home_variable:
            return Path(self.home_variable)
        try:
            return Path(pwd.getpwuid(os.getuid()).pw_dir)
        except KeyError:
            return None

    @property
    def cache(self) -> Path:
        """The cache of all checkouts: ``VLLM_BUILD_CACHE``, else ``vllm-build`` in the XDG cache.

        Raises:
            ConfigurationError: no variable names a folder and the user has no home, or
                XDG_CACHE_HOME is relative.
        """
        if self.build_cache:
            return expanded(self.build_cache, "VLLM_BUILD_CACHE")
        if self.xdg_cache:
            if not self.xdg_cache.startswith(("/", "~")):
                raise ConfigurationError(
                    f"XDG_CACHE_HOME={self.xdg_cache!r} is not valid: it is relative",
                    expected="an absolute path: other programs ignore a relative one",
                    remedy="correct XDG_CACHE_HOME, or unset it; VLLM_BUILD_CACHE sets the folder "
                    "for this build only",
                )
            return expanded(self.xdg_cache, "XDG_CACHE_HOME") / "vllm-build"
        if self.home is None:
            raise ConfigurationError(
                "there is no folder for the cache: HOME is not set, and no account has the user id "
                f"{os.getuid()}",
                expected="a writable folder",
                remedy="set VLLM_BUILD_CACHE to a writable folder",
            )
        return self.home.absolute() / ".cache" / "vllm-build"

    @property
    def ccache(self) -> Path:
        """The compiler cache of all builds: ``CCACHE_DIR``, else a folder of the cache.

        Raises:
            ConfigurationError: as for ``cache``.
        """
        if self.compiler_cache:
            return expanded(self.compiler_cache, "CCACHE_DIR")
        return self.cache / "ccache"
