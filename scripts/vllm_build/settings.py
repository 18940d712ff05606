# SPDX-License-Identifier: Apache-2.0
"""The build's environment variables, read once into one typed, frozen object.

An empty variable counts as unset. A malformed value is a configuration error that names the variable: a build that silently ignores what it
was told is worse than one that stops.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEVICES = ("cuda", "rocm", "cpu", "tpu", "xpu", "empty")
BUILD_TYPES = ("Debug", "Release", "RelWithDebInfo")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def _text(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name, "").strip()
    return value or None


def _flag(environ: Mapping[str, str], name: str) -> bool:
    value = _text(environ, name)
    if value is None or value.lower() in _FALSE:
        return False
    if value.lower() in _TRUE:
        return True
    raise ConfigurationError(f"{name}={value!r} is not a switch", expected="1 or 0", remedy=f"set {name}=1, or unset it")


def _count(environ: Mapping[str, str], name: str) -> int | None:
    value = _text(environ, name)
    if value is None:
        return None
    if value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    raise ConfigurationError(
        f"{name}={value!r} is not a count", expected="a whole number of at least 1", remedy=f"unset {name} to let the build decide"
    )


def _choice(environ: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str | None:
    value = _text(environ, name)
    if value is None:
        return None
    for choice in choices:
        if value.lower() == choice.lower():
            return choice
    raise ConfigurationError(f"{name}={value!r} is not known", expected="one of " + ", ".join(choices))


def _words(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    value = environ.get(name, "")
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ConfigurationError(
            f"{name}={value!r} cannot be split into words: {error}", expected="words as a shell would read them"
        ) from error


@dataclass(frozen=True)
class Settings:
    """What the environment asks of a build.

    Attributes:
        target_device: ``VLLM_TARGET_DEVICE``; None lets the build choose.
        version_override: ``VLLM_VERSION_OVERRIDE``, taken verbatim.
        skip_version_suffix: ``VLLM_SKIP_VERSION_SUFFIX``, as conda packages need it.
        max_jobs: ``MAX_JOBS``, compile jobs at once; None derives them from CPUs and memory.
        build_type: ``CMAKE_BUILD_TYPE``; None means the caller's default.
        cmake_args: ``CMAKE_ARGS`` split like a shell does; they go last, so they win.
        build_root: ``VLLM_BUILD_ROOT``, where build directories are kept between calls; None means ``build/`` in the tree.
        highway_source: ``HIGHWAY_SRC_DIR``, a Highway source tree used instead of an installed one.
        kernel_digest: ``VLLM_KERNEL_DIGEST``, the digest that the caller believes the tree has; a build that finds another one refuses.
        disable_sccache, disable_ccache: ``VLLM_DISABLE_SCCACHE``, ``VLLM_DISABLE_CCACHE``.
        verbose: ``VERBOSE``, command lines are shown.
        werror: ``VLLM_WERROR``, compiler warnings are errors.
    """

    target_device: str | None = None
    version_override: str | None = None
    skip_version_suffix: bool = False
    max_jobs: int | None = None
    build_type: str | None = None
    cmake_args: tuple[str, ...] = ()
    build_root: Path | None = None
    highway_source: Path | None = None
    kernel_digest: str | None = None
    disable_sccache: bool = False
    disable_ccache: bool = False
    verbose: bool = False
    werror: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read ``environ`` (default: this process's).

        Raises:
            ConfigurationError: a value is malformed.
        """
        env = os.environ if environ is None else environ
        build_root, highway = _text(env, "VLLM_BUILD_ROOT"), _text(env, "HIGHWAY_SRC_DIR")
        return cls(
            target_device=_choice(env, "VLLM_TARGET_DEVICE", DEVICES),
            version_override=_text(env, "VLLM_VERSION_OVERRIDE"),
            skip_version_suffix=_flag(env, "VLLM_SKIP_VERSION_SUFFIX"),
            max_jobs=_count(env, "MAX_JOBS"),
            build_type=_choice(env, "CMAKE_BUILD_TYPE", BUILD_TYPES),
            cmake_args=_words(env, "CMAKE_ARGS"),
            build_root=Path(build_root).absolute() if build_root else None,
            highway_source=Path(highway).absolute() if highway else None,
            kernel_digest=_text(env, "VLLM_KERNEL_DIGEST"),
            disable_sccache=_flag(env, "VLLM_DISABLE_SCCACHE"),
            disable_ccache=_flag(env, "VLLM_DISABLE_CCACHE"),
            verbose=_flag(env, "VERBOSE"),
            werror=_flag(env, "VLLM_WERROR"),
        )
