# SPDX-License-Identifier: Apache-2.0
"""Chooses the device of a build (build contract, section 2)."""

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

#: Devices whose kernels call a part of torch that only a torch for that device has. Every torch has
#: the CPU's part.
_NEED_THEIR_TORCH = ("cuda", "rocm", "xpu")
_PURE = ("tpu", "empty")


@dataclass(frozen=True)
class Target:
    """The target of a build.

    Attributes:
        name: the device, one of ``cuda rocm cpu tpu xpu empty``.
        reason: why it was chosen, in words.
        toolkit: the device's toolkit; None if the device needs none or it is not installed. A
            missing toolkit is an error only when something is compiled.
        torch: the torch that the result will run with; None if none is installed.
    """

    name: str
    reason: str
    toolkit: Toolkit | None = None
    torch: TorchFlavour | None = None

    @property
    def release(self) -> Version | None:
        """The release of the toolkit, else of the one that this device's torch was built with."""
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
        # A libtorch without its Python part is only compiled against, and the headers of the stable
        # ABI are the same for every device.
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
    # A torch that the front end installed only for this build does not select the device, but it
    # can rule devices out.
    possible = [torches[0].device] if torches else _NEED_THEIR_TORCH
    for name in possible:
        if found := toolkit_finder.find(name, settings):
            return Target(name, f"no torch is installed; found {found}", found)
    ruled_out = f"; the build itself has {torches[0]}" if torches else ""
    return Target("cpu", f"no installed torch and no toolkit select another device{ruled_out}")


def resolve(
    settings: Settings, *, system: str | None = None, torches: Sequence[TorchFlavour] | None = None
) -> Target:
    """Choose the device by ``VLLM_TARGET_DEVICE``, else by torch, else by toolkits, else ``cpu``.

    Args:
        settings: the settings.
        system: ``sys.platform`` of the machine; None means this interpreter's.
        torches: the result of :func:`torch_files.installed`; None calls it.

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
        over = f"; VLLM_TARGET_DEVICE={asked} is ignored" if asked not in (None, "cpu") else ""
        return Target("cpu", f"macOS builds are for cpu{over}", None, torch)
    if asked is None:
        target = _detect(settings, torches)
        _check(target.name, target.reason, torches)
        return target
    # Check for a contradiction first: an impossible device needs no search for its toolkit.
    _check(asked, f"VLLM_TARGET_DEVICE={asked}", torches)
    return Target(asked, f"VLLM_TARGET_DEVICE={asked}", toolkit_finder.find(asked, settings), torch)


def assume(name: str, settings: Settings) -> Target:
    """The target for device ``name``, regardless of the installed torch.

    This answers questions such as "what would be built?". A build calls :func:`resolve`.

    Raises:
        ToolchainError: the device's toolkit is broken, too old, or not where a variable says.
    """
    torch = next((torch for torch in torch_files.installed() if not torch.temporary), None)
    return Target(name, "asked for", toolkit_finder.find(name, settings), torch)


def target_device(settings: Settings) -> str:
    """The name of the resolved device."""
    return resolve(settings).name
