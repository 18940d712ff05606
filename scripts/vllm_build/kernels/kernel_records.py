# SPDX-License-Identifier: Apache-2.0
"""The checked records of ``csrc/kernels.toml``, and the words that its keys accept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from packaging.version import Version

#: Devices that can have kernels. The devices ``tpu`` and ``empty`` never compile anything.
KERNEL_DEVICES = ("cuda", "rocm", "cpu", "xpu")
#: Devices whose code is compiled for a list of architectures.
GPU_DEVICES = tuple(gpu_targets.TOOLKITS)
#: Peak memory in bytes that the compiler may need for one unit of a class. The number of jobs
#: follows from it. Measured on one core, x86-64:
#: ordinary: a CPU kernel for all instruction sets of Highway takes 0.5 to 0.6 GiB (g++ 12), a small
#: CUDA unit 0.2 to 0.4 GiB (nvcc 13.0); the class allows about twice that for larger units.
#: heavy: FlashAttention 2 for one architecture takes 2.9 to 3.7 GiB, FlashAttention 3 4.3 to
#: 5.5 GiB.
#: large, huge: the engine's products of CUTLASS for one architecture take 5.4 to 9.2 GiB, and those
#: of weights of four bits 11.6 GiB.
MEMORY_CLASSES: Mapping[str, int] = {
    "ordinary": 3 << 29,
    "heavy": 6 << 30,
    "large": 10 << 30,
    "huge": 12 << 30,
}
#: Variable that chooses a set of kernels -> its values. Some kernels take hours to compile, so a
#: build chooses a set of them: the smallest that makes the libraries work, one for development or
#: for serving common models, or all.
SETS: Mapping[str, tuple[str, ...]] = {
    "VLLM_FA_SET": ("check", "dev", "full"),
    "VLLM_KERNEL_SET": ("check", "core", "full"),
}
#: Values of VLLM_KERNELS: whose kernels a build for CUDA has, this project's or the engine's.
PROVIDERS = ("own", "engine")
#: Programs of the engine's sources that write units: name in the table -> their output folder.
GENERATORS: Mapping[str, str] = {
    "machete": "csrc/quantization/machete/generated",
    "marlin": "csrc/quantization/marlin",
    "marlin-moe": "csrc/moe/marlin_moe_wna16",
}
#: Suffix of GPU code. The same source is compiled as CUDA or as HIP, depending on the device.
DEVICE_CODE = ".cu"


@dataclass(frozen=True)
class Extension:
    """One shared library.

    Attributes:
        name: import name, such as ``vllm._C``; its last part names the file and the ``PyInit_``
            function.
        component: the package output, and the CMake install component, that contains it.
        sources: units of the extension itself (its module entry point), relative to the source
            root.
        devices: devices that have it.
        needs_arch: GPU device -> what the build's list of architectures must contain: an entry
            spelled exactly so (``9.0a``), or any entry of at least a number (``>=8.0``).
        min_toolkit: GPU device -> oldest toolkit that builds it.
        torch: whether it is compiled and linked with libtorch and may register ops. Without torch
            it is an ordinary Python module.
        set_variable: the variable of ``SETS`` that chooses its kernels.
        standard: the C++ standard of its units.
    """

    name: str
    component: str
    sources: tuple[str, ...]
    devices: tuple[str, ...] = KERNEL_DEVICES
    needs_arch: Mapping[str, str] = field(default_factory=dict)
    min_toolkit: Mapping[str, Version] = field(default_factory=dict)
    torch: bool = True
    set_variable: str = "VLLM_FA_SET"
    standard: int = 17


@dataclass(frozen=True)
class Kernel:
    """Sources that are built together or not at all.

    Attributes:
        name: unique in the table.
        extension: name of the extension that the sources are linked into.
        devices: devices it is built for, from KERNEL_DEVICES.
        sources: relative to the source root.
        libraries: third-party libraries that the sources are compiled and linked with, as
            cmake/vllm_link_library.cmake spells them.
        memory: key of MEMORY_CLASSES.
        archs: GPU device -> architectures it is written for; empty without GPU code.
        min_toolkit: GPU device -> oldest toolkit that compiles it.
        optional: whether a tree or a build may omit it.
        missing: sources of an optional kernel that are not in the tree.
        definitions: macros that are defined for these sources only.
        third_party: the locked project that provides more sources; empty if all are in the tree.
        third_party_sources: relative to that project's folder. The folder need not exist until
            something is compiled.
        sets: values of the extension's ``set_variable`` that include the kernel; empty if it is in
            every build.
        set_definitions: value of that variable -> macros that are defined in addition to
            ``definitions``.
        provider: GPU device -> the value of ``VLLM_KERNELS`` that includes the kernel; a device
            that is absent always includes it.
        library_definitions: macros that all units of the extension get if the kernel is built.
        options: further options of the GPU compiler, for its GPU code only.
        options_from: oldest toolkit -> options that it and newer ones get in addition.
        generators: the programs that write some of the third-party sources.
    """

    name: str
    extension: str
    devices: tuple[str, ...]
    sources: tuple[str, ...]
    libraries: tuple[str, ...]
    memory: str
    archs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    min_toolkit: Mapping[str, Version] = field(default_factory=dict)
    optional: bool = False
    missing: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()
    third_party: str = ""
    third_party_sources: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    set_definitions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    provider: Mapping[str, str] = field(default_factory=dict)
    library_definitions: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    options_from: Mapping[Version, tuple[str, ...]] = field(default_factory=dict)
    generators: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelsTable:
    """The whole checked table; ``path`` is the file that it was read from."""

    path: Path
    extensions: tuple[Extension, ...]
    kernels: tuple[Kernel, ...]
