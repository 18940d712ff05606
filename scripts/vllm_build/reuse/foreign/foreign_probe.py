# SPDX-License-Identifier: Apache-2.0
"""Loads the libraries of an official wheel into torch, and reports what they have and lack.

This is a program for a child process. It reads a request from stdin and writes the answer to a
file, because the libraries may print to stdout::

    stdin   {"libraries": [{"path": …, "needed": [soname, …], "symbols": [name, …],
                            "functions": [name, …]}, …],
             "schemas": [text, …], "stand_ins": [soname, …], "compiler": program,
             "answer": path of the file to write}
    answer  {"missing": [soname, …], "unresolved": {path: [symbol, …]}, "failed": {path: message},
             "functions": {path: [name, …]},
             "ops": {schema text: {"found": schema or null, "keys": [dispatch key, …],
                                   "compatible": bool}}}

In the request, ``functions`` are those that a Python module must have; it is empty for other
libraries. In the answer, they are those that the module lacks. ``stand_ins`` are libraries, such as
a driver or torch's part for a device, that ``compiler`` replaces where they are missing, so that
schemas can be read on a machine without the device. Their functions do nothing and return zero.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

KEYS = ("CPU", "CUDA", "HIP", "XPU", "CompositeExplicitAutograd", "CompositeImplicitAutograd")
_PRIVATE: Any = torch._C  # noqa: SLF001 - torch has no public list of its ops


def open_library(soname: str) -> Any:
    """Open a library; None if it cannot be found."""
    try:
        return ctypes.CDLL(soname, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return None


def find_unresolved(library: dict[str, Any], everywhere: Any) -> list[str]:
    """The symbols of a library that neither the process nor its needed libraries define.

    A library with undefined symbols may load, and fail at its first call.
    """
    handles = [everywhere, *filter(None, map(open_library, library["needed"]))]
    return [
        name for name in library["symbols"] if not any(hasattr(handle, name) for handle in handles)
    ]


def make_stand_ins(sonames: list[str], symbols: list[str], chosen: str) -> None:
    """Compile and load a library for each name; the first one defines all symbols.

    Args:
        sonames: names of the libraries.
        symbols: functions that they must define.
        chosen: C compiler; gcc is used if it does not exist.

    Raises:
        OSError: there is no C compiler, or it fails.
    """
    compiler = shutil.which(chosen) or shutil.which("gcc")
    if compiler is None:
        raise OSError("there is no C compiler (CC, cc, gcc), which stand-ins need")
    with tempfile.TemporaryDirectory() as folder:
        for soname, names in zip(
            sonames, itertools.chain([symbols], itertools.repeat([])), strict=False
        ):
            library = Path(folder) / soname
            command = [
                compiler,
                "-shared",
                "-fPIC",
                "-fno-builtin",
                "-w",
                f"-Wl,-soname,{soname}",
                "-o",
                str(library),
                "-x",
                "c",
                "-",
            ]
            source = "".join(f"long {name}(void) {{ return 0; }}\n" for name in names) + "\n"
            done = subprocess.run(
                command, input=source, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise OSError(
                    f"{compiler} cannot compile a stand-in for {soname}: {done.stderr.strip()}"
                )
            # It stays mapped after the file is removed.
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def load(library: dict[str, Any]) -> list[str]:
    """Load one library.

    Returns:
        The functions that it lacks, if it is a Python module.

    Raises:
        OSError, ImportError: it does not load.
    """
    if not library["functions"]:
        torch.ops.load_library(library["path"])
        return []
    name = Path(library["path"]).name.partition(".")[0]
    loader = importlib.machinery.ExtensionFileLoader(name, library["path"])
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None  # noqa: S101 - a loader was given
    module = importlib.util.module_from_spec(spec)
    return [function for function in library["functions"] if not hasattr(module, function)]


def call_properties(argument: Any) -> tuple[object, ...]:
    """The properties of an argument that a call depends on, in addition to its position.

    They are the type, whether it is mutated, whether it is keyword-only, and the name if it is.
    """
    # A mark of mutation is meaningful only on tensors, and upstream has one on a number.
    written = (
        argument.alias_info is not None
        and argument.alias_info.is_write
        and "Tensor" in str(argument.type)
    )
    return (
        str(argument.type),
        written,
        argument.kwarg_only,
        argument.name if argument.kwarg_only else None,
    )


def is_compatible(theirs: Any, ours: Any) -> bool:
    """Whether every positional call that fits ``ours`` means the same for ``theirs``.

    Names of positional arguments are ignored, because our Python passes none by name. Additional
    arguments at the end are accepted if they have defaults. torch's
    ``FunctionSchema.is_backward_compatible_with`` would also compare names, and the letters of
    alias sets.
    """
    here, there = ours.arguments, theirs.arguments
    if len(there) < len(here) or [str(r.type) for r in ours.returns] != [
        str(r.type) for r in theirs.returns
    ]:
        return False
    for mine, other in zip(here, there, strict=False):
        # torch's default_value is None both without a default and for the default None.
        if call_properties(mine) != call_properties(other) or (
            mine.has_default_value()
            and (
                not other.has_default_value()
                or repr(mine.default_value) != repr(other.default_value)
            )
        ):
            return False
    return all(extra.has_default_value() for extra in there[len(here) :])


def compare(text: str) -> dict[str, Any]:
    """Compare the schema ``text`` with the registered op of this name."""
    base, _, overload = text.partition("(")[0].partition(".")
    name = f"{base}.{overload}" if overload else base
    if name not in _PRIVATE._dispatch_get_all_op_names():  # noqa: SLF001
        return {"found": None, "keys": [], "compatible": False}
    theirs = _PRIVATE._get_schema(base, overload)  # noqa: SLF001
    return {
        "found": str(theirs),
        "keys": [key for key in KEYS if _PRIVATE._dispatch_has_kernel_for_dispatch_key(name, key)],  # noqa: SLF001
        "compatible": is_compatible(theirs, _PRIVATE.parse_schema(text)),
    }


def probe(request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request; the module's docstring describes both."""
    everywhere, libraries = ctypes.CDLL(None), request["libraries"]
    missing = sorted(
        {name for library in libraries for name in library["needed"] if open_library(name) is None}
    )
    unresolved = {library["path"]: find_unresolved(library, everywhere) for library in libraries}
    failed, functions = {}, {}
    if wanted := [name for name in missing if name in request["stand_ins"]]:
        make_stand_ins(
            wanted,
            sorted({name for names in unresolved.values() for name in names}),
            request["compiler"],
        )
    for library in libraries:
        try:
            functions[library["path"]] = load(library)
        except Exception as error:  # noqa: BLE001 - a module may raise anything
            failed[library["path"]] = f"{type(error).__name__}: {error}"
    return {
        "missing": missing,
        "unresolved": unresolved,
        "failed": failed,
        "functions": functions,
        "ops": {text: compare(text) for text in request["schemas"]},
    }


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    Path(asked["answer"]).write_text(json.dumps(probe(asked)), encoding="utf-8")
