# SPDX-License-Identifier: Apache-2.0
"""From the table of kernels to the plan: what one device's build compiles, into what, and what it leaves out and why.

CMake reads the plan as ``plan.json`` and decides nothing itself. The same table and device give the same bytes: the plan holds no absolute
path, no time and no job count, and its order is the table's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.errors import ConfigurationError, NothingToDoError
from vllm_build.kernels_table import KERNEL_DEVICES, MEMORY_CLASSES

if TYPE_CHECKING:
    from vllm_build.kernels_table import KernelsTable

#: Version of the layout of plan.json; CMake refuses any other.
FORMAT = 1
#: Devices with a Python package and, by definition, nothing to compile.
PURE_DEVICES = ("tpu", "empty")


@dataclass(frozen=True)
class PlannedKernel:
    """A kernel that will be compiled.

    Attributes:
        name: the record's name.
        sources: relative to the source root, with forward slashes.
        definitions: macros for these sources alone.
        libraries: third-party libraries that these sources need.
        memory: memory class, key of MEMORY_CLASSES.
    """

    name: str
    sources: tuple[str, ...]
    definitions: tuple[str, ...]
    libraries: tuple[str, ...]
    memory: str


@dataclass(frozen=True)
class PlannedExtension:
    """A shared library that will be linked.

    Attributes:
        name: import name, such as ``vllm._C``.
        component: package output that carries it.
        sources: the extension's own units, relative to the source root.
        kernels: at least one.
    """

    name: str
    component: str
    sources: tuple[str, ...]
    kernels: tuple[PlannedKernel, ...]

    @property
    def module(self) -> str:
        """Last part of the name: file stem and suffix of the ``PyInit_`` function."""
        return self.name.rpartition(".")[2]

    @property
    def folder(self) -> str:
        """Folder it is installed to, relative to site-packages, such as ``vllm``."""
        return self.name.rpartition(".")[0].replace(".", "/")

    def output_file(self, suffix: str) -> str:
        """Path relative to site-packages; ``suffix`` is the extension suffix, such as ``.abi3.so``."""
        return f"{self.folder}/{self.module}{suffix}"


@dataclass(frozen=True)
class Omission:
    """A kernel of the table that this build leaves out, and the reason in words."""

    kernel: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What one build compiles."""

    device: str
    extensions: tuple[PlannedExtension, ...]
    omitted: tuple[Omission, ...]

    @property
    def components(self) -> tuple[str, ...]:
        """Package outputs that get something, each once, in the table's order."""
        return tuple(dict.fromkeys(extension.component for extension in self.extensions))

    @property
    def libraries(self) -> tuple[str, ...]:
        """Third-party libraries that the build needs, sorted."""
        return tuple(sorted({lib for extension in self.extensions for kernel in extension.kernels for lib in kernel.libraries}))

    @property
    def unit_bytes(self) -> int:
        """Bytes of memory that the largest unit may take to compile."""
        return max(MEMORY_CLASSES[kernel.memory] for extension in self.extensions for kernel in extension.kernels)

    def sources(self) -> tuple[Path, ...]:
        """Every unit that is compiled, relative to the source root, in the order of the table."""
        return tuple(Path(s) for e in self.extensions for group in (e.sources, *(k.sources for k in e.kernels)) for s in group)

    def output_files(self, component: str | None = None, suffix: str = ".abi3.so") -> tuple[str, ...]:
        """Paths of the libraries relative to site-packages; those of one component, or all."""
        return tuple(e.output_file(suffix) for e in self.extensions if component in (None, e.component))

    def to_json(self) -> str:
        """The plan as CMake reads it: two-space indents, a final newline, the same bytes every time."""
        document = {
            "format": FORMAT,
            "device": self.device,
            "extensions": [
                {
                    "name": extension.name,
                    "module": extension.module,
                    "folder": extension.folder,
                    "component": extension.component,
                    "sources": extension.sources,
                    "kernels": [
                        {
                            "name": kernel.name,
                            "sources": kernel.sources,
                            "definitions": kernel.definitions,
                            "libraries": kernel.libraries,
                            "memory": kernel.memory,
                        }
                        for kernel in extension.kernels
                    ],
                }
                for extension in self.extensions
            ],
            "omitted": [{"kernel": omission.kernel, "reason": omission.reason} for omission in self.omitted],
        }
        return json.dumps(document, indent=2) + "\n"


def resolve(table: KernelsTable, device: str) -> Plan:
    """Choose the kernels of ``device`` from the table.

    Args:
        table: what ``kernels_table.load`` returned.
        device: ``cuda``, ``rocm``, ``cpu``, ``xpu``, ``tpu`` or ``empty``.

    Raises:
        ConfigurationError: no such device.
        NothingToDoError: the device has nothing to compile; the message says why.
    """
    if device in PURE_DEVICES:
        raise NothingToDoError(
            f"device {device!r} compiles nothing",
            expected="a device with kernels: " + ", ".join(KERNEL_DEVICES),
            remedy=f"for {device!r} install the Python package as it is",
        )
    if device not in KERNEL_DEVICES:
        raise ConfigurationError(f"unknown device {device!r}", expected="one of " + ", ".join((*KERNEL_DEVICES, *PURE_DEVICES)))
    chosen: dict[str, list[PlannedKernel]] = {}
    omitted = []
    for kernel in table.kernels:
        if device in kernel.devices:
            definitions = () if kernel.macro is None else (kernel.macro,)
            planned = PlannedKernel(kernel.name, kernel.sources, definitions, kernel.libraries, kernel.memory)
            chosen.setdefault(kernel.extension, []).append(planned)
        else:
            omitted.append(Omission(kernel.name, f"written for {', '.join(kernel.devices)}, not for {device}"))
    if not chosen:
        raise NothingToDoError(
            f"no kernel of {table.path} is written for device {device!r}",
            expected="devices that have kernels: " + ", ".join(d for d in KERNEL_DEVICES if any(d in k.devices for k in table.kernels)),
            remedy="choose one of these devices, or 'empty' for the Python package alone",
        )
    extensions = tuple(
        PlannedExtension(e.name, e.component, e.sources, tuple(chosen[e.name])) for e in table.extensions if e.name in chosen
    )
    return Plan(device, extensions, tuple(omitted))
