# SPDX-License-Identifier: Apache-2.0
"""Writes a C++ function for each instruction of an architecture, and the decoder's table."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import memory_ops
import scalar_ops
import special_ops
import tables
import vector_ops
from pseudo_code import UnknownPseudoCodeError

HEAD = """\
// Generated from the tables of the package tinygrad.
#include <bit>
#include <cstring>

#include "gfx_decoder.h"
#include "gfx_matrix.h"
#include "gfx_memory.h"

namespace gfx {{
namespace {{

{functions}
}}  // namespace

const std::vector<Encoding>& Encodings() {{
  static const std::vector<Encoding> all = {{
{encodings}
  }};
  return all;
}}

}}  // namespace gfx
"""


@dataclass
class Generator:
    """Collects functions; the same text is written once."""

    functions: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    def add(self, body: str) -> str:
        """Return the name of a function with that body."""
        if body not in self.names:
            self.names[body] = f"Run{len(self.names)}"
            start = f"void {self.names[body]}([[maybe_unused]] Wave& w, const Inst& i) {{"
            self.functions.append(f"{start}\n(void)i;\n{body}\n}}\n")
        return self.names[body]


def write_body(encoding: tables.Encoding, op: tables.Op) -> str:
    """Return the statements that execute an instruction. Raises for what is not emulated."""
    name = encoding.name
    if re.match(r"V?(GLOBAL|FLAT)$", name):
        return memory_ops.write_global(encoding, op)
    if name == "DS":
        return memory_ops.write_shared(encoding, op)
    if name == "SMEM":
        return memory_ops.write_scalar_load(encoding, op)
    if name in ("MUBUF", "VBUFFER"):
        return memory_ops.write_cache_control(op)
    if name == "SOPP":
        return scalar_ops.write_control(op)
    if name.startswith("SO"):
        return scalar_ops.write(encoding, op)
    if name.startswith("VOPD"):
        return special_ops.write_dual(encoding)
    if name.startswith("VOP"):
        return vector_ops.write(encoding, op)
    raise UnknownPseudoCodeError("its encoding is not emulated")


def write(architecture: str) -> tuple[str, dict[str, str]]:
    """Return the C++ file, and the instructions that are not emulated with the reasons."""
    generator = Generator()
    rows = []
    for encoding in tables.load(architecture):
        vector_ops.check_family(architecture)
        low, bits = encoding.number
        entries = ["{}"] * (1 << bits)
        for number, op in encoding.ops.items():
            if number >= len(entries):
                continue  # the second of two instructions has more bits for its number
            try:
                run = generator.add(write_body(encoding, op))
            except UnknownPseudoCodeError as error:
                generator.unknown[f"{encoding.name} {op.name}"] = str(error)
                run = generator.add('Fail(i, "the instruction is not emulated");')
            entries[number] = f'{{{run}, "{op.name}"}}'
        sources = [str(at) for _, at, kind in encoding.fields.values() if kind in ("Src", "SSrc")]
        if encoding.name.startswith(("VOP3_SDST", "VOP1_SDST")):
            # The result is in such a field, too.
            sources.remove(str(encoding.fields["vdst"][1]))
        literal = str("literal" in encoding.fields).lower()
        always = sum(
            1 << number
            for number, op in encoding.ops.items()
            if re.match(r"V_DUAL_FMA(AK|MK)_", op.name)
        )
        start = f"{{{encoding.mask:#x}ull, {encoding.bits:#x}ull, {encoding.words}, {low}, {bits},"
        rows.append(
            f"{start} {{{', '.join(sources)}}}, {literal}, {always:#x}, {{{', '.join(entries)}}}}},"
        )
    if any("RunDuals" in text for text in generator.functions):
        generator.functions.insert(0, special_ops.write_dual_table(tables.load(architecture)))
    text = HEAD.format(functions="\n".join(generator.functions), encodings="\n".join(rows))
    return text, generator.unknown
