# SPDX-License-Identifier: Apache-2.0
"""The plan as data: what one build compiles, for which architectures, and what it leaves out.

Equal plans give identical bytes of ``plan.json``. It contains no absolute path, no time and no
number of jobs, and its order is that of the table and of the memory that units take.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.kernels.kernel_records import MEMORY_CLASSES

if TYPE_CHECKING:
    from vllm_build.kernels.kernel_records import Kernel

#: Version of the layout of plan.json; CMake refuses any other.
FORMAT = 4
#: States of a kernel: it is built, or the reason why it is left out.
BUILT, WRONG_DEVICE, OLD_TOOLKIT, NO_ARCH, NO_SOURCE, NOT_CHOSEN = (
    "built",
    "device",
    "toolkit",
    "arch",
    "source",
    "set",
)
#: Language of GPU code, as CMake names it.
LANGUAGES = {"cuda": "CUDA", "rocm": "HIP"}


@dataclass(frozen=True)
class PlannedKernel:
    """A kernel that will be compiled.

    Attributes:
        name: the record's name.
        sources: relative to the source root, with forward slashes.
        definitions: macros for these sources only.
        libraries: third-party libraries that these sources need.
        memory: memory class, a key of MEMORY_CLASSES.
        archs: architectures that its GPU code is compiled for, ascending; empty without GPU code.
        options: compiler options for these architectures; they apply to GPU code only.
        third_party: the locked project that provides more sources; empty if none does.
        third_party_sources: relative to that project's folder.
        generators: programs of that project that write some of these sources.
    """

    name: str
    sources: tuple[str, ...]
    definitions: tuple[str, ...]
    libraries: tuple[str, ...]
    memory: str
    archs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    third_party: str = ""
    third_party_sources: tuple[str, ...] = ()
    generators: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedExtension:
    """A shared library that will be linked.

    Attributes:
        name: import name, such as ``vllm._C``.
        component: package output that contains it.
        sources: the extension's own units, relative to the source root.
        kernels: at least one.
        optional: whether all its kernels are optional, so that a build may omit it.
        torch: whether it is compiled and linked with libtorch and may register ops.
        standard: the C++ standard of its units.
        definitions: macros that all its units get.
    """

    name: str
    component: str
    sources: tuple[str, ...]
    kernels: tuple[PlannedKernel, ...]
    optional: bool = False
    torch: bool = True
    standard: int = 17
    definitions: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Last part of the name: file stem and suffix of the ``PyInit_`` function."""
        return self.name.rpartition(".")[2]

    @property
    def folder(self) -> str:
        """Folder it is installed to, relative to site-packages, such as ``vllm``."""
        return self.name.rpartition(".")[0].replace(".", "/")

    def output_file(self, suffix: str) -> str:
        """Path relative to site-packages; ``suffix`` is that of extensions (``.abi3.so``)."""
        return f"{self.folder}/{self.module}{suffix}"


@dataclass(frozen=True)
class Unserved:
    """A target of the build that a kernel does not serve, and the reason in words."""

    target: str
    reason: str


@dataclass(frozen=True)
class Decision:
    """The decision about one kernel of the table.

    Attributes:
        kernel: the record.
        state: BUILT, or why it is left out: WRONG_DEVICE, OLD_TOOLKIT, NO_ARCH, NO_SOURCE or
            NOT_CHOSEN.
        reason: the state in words.
        archs: architectures that it is compiled for.
        unserved: targets of the build that it does not serve. Empty unless the kernel is built or
            its state is NO_ARCH or OLD_TOOLKIT.
    """

    kernel: Kernel
    state: str
    reason: str
    archs: tuple[str, ...] = ()
    unserved: tuple[Unserved, ...] = ()


@dataclass(frozen=True)
class Omission:
    """A kernel of the table that this build leaves out, its state and the reason in words."""

    kernel: str
    extension: str
    state: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What one build compiles.

    Attributes:
        device: what the build is for.
        extensions: libraries with at least one kernel.
        decisions: one per kernel of the table, in the table's order.
        toolkit_version: release of CUDA or ROCm; None for other devices, or if it is unknown.
        targets: GPU architectures that the build is for; empty for devices without them.
    """

    device: str
    extensions: tuple[PlannedExtension, ...]
    decisions: tuple[Decision, ...]
    toolkit_version: str | None = None
    targets: tuple[str, ...] = ()

    @property
    def omitted(self) -> tuple[Omission, ...]:
        """Kernels that are left out."""
        return tuple(
            Omission(d.kernel.name, d.kernel.extension, d.state, d.reason)
            for d in self.decisions
            if d.state != BUILT
        )

    @property
    def components(self) -> tuple[str, ...]:
        """Package outputs with at least one library, in the table's order."""
        return tuple(dict.fromkeys(extension.component for extension in self.extensions))

    @property
    def libraries(self) -> tuple[str, ...]:
        """Third-party libraries that the build needs, sorted."""
        return tuple(
            sorted(
                {
                    lib
                    for extension in self.extensions
                    for kernel in extension.kernels
                    for lib in kernel.libraries
                }
            )
        )

    @property
    def third_party_sources(self) -> dict[str, tuple[str, ...]]:
        """Third-party project -> sources that the build needs from it.

        Paths are relative to the project's folder and sorted.
        """
        found: dict[str, set[str]] = {}
        for kernel in (
            kernel
            for extension in self.extensions
            for kernel in extension.kernels
            if kernel.third_party
        ):
            found.setdefault(kernel.third_party, set()).update(kernel.third_party_sources)
        return {name: tuple(sorted(sources)) for name, sources in sorted(found.items())}

    @property
    def unit_bytes(self) -> dict[str, int]:
        """Memory class -> bytes that compiling one unit may take, for the classes in this plan."""
        occurring = {kernel.memory for extension in self.extensions for kernel in extension.kernels}
        return {name: size for name, size in MEMORY_CLASSES.items() if name in occurring}

    @property
    def heaviest_bytes(self) -> int:
        """Bytes that compiling one unit may take."""
        return max(self.unit_bytes.values(), default=0)

    @property
    def heavy_sources(self) -> tuple[Path, ...]:
        """Units of the memory classes above ``ordinary``, which share one pool of jobs.

        Paths are relative to the source root, or to the folder of the third-party project.
        """
        heavy = (k for e in self.extensions for k in e.kernels if k.memory != "ordinary")
        return tuple(Path(s) for k in heavy for s in k.sources + k.third_party_sources)

    def sources(self) -> tuple[Path, ...]:
        """The tree's units that are compiled, relative to its root, in the table's order.

        A unit that two extensions share is listed twice.
        """
        return tuple(
            Path(s)
            for e in self.extensions
            for group in (e.sources, *(k.sources for k in e.kernels))
            for s in group
        )

    def output_files(
        self, component: str | None = None, suffix: str = ".abi3.so"
    ) -> tuple[str, ...]:
        """Paths of the libraries of one component, or of all, relative to site-packages."""
        return tuple(
            e.output_file(suffix) for e in self.extensions if component in (None, e.component)
        )

    def rows(self) -> list[dict[str, Any]]:
        """One row per kernel of the table, as in the JSON of ``vllm-build plan``."""
        return [
            {
                "extension": d.kernel.extension,
                "kernel": d.kernel.name,
                "sources": [
                    *d.kernel.sources,
                    *(
                        f"{d.kernel.third_party}: {source}"
                        for source in d.kernel.third_party_sources
                    ),
                ],
                "archs": list(d.archs),
                "memory": d.kernel.memory,
                "state": d.state,
                "reason": d.reason,
                "unserved": [{"target": u.target, "reason": u.reason} for u in d.unserved],
            }
            for d in self.decisions
        ]

    def to_json(self) -> str:
        """The text of ``plan.json``, which CMake reads."""
        document = {
            "format": FORMAT,
            "device": self.device,
            "toolkit_version": self.toolkit_version,
            "targets": self.targets,
            "language": LANGUAGES.get(self.device, ""),
            "extensions": [
                {
                    "name": extension.name,
                    "module": extension.module,
                    "folder": extension.folder,
                    "component": extension.component,
                    "torch": extension.torch,
                    "standard": extension.standard,
                    "definitions": extension.definitions,
                    "sources": extension.sources,
                    "kernels": [
                        {
                            "name": kernel.name,
                            "sources": kernel.sources,
                            "third_party": kernel.third_party,
                            "third_party_sources": kernel.third_party_sources,
                            "definitions": kernel.definitions,
                            "libraries": kernel.libraries,
                            "memory": kernel.memory,
                            "archs": kernel.archs,
                            "options": kernel.options,
                            "generators": kernel.generators,
                        }
                        for kernel in extension.kernels
                    ],
                }
                for extension in self.extensions
            ],
            "omitted": [
                {"kernel": omission.kernel, "state": omission.state, "reason": omission.reason}
                for omission in self.omitted
            ],
            "unserved": [
                {"kernel": d.kernel.name, "target": u.target, "reason": u.reason}
                for d in self.decisions
                for u in d.unserved
            ],
        }
        return json.dumps(document, indent=2) + "\n"
