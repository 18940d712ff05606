# SPDX-License-Identifier: Apache-2.0
"""The audit of an official wheel: whether its libraries can stand in for a build of this tree, here, with the installed torch."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.tags import platform_tags
from packaging.version import Version

from vllm_build.checks import elf, library_audit, op_check
from vllm_build.native.build_configuration import ABI3
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from vllm_build.reuse.foreign.foreign_wheel import Facts, Pick, Picks
    from vllm_build.reuse.records.fitness import Machine

GOOD, BAD, LACKING, UNSEEN = "good", "BAD", "lacking", "not seen"
#: C++ names of torch, which only the very torch has that a library was built with: a namespace of
#: its at the beginning of a mangled name, or of a type within one. `std::string::at` has an `at` as
#: well.
_TORCH_CXX = re.compile(
    r"_Z(?:T[VISh]|GV)?NK?(?:2at|3c10|5torch|6caffe2)(?=[0-9]|[a-z])|_Z\w*N(?:2at|3c10|5torch|6caffe2)[0-9]"
)
_PYTHON = re.compile(r"_?Py[A-Z_]")
#: Libraries of the CUDA toolkit, whose SONAME has the major release.
_CUDA = re.compile(r"lib(?:cudart|cublas|cublasLt|nvrtc)\.so\.([0-9]+)$")
#: Libraries that only a machine with the device has.
_DEVICE = re.compile(
    r"lib(cuda|nvidia-ml|amdhip64|ze_loader|(torch|c10)_(cuda|hip|xpu)|cudart|cublas|cublasLt|nvrtc)\.so(\.[0-9]+)?"
)
#: Of what abi3audit writes.
_SUMMARY = re.compile(r"[0-9]+ extensions scanned; .*")
#: For loading the libraries and asking for their ops; torch alone takes some of them on a slow
#: disk.
_SECONDS = 600
_COMPOSITE = frozenset({"CompositeExplicitAutograd", "CompositeImplicitAutograd"})


@dataclass(frozen=True)
class Row:
    """One line of the table: what was checked, what was found, what is needed, and GOOD, BAD, LACKING or UNSEEN."""

    check: str
    found: str
    needed: str
    verdict: str


@dataclass
class Audit:
    """What was found.

    Attributes:
        rows: the table.
        unusable: op, or function of a Python module, that our Python calls, and why it cannot be
            called.
        torch: the release that the libraries need, exactly; None when any that has their symbols
            will do.
    """

    rows: list[Row] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    torch: str | None = None

    def add(self, check: str, found: str, needed: str, *, good: bool | None) -> None:
        """Add a line; None where this machine cannot tell."""
        self.rows.append(
            Row(check, found, needed, UNSEEN if good is None else GOOD if good else BAD)
        )

    @property
    def failed(self) -> list[Row]:
        """Lines for which the wheel cannot be used at all."""
        return [row for row in self.rows if row.verdict == BAD]

    @property
    def unseen(self) -> list[Row]:
        """Lines that this machine cannot decide."""
        return [row for row in self.rows if row.verdict == UNSEEN]

    def text(self) -> str:
        """The table for a log."""
        return "\n".join(
            f"  {row.verdict:<8} {row.check}: {row.found}; needed: {row.needed}"
            for row in self.rows
        )


def _shown(names: Iterable[str], most: int = 6) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (
        f" and {len(listed) - most} more" if len(listed) > most else ""
    )


def of_metadata(result: Audit, facts: Facts, missing: Sequence[str], picks: Picks) -> None:
    """What can be said before a library is fetched: the platform, and which libraries there are."""
    here = set(platform_tags())
    tags = {tag.platform for tag in facts.tags}
    result.add(
        "platform",
        _shown(tags),
        f"one of pip's tags for {platform.machine()}",
        good=not here.isdisjoint(tags),
    )
    for one in picks.picks:
        flags = f" ({', '.join(sorted(one.cpu_flags))})" if one.cpu_flags else ""
        result.add(
            "library", f"{one.library.file}{flags}", f"a library for {one.extension}", good=True
        )
    for name in missing:
        result.rows.append(
            Row("library", "none that this machine can run", f"a library for {name}", LACKING)
        )
    if not picks.picks:
        result.add("library", "no library of vLLM's kernels", "at least one", good=False)


def _glibc(result: Audit, libraries: Iterable[elf.SharedLibrary]) -> None:
    name, version = platform.libc_ver()
    needed = max(map(library_audit.glibc_of, libraries))
    # Elsewhere (musl) no manylinux tag fits, and the platform says so.
    have = tuple(map(int, version.split(".")[:2])) if name == "glibc" else (0, 0)
    result.add(
        "glibc",
        f"needs {needed[0]}.{needed[1]}",
        f"at most {name or 'no glibc'} {version}".rstrip(),
        good=needed <= have,
    )


def _python(
    result: Audit,
    libraries: Mapping[Path, elf.SharedLibrary],
    modules: Collection[Path],
    machine: Machine,
) -> None:
    for path, library in libraries.items():
        used = [
            symbol.name
            for symbol in library.undefined
            if _PYTHON.match(symbol.name) and not symbol.weak
        ]
        limited = path.name.endswith(f".{ABI3}.so")
        found = (
            f"{path.name}: {len(used)} symbols of Python, "
            f"{'the limited API by its name' if limited else 'of one interpreter alone'}"
        )
        # torch loads it as a plain library, which needs symbols and no module; a module is
        # imported, by interpreters with a GIL.
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


def _torch(
    result: Audit, libraries: Mapping[Path, elf.SharedLibrary], facts: Facts, machine: Machine
) -> None:
    bound = {
        path: [s.name for s in library.undefined if _TORCH_CXX.match(s.name)]
        for path, library in libraries.items()
    }
    for path, symbols in bound.items():
        if not symbols:
            result.add(
                "torch-abi",
                f"{path.name} keeps to the stable ABI",
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


def _toolkit(result: Audit, libraries: Mapping[Path, elf.SharedLibrary], machine: Machine) -> None:
    majors = {
        match[1]
        for library in libraries.values()
        for name in library.needed
        if (match := _CUDA.match(name))
    }
    if machine.device != "cuda":
        result.add(
            "toolkit",
            f"CUDA {_shown(majors)}" if majors else "none",
            f"none for {machine.device}",
            good=not majors,
        )
    else:
        wanted = str(machine.toolkit.major) if machine.toolkit else "of a known release"
        result.add(
            "toolkit",
            f"CUDA {_shown(majors) or 'of no release'}",
            f"CUDA {wanted}",
            good=majors == {wanted},
        )


def _ask(
    request: dict[str, Any], torch_path: str | None, inherited: Mapping[str, str]
) -> dict[str, Any] | str:
    """The answer of the child, or why there is none."""
    if torch_path is None:
        return "this environment has no importable torch"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        try:
            probe = Path(__file__).with_name("foreign_probe.py")
            done = op_check.run_probe(
                probe, {**request, "answer": str(file)}, torch_path, inherited, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"loading them did not end within {_SECONDS} s"
        if done.returncode or not file.is_file():
            said = done.stderr.strip().splitlines() or ["no message"]
            return (
                f"loading them ended the process with status {done.returncode}: "
                f"{excerpt(said[-1], 300)}"
            )
        answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return answer


def _callable(text: str, wanted: Collection[str], keys: Collection[str]) -> bool:
    """Whether an op with implementations for ``keys`` can be called as ours, with implementations for ``wanted``, is."""
    if not _COMPOSITE.isdisjoint(keys) or not set(wanted).isdisjoint(keys):
        return True
    # Ours take tensors of any device; upstream gives some of these ops, which are called with
    # tensors on the CPU, to the CPU alone.
    return (
        not _COMPOSITE.isdisjoint(wanted)
        and "Tensor" in text.partition(" -> ")[0]
        and "CPU" in keys
    )


def _ops(result: Audit, expected: Mapping[str, tuple[str, ...]], answer: dict[str, Any]) -> None:
    wanted: dict[str, set[str]] = {}
    for key, schemas in expected.items():
        for text in schemas:
            wanted.setdefault(text, set()).add(key)
    absent, incompatible = [], []
    for text, keys in wanted.items():
        op, found = text.partition("(")[0], answer["ops"][text]
        if found["found"] is None:
            absent.append(op)
            result.unusable[op] = "the wheel has no such op"
        elif not found["compatible"] or not _callable(text, keys, found["keys"]):
            incompatible.append(op)
            for_keys = ", ".join(found["keys"]) or "nothing"
            result.unusable[op] = (
                f"the wheel's is {found['found']}, with an implementation for {for_keys}"
            )
    good = len(wanted) - len(absent) - len(incompatible)
    result.add(
        "ops", f"{good} are there, with schemas that our calls fit", f"{len(wanted)}", good=True
    )
    for kind, ops in (("absent", absent), ("incompatible", incompatible)):
        if ops:
            result.rows.append(
                Row("ops", f"{len(ops)} {kind}: {_shown(ops, 100)}", "none", LACKING)
            )


def of_libraries(
    result: Audit,
    files: Mapping[Path, Pick],
    facts: Facts,
    machine: Machine,
    expected: Mapping[str, tuple[str, ...]],
    functions: Mapping[str, Sequence[str]],
    torch_path: str | None,
    inherited: Mapping[str, str],
    *,
    stand_ins: bool,
) -> None:
    """Everything else, in the order in which a failure makes the next question pointless; the libraries are loaded last, if at all.

    Args:
        result: gets the lines.
        files: the fetched libraries, each with what it stands in for.
        facts: of the wheel.
        machine: that the kernels are for.
        expected: dispatch key → schemas that our Python calls, from
            :func:`vllm_build.kernels.op_table.of_plan`.
        functions: extension → functions that our Python calls, for extensions that are Python
            modules.
        torch_path: what a child's ``PYTHONPATH`` needs to import torch; None when there is none.
        inherited: the variables that the child starts from; its ``CC`` compiles the stand-ins.
        stand_ins: load the libraries on a machine without the device, with empty libraries in place
            of the driver and the like.

    Raises:
        BuildError: a file is no sound library.
    """
    libraries = {path: elf.read(path) for path in files}
    modules = {path for path, one in files.items() if one.extension in functions}
    _glibc(result, libraries.values())
    _python(result, libraries, modules, machine)
    _torch(
        result,
        {path: library for path, library in libraries.items() if path not in modules},
        facts,
        machine,
    )
    _toolkit(result, libraries, machine)
    if result.failed:
        return
    request = {
        "libraries": [
            {
                "path": str(path),
                "needed": list(library.needed),
                "symbols": [symbol.name for symbol in library.undefined if not symbol.weak],
                "functions": list(functions.get(files[path].extension, ())),
            }
            for path, library in libraries.items()
        ],
        "schemas": sorted({text for schemas in expected.values() for text in schemas}),
        "stand_ins": [],
        "compiler": inherited.get("CC") or "cc",
    }
    if stand_ins:
        # Names that the wheel chose do not name files to write.
        request["stand_ins"] = sorted(
            {
                name
                for library in libraries.values()
                for name in library.needed
                if _DEVICE.fullmatch(name)
            }
        )
    answer = _ask(request, torch_path, inherited)
    if isinstance(answer, str):
        result.add("load", answer, "libraries that load into the installed torch", good=False)
        return
    _loaded(result, files, answer, stand_ins=stand_ins)
    _ops(result, expected, answer)


def _loaded(
    result: Audit, files: Mapping[Path, Pick], answer: dict[str, Any], *, stand_ins: bool
) -> None:
    stood_in = stand_ins and all(_DEVICE.fullmatch(name) for name in answer["missing"])
    if answer["missing"]:
        result.add(
            "needed",
            f"not here: {_shown(answer['missing'])}",
            "every library that they need",
            good=None if stood_in else False,
        )
    vain = {name for names in answer["unresolved"].values() for name in names}
    if vain and not answer["missing"]:
        result.add(
            "symbols", f"nobody has {_shown(vain)}", "every symbol that they need", good=False
        )
    for path, one in files.items():
        failed = answer["failed"].get(str(path))
        result.add(
            "load",
            excerpt(failed, 600) if failed else f"{path.name} loads",
            "a library that loads",
            good=failed is None,
        )
        lacking = answer["functions"].get(str(path))
        if lacking:
            result.rows.append(
                Row(
                    "functions",
                    f"{one.library.file} lacks {_shown(lacking)}",
                    "what our Python calls",
                    LACKING,
                )
            )
            result.unusable[one.extension] = f"the wheel's lacks {_shown(lacking)}"


__all__ = ["BAD", "GOOD", "LACKING", "UNSEEN", "Audit", "Row", "of_libraries", "of_metadata"]
