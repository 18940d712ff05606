# SPDX-License-Identifier: Apache-2.0
"""PEP 517 backend: setuptools' backend, with the build requirements of the device.

torch and the build programs are required only if kernels are compiled and the machine has no
suitable ones. Errors of the build are printed without a traceback, which would hide them in pip's
output.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from setuptools import build_meta
from setuptools.errors import FileError

from vllm_build.kernels.plan_resolver import PURE_DEVICES
from vllm_build.native import cmake
from vllm_build.reuse.stores import signer_keys
from vllm_build.settings import build_settings
from vllm_build.settings.build_settings import Settings
from vllm_build.sources import engine_kernels
from vllm_build.target import device, torch_files
from vllm_build.util import environ, failures, files, paths
from vllm_build.util.errors import ConfigurationError, ToolchainError, VllmBuildError
from vllm_build.util.processes import signals
from vllm_build.util.redaction import say
from vllm_build.wheels import distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllm_build.target.device import Target

    Config = Mapping[str, Any] | None

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Result = TypeVar("Result")


def _read_only(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the source tree {paths.source_root()} cannot be written: {why}",
        expected="a writable tree, for editable installs and source distributions (wheels do not "
        "need one)",
        remedy="copy the tree, or build a wheel: VLLM_BUILD_ROOT=FOLDER pip wheel TREE",
    )


def _refuse_engine() -> None:
    """Refuse an editable install with the engine, whose files are not in the tree."""
    if Settings.from_environ(environ.snapshot()).engine:
        raise ConfigurationError(
            "VLLM_ENGINE=1: an editable install has no engine, because the tree does not contain "
            "it",
            expected="VLLM_ENGINE unset or 0, or a wheel",
            remedy="VLLM_ENGINE=1 pip install .",
        )


def _plainly(hook: Callable[..., Result]) -> Callable[..., Result]:
    """Make a hook report an error as its message and exit status, without a traceback."""

    @functools.wraps(hook)
    def run(*arguments: Any, **options: Any) -> Result:
        try:
            # A killed pip does not end its hooks: they would go on compiling for nothing.
            with signals.ending("the build"), signals.ending_with_parent():
                return hook(*arguments, **options)
        except (VllmBuildError, OSError, FileError) as error:
            if isinstance(error, VllmBuildError) or files.may_write(paths.source_root()):
                failure = failures.of_exception(
                    error,
                    {},
                    environ.snapshot(),
                    (variable.name for variable in build_settings.variables()),
                )
            else:
                failure = _read_only(str(error))
            say(f"\nerror: {failure}\n")
            raise SystemExit(failure.exit_code) from None

    return run


def _precompiled_requirements(settings: Settings) -> list[str]:
    """The packages that read conda packages and verify signatures, if they may be needed.

    Any store may be a channel: only a request to it would tell.
    """
    location = settings.precompiled_location
    conda = location.endswith(".conda") if location else bool(settings.precompiled_stores)
    # The standard library reads zstandard from Python 3.14.
    wanted = ["zstandard>=0.22; python_version < '3.14'"] if conda else []
    # A single file needs no signature: its sha256 is known, or it is refused.
    return (
        [*wanted, signer_keys.REQUIREMENT] if settings.precompiled_key and not location else wanted
    )


def _requirements(
    of_setuptools: Callable[[Config], list[str]], config_settings: Config
) -> list[str]:
    """The requirements of setuptools, and those of compiling for the device."""
    settings = Settings.from_environ(environ.snapshot())
    target = device.resolve(settings)
    with distribution.staging(), distribution.resolved(settings, target):
        return [*of_setuptools(config_settings), *_compile_requirements(settings, target)]


def _compile_requirements(settings: Settings, target: Target) -> list[str]:
    if target.name in PURE_DEVICES:
        return []
    wanted = _precompiled_requirements(settings) if settings.precompiled else []
    if settings.precompiled and not settings.precompiled_partial:
        return wanted
    try:
        torch_files.find()
    except ToolchainError:
        wanted.append(f"torch>={torch_files.MINIMUM}")
    try:
        cmake.find_cmake(settings.search_path)
    except ToolchainError:
        wanted.append(f"cmake>={'.'.join(map(str, cmake.MINIMUM))}")
    try:
        cmake.find_generator(settings)
    except ToolchainError:
        wanted.append("ninja")
    if target.name == "cuda" and settings.kernels == "engine":
        wanted.append(engine_kernels.REQUIREMENT)
    return wanted


@_plainly
def get_requires_for_build_wheel(config_settings: Config = None) -> list[str]:
    """The requirements of a wheel build in addition to ``build-system.requires``."""
    return _requirements(build_meta.get_requires_for_build_wheel, config_settings)


@_plainly
def get_requires_for_build_editable(config_settings: Config = None) -> list[str]:
    """The requirements of an editable build in addition to ``build-system.requires``."""
    _refuse_engine()
    return _requirements(build_meta.get_requires_for_build_editable, config_settings)


@_plainly
def get_requires_for_build_sdist(config_settings: Config = None) -> list[str]:
    """The requirements of a source distribution: setuptools', as nothing is compiled."""
    with distribution.source_distribution():
        return list(build_meta.get_requires_for_build_sdist(config_settings))


@_plainly
def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: Config = None
) -> str:
    """Write the metadata of the wheel; this needs no torch, compiler or network."""
    return str(build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings))


@_plainly
def prepare_metadata_for_build_editable(
    metadata_directory: str, config_settings: Config = None
) -> str:
    """Write the metadata of the editable wheel."""
    return str(build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings))


@_plainly
def build_wheel(
    wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel into ``wheel_directory``; returns its file name."""
    with distribution.staging():
        return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


@_plainly
def build_editable(
    wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None
) -> str:
    """Build the kernels into the tree and a wheel that points there; returns its file name."""
    _refuse_engine()
    # Checked first: setuptools turns a failure to write into a KeyError.
    if not files.may_write(paths.source_root()):
        raise _read_only("an editable install writes its version and kernels into it")
    with distribution.staging():
        return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))


@_plainly
def build_sdist(sdist_directory: str, config_settings: Config = None) -> str:
    """Build the source distribution, which is the same for every device; returns its file name."""
    with distribution.source_distribution():
        return str(build_meta.build_sdist(sdist_directory, config_settings))
