# SPDX-License-Identifier: Apache-2.0
"""Reads which ops the engine's C++ sources register.

Unlike ours, these sources define an op in one file and often implement it in another, which a build
may leave out. Upstream then has an op without an implementation, and so has this build::

    STABLE_TORCH_LIBRARY_FRAGMENT(_C, ops) { ops.def("f(Tensor x) -> Tensor"); }
    STABLE_TORCH_LIBRARY_IMPL(_C, CUDA, ops) { ops.impl("f", TORCH_BOX(&f)); }
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

_BLOCK = re.compile(
    r"^[ \t]*(?:STABLE_)?TORCH_LIBRARY(?:_FRAGMENT|_EXPAND|(?P<implements>_IMPL))?\(\s*"
    r"(?:CONCAT\(\s*TORCH_EXTENSION_NAME\s*,\s*(?P<suffix>\w+)\s*\)|(?P<space>\w+))"
    r"(?(implements)\s*,\s*(?P<key>\w+))"
    r"\s*,\s*(?P<name>\w+)\s*\)\s*\{(?P<body>.*?)^[ \t]*\}[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_DEFINITION = re.compile(r'\b(\w+)\s*\.\s*def\(\s*((?:"(?:[^"\\\n]|\\.)*"\s*)+)[,)]')
_IMPLEMENTATION = re.compile(r'\b(\w+)\s*\.\s*impl\(\s*"([\w.]+)"')
_LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_SCHEMA = re.compile(r"([\w.]+)\(.*\) ?-> ?\S.*")
_CONDITION = re.compile(r"^[ \t]*#[ \t]*(ifdef|ifndef|if|elif|else|endif)\b[ \t]*(\w*)")
_REGISTERS = re.compile(r"TORCH_LIBRARY|\.[ \t]*(?:def|impl)\(")


@dataclass(frozen=True)
class Registrations:
    """What one source registers.

    Attributes:
        schemas: with their namespaces: ``_C::f(Tensor x) -> Tensor``.
        implementations: dispatch key and qualified name.
    """

    schemas: tuple[str, ...]
    implementations: tuple[tuple[str, str], ...]


def compiled(text: str, defined: AbstractSet[str]) -> str:
    """The lines of a source that the preprocessor keeps; conditions may be nested.

    Args:
        text: the source.
        defined: the macros that are defined.

    Raises:
        IntegrityError: a registration depends on a condition other than ``#ifdef`` and ``#ifndef``.
    """
    kept: list[str] = []
    # One entry a nested condition: whether its lines are kept; None if only a compiler knows.
    states: list[bool | None] = []
    for number, line in enumerate(text.splitlines(), 1):
        if condition := _CONDITION.match(line):
            word, macro = condition.groups()
            if word == "endif":
                states[-1:] = []
            elif word in ("ifdef", "ifndef"):
                states.append((macro in defined) == (word == "ifdef"))
            elif word == "if":
                states.append(None)
            elif states:
                known = states[-1]
                states[-1] = None if known is None or word == "elif" else not known
            continue
        if False in states:
            continue
        if None in states and _REGISTERS.search(line):
            raise IntegrityError(
                f"line {number} of a source of the engine registers an op under a condition that "
                f"only a compiler can evaluate: {line.strip()}",
                expected="#ifdef or #ifndef",
                remedy="upstream changed it: extend vllm_build/sources/op_registrations.py",
            )
        kept.append(line)
    return "\n".join(kept)


def read(text: str, library: str) -> Registrations:
    """What a source registers; :func:`compiled` removes what the preprocessor removes.

    Args:
        text: the source.
        library: what upstream's CMake names ``TORCH_EXTENSION_NAME``.
    """
    schemas: list[str] = []
    implementations: list[tuple[str, str]] = []
    for block in _BLOCK.finditer(text):
        space = f"{library}{block['suffix']}" if block["suffix"] else block["space"]
        if space == "TORCH_EXTENSION_NAME":
            space = library
        if block["implements"]:
            implementations += [
                (block["key"], f"{space}::{name}")
                for variable, name in _IMPLEMENTATION.findall(block["body"])
                if variable == block["name"]
            ]
        else:
            schemas += [f"{space}::{schema}" for schema in _schemas(block["body"], block["name"])]
    return Registrations(tuple(schemas), tuple(implementations))


def _schemas(body: str, name: str) -> Iterator[str]:
    for variable, literals in _DEFINITION.findall(body):
        schema = "".join(_LITERAL.findall(literals)).replace('\\"', '"')
        schema = re.sub(r"\s+", " ", schema.strip())
        # A name alone has the schema of its C++ function, which is not read.
        if variable == name and _SCHEMA.fullmatch(schema):
            yield schema
