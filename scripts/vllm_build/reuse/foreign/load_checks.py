# SPDX-License-Identifier: Apache-2.0
"""Checks of an official wheel's libraries that load them into torch, in a child process."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.checks import op_check
from vllm_build.reuse.foreign.audit_table import join_names
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from vllm_build.checks import elf
    from vllm_build.reuse.foreign.audit_table import Audit
    from vllm_build.reuse.foreign.foreign_wheel import Pick

#: Libraries that only a machine with the device has.
_DEVICE = re.compile(
    r"lib(cuda|nvidia-ml|amdhip64|ze_loader|(torch|c10)_(cuda|hip|xpu)|cudart|cublas|cublasLt|nvrtc)"
    r"\.so(\.[0-9]+)?"
)
#: Limit for loading the libraries and querying their ops. On a slow disk, torch alone takes a
#: considerable part of it.
_SECONDS = 600
_COMPOSITE = frozenset({"CompositeExplicitAutograd", "CompositeImplicitAutograd"})


def check_loading(
    result: Audit,
    files: Mapping[Path, Pick],
    libraries: Mapping[Path, elf.SharedLibrary],
    expected: Mapping[str, tuple[str, ...]],
    functions: Mapping[str, Sequence[str]],
    torch_path: str | None,
    inherited: Mapping[str, str],
    *,
    stand_ins: bool,
) -> None:
    """Load the libraries, and compare their ops and functions with those that our Python calls.

    The arguments are those of :func:`vllm_build.reuse.foreign.foreign_audit.check_libraries`, and
    ``libraries``: file -> its contents.
    """
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
        # Only known names: names from the wheel must not decide which files are written.
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
    _check_loaded(result, files, answer, stand_ins=stand_ins)
    _check_ops(result, expected, answer)


def _ask(
    request: dict[str, Any], torch_path: str | None, inherited: Mapping[str, str]
) -> dict[str, Any] | str:
    """The answer of the child process, or the reason why there is none."""
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


def _check_loaded(
    result: Audit, files: Mapping[Path, Pick], answer: dict[str, Any], *, stand_ins: bool
) -> None:
    replaced = stand_ins and all(_DEVICE.fullmatch(name) for name in answer["missing"])
    if answer["missing"]:
        result.add(
            "needed",
            f"not here: {join_names(answer['missing'])}",
            "every library that they need",
            good=None if replaced else False,
        )
    undefined = {name for names in answer["unresolved"].values() for name in names}
    if undefined and not answer["missing"]:
        result.add(
            "symbols",
            f"undefined: {join_names(undefined)}",
            "every symbol that they need",
            good=False,
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
            result.add_lacking(
                "functions",
                f"{one.library.file} lacks {join_names(lacking)}",
                "all functions that our Python calls",
            )
            result.unusable[one.extension] = f"the wheel's module lacks {join_names(lacking)}"


def _is_callable(text: str, wanted: Collection[str], keys: Collection[str]) -> bool:
    """Whether an op can be called as our Python calls it.

    Args:
        text: schema of our op.
        wanted: dispatch keys that our op has implementations for.
        keys: dispatch keys that the wheel's op has implementations for.
    """
    if not _COMPOSITE.isdisjoint(keys) or not set(wanted).isdisjoint(keys):
        return True
    # Our composite ops take tensors of any device. Upstream registers some of them only for the
    # CPU, because they are called only with tensors on the CPU.
    return (
        not _COMPOSITE.isdisjoint(wanted)
        and "Tensor" in text.partition(" -> ")[0]
        and "CPU" in keys
    )


def _check_ops(
    result: Audit, expected: Mapping[str, tuple[str, ...]], answer: dict[str, Any]
) -> None:
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
        elif not found["compatible"] or not _is_callable(text, keys, found["keys"]):
            incompatible.append(op)
            for_keys = ", ".join(found["keys"]) or "nothing"
            result.unusable[op] = (
                f"the wheel's op is {found['found']}, with an implementation for {for_keys}"
            )
    good = len(wanted) - len(absent) - len(incompatible)
    result.add("ops", f"{good} with schemas that fit our calls", f"{len(wanted)}", good=True)
    for kind, ops in (("absent", absent), ("incompatible", incompatible)):
        if ops:
            result.add_lacking("ops", f"{len(ops)} {kind}: {join_names(ops, 100)}", "none")
