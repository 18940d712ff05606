# SPDX-License-Identifier: Apache-2.0
"""Checks of an official wheel's libraries that read their files and load nothing."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.checks import library_audit
from vllm_build.native.build_configuration import ABI3
from vllm_build.reuse.foreign.audit_table import join_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from vllm_build.checks import elf
    from vllm_build.reuse.foreign.audit_table import Audit
    from vllm_build.reuse.foreign.foreign_wheel import Facts
    from vllm_build.reuse.records.fitness import Machine

#: C++ symbols of torch, which exist only in the torch release that a library was built with. A
#: namespace of torch begins the mangled name, or a type within it. `std::string::at` also contains
#: an `at`.
_TORCH_CXX = re.compile(
    r"_Z(?:T[VISh]|GV)?NK?(?:2at|3c10|5torch|6caffe2)(?=[0-9]|[a-z])"
    r"|_Z\w*N(?:2at|3c10|5torch|6caffe2)[0-9]"
)
_PYTHON = re.compile(r"_?Py[A-Z_]")
#: Libraries of the CUDA toolkit; their SONAME has the major release.
_CUDA = re.compile(r"lib(?:cudart|cublas|cublasLt|nvrtc)\.so\.([0-9]+)$")
#: The summary in the output of abi3audit.
_SUMMARY = re.compile(r"[0-9]+ extensions scanned; .*")


def check_glibc(result: Audit, libraries: Iterable[elf.SharedLibrary]) -> None:
    """Compare the glibc release that the libraries need with this machine's."""
    name, version = platform.libc_ver()
    needed = max(map(library_audit.glibc_of, libraries))
    # On other systems (musl) no manylinux tag fits, and the row "platform" says so.
    have = tuple(map(int, version.split(".")[:2])) if name == "glibc" else (0, 0)
    result.add(
        "glibc",
        f"needs {needed[0]}.{needed[1]}",
        f"at most {name or 'no glibc'} {version}".rstrip(),
        good=needed <= have,
    )


def check_python(
    result: Audit,
    libraries: Mapping[Path, elf.SharedLibrary],
    modules: Collection[Path],
    machine: Machine,
) -> None:
    """Check that this machine's interpreter can load the libraries.

    Args:
        result: gets the rows.
        libraries: file -> its contents.
        modules: the files that are Python modules.
        machine: the machine that the kernels are for.
    """
    for path, library in libraries.items():
        used = [
            symbol.name
            for symbol in library.undefined
            if _PYTHON.match(symbol.name) and not symbol.weak
        ]
        limited = path.name.endswith(f".{ABI3}.so")
        found = (
            f"{path.name}: {len(used)} symbols of Python, "
            f"{'the limited API by its name' if limited else 'only of one interpreter'}"
        )
        # torch loads the others as plain libraries, which need symbols but no module. A module is
        # imported, and only interpreters with a GIL can import an abi3 module.
        importable = path not in modules or machine.python_abi == ABI3
        result.add(
            "python-abi", found, machine.python_abi, good=(limited or not used) and importable
        )
        if limited and (proof := library_audit.limited_api(path)) is not None:
            said = _SUMMARY.search(" ".join(proof.text.split()))
            result.add(
                "python-abi",
                f"{path.name}: abi3audit: {said[0] if said else 'no summary'}",
                "the limited API",
                good=proof.good,
            )


def check_torch(
    result: Audit, libraries: Mapping[Path, elf.SharedLibrary], facts: Facts, machine: Machine
) -> None:
    """Check that the libraries use only torch's stable ABI, or the installed torch release."""
    for path, library in libraries.items():
        symbols = [s.name for s in library.undefined if _TORCH_CXX.match(s.name)]
        if not symbols:
            result.add(
                "torch-abi",
                f"{path.name} uses only the stable ABI",
                f"torch {machine.torch}",
                good=machine.torch is not None,
            )
            continue
        pins = (
            [
                s.version
                for s in facts.torch.specifier
                if s.operator == "==" and not s.version.endswith("*")
            ]
            if facts.torch
            else []
        )
        built = f"torch {pins[0]}" if len(pins) == 1 else "a torch that the metadata does not name"
        fits = (
            len(pins) == 1
            and machine.torch is not None
            and Version(pins[0]).public == machine.torch.public
        )
        result.torch = Version(pins[0]).public if fits else result.torch
        result.add(
            "torch-abi",
            f"{path.name} is bound to {built} ({len(symbols)} C++ symbols)",
            f"torch {machine.torch}",
            good=fits,
        )


def check_toolkit(result: Audit, libraries: Iterable[elf.SharedLibrary], machine: Machine) -> None:
    """Check that the libraries need the CUDA release of this machine, or no CUDA."""
    majors = {
        match[1] for library in libraries for name in library.needed if (match := _CUDA.match(name))
    }
    if machine.device != "cuda":
        result.add(
            "toolkit",
            f"CUDA {join_names(majors)}" if majors else "none",
            f"none for {machine.device}",
            good=not majors,
        )
    else:
        wanted = str(machine.toolkit.major) if machine.toolkit else "of a known release"
        result.add(
            "toolkit",
            f"CUDA {join_names(majors) or 'of no release'}",
            f"CUDA {wanted}",
            good=majors == {wanted},
        )
