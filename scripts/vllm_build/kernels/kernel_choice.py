# SPDX-License-Identifier: Apache-2.0
"""Decides whether a build compiles one kernel of the table, and for which architectures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets
from vllm_build.kernels.build_plan import (
    BUILT,
    NO_ARCH,
    NO_SOURCE,
    NOT_CHOSEN,
    OLD_TOOLKIT,
    WRONG_DEVICE,
    Decision,
    Unserved,
)

if TYPE_CHECKING:
    from packaging.version import Version

    from vllm_build.kernels.kernel_records import Extension, Kernel
    from vllm_build.settings.build_settings import Settings


@dataclass(frozen=True)
class Choice:
    """The part of the table that a build wants.

    Attributes:
        flash_attention_set: the set of FlashAttention kernels to build, a value of ``VLLM_FA_SET``;
            None means no kernel that belongs to a set.
        components: outputs to build; empty means all.
        provider: whose kernels to build where there are two of a kind, a value of ``VLLM_KERNELS``.
        kernel_set: the set of the engine's kernels to build, a value of ``VLLM_KERNEL_SET``.
    """

    flash_attention_set: str | None = None
    components: tuple[str, ...] = ()
    provider: str = "own"
    kernel_set: str = "full"

    @classmethod
    def of(cls, settings: Settings) -> Choice:
        """The choice that the environment makes."""
        return cls(
            settings.flash_attention_set,
            settings.components,
            settings.kernels or cls.provider,
            settings.kernel_set or cls.kernel_set,
        )

    def set_of(self, variable: str) -> str | None:
        """The chosen value of a variable of ``kernel_records.SETS``."""
        return {"VLLM_FA_SET": self.flash_attention_set, "VLLM_KERNEL_SET": self.kernel_set}[
            variable
        ]


EVERYTHING = Choice()


def _needs(need: str, targets: tuple[str, ...]) -> bool:
    """Whether ``targets`` contains the architecture ``need``, or one of at least ``>=NUMBER``."""
    plain = [target.removesuffix("+PTX") for target in targets]
    if not need.startswith(">="):
        return need in plain
    return any(
        gpu_targets.number(target) >= gpu_targets.number(need.removeprefix(">="))
        for target in plain
    )


def _match(
    kernel: Kernel, device: str, version: Version | None, targets: tuple[str, ...]
) -> Decision:
    """Choose the architectures of a kernel that is not left out for another reason."""
    record = kernel.archs[device]
    refused = {
        arch: why for arch in record if (why := gpu_targets.why_not_compiled(device, arch, version))
    }
    usable = tuple(arch for arch in record if arch not in refused)
    archs, left = gpu_targets.match(device, usable, targets)
    unserved = []
    for target in left:
        could, _ = gpu_targets.match(device, record, (target,))
        # `could` has the PTX suffix of the target, while `refused` has that of the record.
        whys = [
            why
            for arch, why in refused.items()
            if any(arch.removesuffix("+PTX") == c.removesuffix("+PTX") for c in could)
        ]
        unserved.append(
            Unserved(target, whys[0] if whys else f"none of {' '.join(record)} serves it")
        )
    if archs:
        return Decision(kernel, BUILT, f"for {' '.join(archs)}", archs, tuple(unserved))
    if refused and any(u.reason in refused.values() for u in unserved):
        return Decision(
            kernel, OLD_TOOLKIT, "; ".join(dict.fromkeys(refused.values())), (), tuple(unserved)
        )
    return Decision(
        kernel,
        NO_ARCH,
        f"written for {' '.join(record)}, which serve none of {' '.join(targets)}",
        (),
        tuple(unserved),
    )


def why_not_chosen(kernel: Kernel, extension: Extension, device: str, choice: Choice) -> str | None:
    """Why a build leaves out a kernel of its device that it could compile; None if it does not."""
    if choice.components and extension.component not in choice.components:
        return f"belongs to {extension.component}; VLLM_COMPONENTS is {' '.join(choice.components)}"
    provider = kernel.provider.get(device, choice.provider)
    if provider != choice.provider:
        return f"built with VLLM_KERNELS={provider}, which is {choice.provider}"
    variable = extension.set_variable
    chosen = choice.set_of(variable)
    if kernel.sets and chosen not in kernel.sets:
        return f"built with {variable}={' or '.join(kernel.sets)}, which is {chosen or 'not set'}"
    return None


def decide(
    kernel: Kernel,
    extension: Extension,
    device: str,
    version: Version | None,
    targets: tuple[str, ...],
    choice: Choice,
) -> Decision:
    """Decide whether a build compiles ``kernel``, and for which architectures.

    Args:
        kernel: a record of the table.
        extension: the record of the library that the kernel is linked into.
        device: what the build is for.
        version: of the toolkit; None means unknown, and then it excludes nothing.
        targets: architectures that the build is for.
        choice: which part of the table is wanted.
    """
    if device not in kernel.devices:
        return Decision(
            kernel, WRONG_DEVICE, f"written for {', '.join(kernel.devices)}, not for {device}"
        )
    why = why_not_chosen(kernel, extension, device, choice)
    if why is not None:
        return Decision(kernel, NOT_CHOSEN, why)
    if kernel.missing:
        return Decision(
            kernel, NO_SOURCE, f"optional, and {', '.join(kernel.missing)} is not in the tree"
        )
    for what, record in ((kernel.name, kernel), (extension.name, extension)):
        floor = record.min_toolkit.get(device)
        if floor is not None and version is not None and version < floor:
            name = gpu_targets.TOOLKITS[device]
            return Decision(
                kernel, OLD_TOOLKIT, f"{what} needs {name} >= {floor}, this is {version}"
            )
    need = extension.needs_arch.get(device)
    if need is not None and not _needs(need, targets):
        what = need.replace(">=", "an architecture >= ")
        return Decision(
            kernel,
            NO_ARCH,
            f"{extension.name} needs {what} in the list, which is {' '.join(targets)}",
        )
    if device not in kernel.archs:
        return Decision(kernel, BUILT, f"for {device}")
    return _match(kernel, device, version, targets)
