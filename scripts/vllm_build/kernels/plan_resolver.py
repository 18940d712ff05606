# SPDX-License-Identifier: Apache-2.0
"""Resolves the table of kernels into the plan of one build.

CMake reads the plan as ``plan.json`` and decides nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets
from vllm_build.kernels import kernel_choice
from vllm_build.kernels.build_plan import BUILT, Decision, Plan, PlannedExtension, PlannedKernel
from vllm_build.kernels.kernel_choice import EVERYTHING, Choice
from vllm_build.kernels.kernel_records import GPU_DEVICES, KERNEL_DEVICES, MEMORY_CLASSES
from vllm_build.target import requested_archs
from vllm_build.util.errors import ConfigurationError, NothingToDoError

if TYPE_CHECKING:
    from packaging.version import Version

    from vllm_build.kernels.kernel_records import KernelsTable
    from vllm_build.settings.build_settings import Settings

#: Devices that have a Python package and never compile anything.
PURE_DEVICES = ("tpu", "empty")


def _planned(
    decision: Decision, device: str, version: Version | None, chosen: str | None
) -> PlannedKernel:
    """The kernel as it is compiled, with the definitions of the ``chosen`` set."""
    kernel = decision.kernel
    definitions = kernel.definitions + kernel.set_definitions.get(chosen or "", ())
    options = gpu_targets.compile_options(device, decision.archs) if decision.archs else ()
    if decision.archs:
        options += kernel.options
        for oldest, more in kernel.options_from.items():
            options += more if version is None or version >= oldest else ()
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
        *(kernel.third_party, kernel.third_party_sources, kernel.generators),
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
    """Decide about every kernel of the table; the plan may be empty.

    Args:
        table: result of ``kernels_table.load``.
        device: ``cuda``, ``rocm``, ``cpu``, ``xpu``, ``tpu`` or ``empty``.
        toolkit_version: release of CUDA or ROCm; None means unknown, and then it excludes nothing.
            Other devices ignore it.
        arch_list: GPU architectures in the device's spelling; None means the project's default
            list without the architectures that the toolkit cannot compile for.
        arch_source: origin of that list, for messages; default: the device's variable.
        choice: the part of the table that the caller wants.

    Raises:
        ConfigurationError: the device or a component does not exist, or the list is malformed or is
            for a device without architectures.
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
        kernel_choice.decide(
            kernel, extensions[kernel.extension], device, toolkit_version, targets, choice
        )
        for kernel in table.kernels
    )
    planned = []
    for extension in table.extensions:
        built = [d for d in decisions if d.state == BUILT and d.kernel.extension == extension.name]
        if built:
            chosen = choice.set_of(extension.set_variable)
            # Ninja starts units in this order. Few of the largest run at once, so they come first.
            ordered = sorted(built, key=lambda d: -MEMORY_CLASSES[d.kernel.memory])
            kernels = tuple(_planned(d, device, toolkit_version, chosen) for d in ordered)
            definitions = dict.fromkeys(
                name for d in built for name in d.kernel.library_definitions
            )
            optional = all(d.kernel.optional for d in built)
            planned.append(
                PlannedExtension(
                    extension.name,
                    extension.component,
                    extension.sources,
                    kernels,
                    optional,
                    extension.torch,
                    extension.standard,
                    tuple(definitions),
                )
            )
    version = (
        str(toolkit_version) if toolkit_version is not None and device in GPU_DEVICES else None
    )
    return Plan(device, tuple(planned), decisions, version, targets)


def require_kernels(plan: Plan, table: KernelsTable) -> None:
    """Refuse a plan that compiles nothing, and a plan for a GPU without GPU code.

    Raises:
        ConfigurationError: the architectures or the toolkit exclude every kernel of the device.
        NothingToDoError: the device has nothing to compile; the message says why.
    """
    device = plan.device
    if device in PURE_DEVICES:
        raise NothingToDoError(
            f"device {device!r} compiles nothing",
            expected="a device with kernels: " + ", ".join(KERNEL_DEVICES),
            remedy=f"for {device!r} install the Python package without kernels",
        )
    if not any(device in kernel.devices for kernel in table.kernels):
        raise NothingToDoError(
            f"no kernel of {table.path} is written for device {device!r}",
            expected="devices that have kernels: "
            + ", ".join(d for d in KERNEL_DEVICES if any(d in k.devices for k in table.kernels)),
            remedy="choose one of these devices, or 'empty' for the Python package without kernels",
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
            expected="an architecture that a kernel is written for: "
            + " ".join(gpu_targets.parse(device, archs, "the table"))
            if archs
            else "the sources of a kernel",
            remedy=f"set or unset {gpu_targets.VARIABLES[device]}"
            if device in GPU_DEVICES
            else "check out the tree again",
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
    """The plan of :func:`survey`, which must compile something.

    Raises:
        ConfigurationError: as ``survey`` does, or the architectures or the toolkit exclude every
            kernel of the device.
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
    """The plan of a build whose architectures the environment chooses.

    Raises:
        ConfigurationError, NothingToDoError, ToolchainError: as ``resolve`` does, or two variables
            disagree.
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
