# SPDX-License-Identifier: Apache-2.0
"""From the table of kernels to the plan: what one device, toolkit and list of architectures get, and what they do not and why.

CMake reads the plan as ``plan.json`` and decides nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets
from vllm_build.kernels.build_plan import (
    BUILT,
    FORMAT,
    NO_ARCH,
    NO_SOURCE,
    NOT_CHOSEN,
    OLD_TOOLKIT,
    WRONG_DEVICE,
    Decision,
    Omission,
    Plan,
    PlannedExtension,
    PlannedKernel,
    Unserved,
)
from vllm_build.kernels.kernels_table import GPU_DEVICES, KERNEL_DEVICES
from vllm_build.target import requested_archs
from vllm_build.util.errors import ConfigurationError, NothingToDoError

if TYPE_CHECKING:
    from packaging.version import Version

    from vllm_build.kernels.kernels_table import Extension, Kernel, KernelsTable
    from vllm_build.settings.build_settings import Settings

__all__ = [
    "EVERYTHING",
    "FORMAT",
    "PURE_DEVICES",
    "Choice",
    "Decision",
    "Omission",
    "Plan",
    "PlannedExtension",
    "PlannedKernel",
    "Unserved",
    "for_settings",
    "require_kernels",
    "resolve",
    "survey",
]


@dataclass(frozen=True)
class Choice:
    """What of the table is wanted.

    Attributes:
        flash_attention_set: which kernels that need a choice are built, from
            ``kernels_table.SETS``; None means none of them.
        components: outputs that are built; empty means all.
    """

    flash_attention_set: str | None = None
    components: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Choice:
        """What the environment says."""
        return cls(settings.flash_attention_set, settings.components)


EVERYTHING = Choice()
#: Devices with a Python package and, by definition, nothing to compile.
PURE_DEVICES = ("tpu", "empty")


def _needs(need: str, targets: tuple[str, ...]) -> bool:
    """Whether the list holds what an extension needs: an architecture as it is spelled, or any from a number on."""
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
    """The architectures of a kernel that nothing else stands in the way of."""
    record = kernel.archs[device]
    refused = {
        arch: why for arch in record if (why := gpu_targets.why_not_compiled(device, arch, version))
    }
    usable = tuple(arch for arch in record if arch not in refused)
    archs, left = gpu_targets.match(device, usable, targets)
    unserved = []
    for target in left:
        could, _ = gpu_targets.match(device, record, (target,))
        # `could` is spelled with the target's PTX; the toolkit's refusal is of the record's entry.
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


def _decide(
    kernel: Kernel,
    extension: Extension,
    device: str,
    version: Version | None,
    targets: tuple[str, ...],
    choice: Choice,
) -> Decision:
    if device not in kernel.devices:
        return Decision(
            kernel, WRONG_DEVICE, f"written for {', '.join(kernel.devices)}, not for {device}"
        )
    if choice.components and extension.component not in choice.components:
        return Decision(
            kernel,
            NOT_CHOSEN,
            f"belongs to {extension.component}; VLLM_COMPONENTS is {' '.join(choice.components)}",
        )
    chosen = choice.flash_attention_set
    if kernel.sets and chosen not in kernel.sets:
        return Decision(
            kernel,
            NOT_CHOSEN,
            f"built with VLLM_FA_SET={' or '.join(kernel.sets)}, which is {chosen or 'not set'}",
        )
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


def _planned(decision: Decision, device: str, chosen: str | None) -> PlannedKernel:
    kernel = decision.kernel
    definitions = kernel.definitions + kernel.set_definitions.get(chosen or "", ())
    options = gpu_targets.compile_options(device, decision.archs) if decision.archs else ()
    return PlannedKernel(
        *(
            kernel.name,
            kernel.sources,
            definitions,
            kernel.libraries,
            kernel.memory,
            decision.archs,
            options,
        ),
        *(kernel.third_party, kernel.third_party_sources),
    )


def survey(
    table: KernelsTable,
    device: str,
    *,
    toolkit_version: Version | None = None,
    arch_list: str | None = None,
    arch_source: str | None = None,
    choice: Choice = EVERYTHING,
) -> Plan:
    """Decide about every kernel of the table; the plan may turn out empty.

    Args:
        table: what ``kernels_table.load`` returned.
        device: ``cuda``, ``rocm``, ``cpu``, ``xpu``, ``tpu`` or ``empty``.
        toolkit_version: of CUDA or ROCm; None means not known, and then nothing is left out because
            of it. Other devices ignore it.
        arch_list: GPU architectures in the device's spelling; None means the project's list, cut to
            what the toolkit compiles.
        arch_source: where that list comes from, for messages; default: the device's variable.
        choice: what of the table the caller wants.

    Raises:
        ConfigurationError: no such device, no such component, a malformed list, or a list for a
            device that has no architectures.
        ToolchainError: the toolkit is older than the project supports.
    """
    if device not in (*KERNEL_DEVICES, *PURE_DEVICES):
        raise ConfigurationError(
            f"unknown device {device!r}",
            expected="one of " + ", ".join((*KERNEL_DEVICES, *PURE_DEVICES)),
        )
    known = tuple(dict.fromkeys(extension.component for extension in table.extensions))
    for component in choice.components:
        if component not in known:
            raise ConfigurationError(
                f"VLLM_COMPONENTS: {component!r} is not known",
                expected="one or more of " + ", ".join(known),
                remedy="correct VLLM_COMPONENTS, or unset it",
            )
    targets: tuple[str, ...] = ()
    if device in GPU_DEVICES:
        gpu_targets.check_floor(device, toolkit_version)
        if arch_list is None:
            targets = gpu_targets.default(device, toolkit_version)
        else:
            targets = gpu_targets.parse(
                device, arch_list, arch_source or gpu_targets.VARIABLES[device]
            )
    elif arch_list is not None:
        raise ConfigurationError(
            f"{arch_source or 'the list of architectures'}: device {device!r} has no GPU "
            "architectures",
            expected="a list for " + " or ".join(GPU_DEVICES),
            remedy="leave the list out",
        )
    extensions = {extension.name: extension for extension in table.extensions}
    decisions = tuple(
        _decide(kernel, extensions[kernel.extension], device, toolkit_version, targets, choice)
        for kernel in table.kernels
    )
    planned = []
    for extension in table.extensions:
        built = [d for d in decisions if d.state == BUILT and d.kernel.extension == extension.name]
        if built:
            kernels = tuple(_planned(d, device, choice.flash_attention_set) for d in built)
            optional = all(d.kernel.optional for d in built)
            planned.append(
                PlannedExtension(
                    extension.name,
                    extension.component,
                    extension.sources,
                    kernels,
                    optional,
                    extension.torch,
                )
            )
    version = (
        str(toolkit_version) if toolkit_version is not None and device in GPU_DEVICES else None
    )
    return Plan(device, tuple(planned), decisions, version, targets)


def require_kernels(plan: Plan, table: KernelsTable) -> None:
    """Refuse a plan that compiles nothing, and one for a GPU whose architectures leave it without GPU code: never an empty package.

    Raises:
        ConfigurationError: architectures or toolkit leave the device without a kernel that is
            written for it.
        NothingToDoError: the device has nothing to compile; the message says why.
    """
    device = plan.device
    if device in PURE_DEVICES:
        raise NothingToDoError(
            f"device {device!r} compiles nothing",
            expected="a device with kernels: " + ", ".join(KERNEL_DEVICES),
            remedy=f"for {device!r} install the Python package as it is",
        )
    if not any(device in kernel.devices for kernel in table.kernels):
        raise NothingToDoError(
            f"no kernel of {table.path} is written for device {device!r}",
            expected="devices that have kernels: "
            + ", ".join(d for d in KERNEL_DEVICES if any(d in k.devices for k in table.kernels)),
            remedy="choose one of these devices, or 'empty' for the Python package alone",
        )
    code = [decision for decision in plan.decisions if device in decision.kernel.archs]
    if (code or not plan.extensions) and not any(decision.state == BUILT for decision in code):
        mine = [
            decision
            for decision in plan.decisions
            if device in decision.kernel.devices and decision.state != BUILT
        ]
        toolkit = (
            f" with {gpu_targets.TOOLKITS[device]} {plan.toolkit_version}"
            if plan.toolkit_version
            else ""
        )
        built_for = f" for {' '.join(plan.targets)}{toolkit}" if plan.targets else ""
        archs = " ".join(arch for decision in code for arch in decision.kernel.archs[device])
        raise ConfigurationError(
            f"no kernel of {device!r} can be built{built_for}:\n"
            + "\n".join(f"    {d.kernel.name}: {d.reason}" for d in mine),
            expected="an architecture that kernels are written for: "
            + " ".join(gpu_targets.parse(device, archs, "the table"))
            if archs
            else "the sources of a kernel",
            remedy=f"set or unset {gpu_targets.VARIABLES[device]}"
            if device in GPU_DEVICES
            else "check the tree out again",
        )


def resolve(
    table: KernelsTable,
    device: str,
    *,
    toolkit_version: Version | None = None,
    arch_list: str | None = None,
    arch_source: str | None = None,
    choice: Choice = EVERYTHING,
) -> Plan:
    """The plan of a build: :func:`survey`, and something to compile in it.

    Raises:
        ConfigurationError: as ``survey`` does, and when architectures or toolkit leave a GPU
            without a kernel.
        NothingToDoError: the device has nothing to compile.
        ToolchainError: the toolkit is older than the project supports.
    """
    plan = survey(
        table,
        device,
        toolkit_version=toolkit_version,
        arch_list=arch_list,
        arch_source=arch_source,
        choice=choice,
    )
    require_kernels(plan, table)
    return plan


def for_settings(
    table: KernelsTable, device: str, toolkit_version: Version | None, settings: Settings
) -> Plan:
    """The plan of a build that the environment describes: its variables choose the architectures.

    Raises:
        ConfigurationError, NothingToDoError, ToolchainError: as ``resolve`` does; also when two of
        the variables disagree.
    """
    text, source = requested_archs.requested(device, settings) or (None, None)
    return resolve(
        table,
        device,
        toolkit_version=toolkit_version,
        arch_list=text,
        arch_source=source,
        choice=Choice.of(settings),
    )
