# SPDX-License-Identifier: Apache-2.0
"""Options that choose a device and a toolkit, which this machine need not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets
from vllm_build.settings.choices import DEVICE
from vllm_build.settings.value_kinds import RELEASE, checked
from vllm_build.target import device

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from packaging.version import Version

    from vllm_build.settings.build_settings import Settings


def add_target(parser: ArgumentParser) -> None:
    """Declare ``--device`` and ``--toolkit-version``."""
    parser.add_argument("--device", help="default: VLLM_TARGET_DEVICE, else the detected one")
    parser.add_argument(
        "--toolkit-version",
        help="release of the CUDA or ROCm toolkit, such as 12.9; default: the detected one",
    )


def options(arguments: Namespace) -> tuple[str | None, Version | None]:
    """The values of ``--device`` and ``--toolkit-version``; None for an option that is absent.

    Raises:
        ConfigurationError: an option is malformed.
        ToolchainError: the release is older than the oldest supported one.
    """
    name = None if arguments.device is None else checked("--device", DEVICE, arguments.device)
    release = (
        None
        if arguments.toolkit_version is None
        else checked("--toolkit-version", RELEASE, arguments.toolkit_version)
    )
    if name is not None:
        gpu_targets.check_floor(name, release)
    return name, release


def target(arguments: Namespace, settings: Settings) -> tuple[str, Version | None]:
    """The device and the release of its toolkit, from the options or detected.

    A value from an option is not detected, so every rule can be tried on a machine with other
    hardware or none.

    Raises:
        ConfigurationError: an option is malformed.
        ToolchainError: the toolkit is broken, or older than the oldest supported release.
    """
    name, release = options(arguments)
    if name is not None:
        return name, release or device.assume(name, settings).release
    found = device.resolve(settings)
    gpu_targets.check_floor(found.name, release)
    return found.name, release or found.release
