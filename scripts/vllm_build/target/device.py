# SPDX-License-Identifier: Apache-2.0
"""Which device a build is for (build contract, section 2)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.target import torch_files
from vllm_build.target.toolkits import toolkit_finder
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packaging.version import Version

    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.toolkits.toolkit_search import Toolkit
    from vllm_build.target.torch_flavour import TorchFlavour

#: Devices whose kernels call into a part of torch that only a torch built for them has. Every torch
#: has the CPU's.
_NEED_THEIR_TORCH = ("cuda", "rocm", "xpu")
_PURE = ("tpu", "empty")


@dataclass(frozen=True)
class Target:
    """What a build is for.

    Attributes:
        name: one of ``cuda rocm cpu tpu xpu empty``.
        reason: why, in words.
        toolkit: the device's toolkit; None when the device needs none or it is not installed, which
            only compiling minds.
        torch: the torch that the result will run with; None when none is installed.
    """

    name: str
    reason: str
    toolkit: Toolkit | None = None
    torch: TorchFlavour | None = None

    @property
    def release(self) -> Version | None:
        """The release of the toolkit, else of the one that a torch for this device was built with."""
        if self.toolkit is not None:
            return self.toolkit.version
        return (
            self.torch.toolkit_version
            if self.torch is not None and self.torch.device == self.name
            else None
        )


def _check(name: str, reason: str, torches: Sequence[TorchFlavour]) -> None:
    if name not in _NEED_THEIR_TORCH:
        return
    for torch in torches:
        # The stable ABI's headers are the same for every device: nobody runs Python programs with a
        # libtorch that has no Python part.
        if torch.device == name or torch.bare:
            continue
        remedy = f"install a torch built for {name}, or set VLLM_TARGET_DEVICE to {torch.device}"
        if torch.temporary:
            remedy = (
                f"install a torch built for {name} and build in its environment (pip install "
                "--no-build-isolation)"
            )
        raise ConfigurationError(
            f"device {name} ({reason}) contradicts the installed torch: {torch}",
            expected=f"a torch built for {name}",
            remedy=remedy,
        )


def _detect(settings: Settings, torches: Sequence[TorchFlavour]) -> Target:
    chosen = [torch for torch in torches if not torch.temporary]
    if chosen:
        torch = chosen[0]
        return Target(
            torch.device,
            f"the installed {torch}",
            toolkit_finder.find(torch.device, settings),
            torch,
        )
    # A torch that the front end installed for this build alone was chosen by nobody: it decides
    # nothing, but it can rule devices out.
    possible = [torches[0].device] if torches else _NEED_THEIR_TORCH
    for name in possible:
        if found := toolkit_finder.find(name, settings):
            return Target(name, f"no torch is installed; found {found}", found)
    ruled_out = f"; the build itself has {torches[0]}" if torches else ""
    return Target(
        "cpu", f"neither an installed torch nor a toolkit asks for another device{ruled_out}"
    )


def resolve(
    settings: Settings, *, system: str | None = None, torches: Sequence[TorchFlavour] | None = None
) -> Target:
    """Choose the device: what ``VLLM_TARGET_DEVICE`` says, else what torch, else what the toolkits say, else ``cpu``.

    Args:
        settings: the environment.
        system: ``sys.platform`` of the machine; None asks this interpreter.
        torches: what :func:`torch_files.installed` found; None looks.

    Raises:
        ConfigurationError: the device contradicts the installed torch.
        ToolchainError: the device's toolkit is broken, too old, or not where a variable says.
    """
    system = system or sys.platform
    asked = settings.target_device
    if not system.startswith(("linux", "darwin")):
        return Target("empty", f"nothing is compiled on {system}")
    if asked in _PURE:
        return Target(asked, "VLLM_TARGET_DEVICE")
    torches = torch_files.installed() if torches is None else torches
    torch = next((torch for torch in torches if not torch.temporary), None)
    if system == "darwin":
        over = f", whatever VLLM_TARGET_DEVICE={asked} says" if asked not in (None, "cpu") else ""
        return Target("cpu", f"macOS builds for cpu{over}", None, torch)
    if asked is None:
        target = _detect(settings, torches)
        _check(target.name, target.reason, torches)
        return target
    # The contradiction first: a toolkit for a device that is impossible here need not be looked
    # for.
    _check(asked, f"VLLM_TARGET_DEVICE={asked}", torches)
    return Target(asked, f"VLLM_TARGET_DEVICE={asked}", toolkit_finder.find(asked, settings), torch)


def assume(name: str, settings: Settings) -> Target:
    """A build for device ``name`` whatever torch is installed: the answer to a question, not a build that is about to start.

    Raises:
        ToolchainError: the device's toolkit is broken, too old, or not where a variable says.
    """
    torch = next((torch for torch in torch_files.installed() if not torch.temporary), None)
    return Target(name, "asked for", toolkit_finder.find(name, settings), torch)


def target_device(settings: Settings) -> str:
    """The name of the device alone."""
    return resolve(settings).name
