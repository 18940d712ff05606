# SPDX-License-Identifier: Apache-2.0
"""Reads AMD's instruction sets from the package tinygrad, whose tables are made from AMD's."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from typing import Any

#: Architecture -> family of tinygrad's tables, generation, lanes of a wave.
ARCHITECTURES = {
    "gfx90a": ("cdna", 9, 64),
    "gfx942": ("cdna", 9, 64),
    "gfx950": ("cdna", 9, 64),
    "gfx1100": ("rdna3", 11, 32),
    "gfx1201": ("rdna4", 12, 32),
}
#: A family's encodings in the order in which they are tried, after tinygrad's own list.
MORE_ENCODINGS = {"rdna3": ("MUBUF",), "cdna": (), "rdna4": ()}
#: Instructions of gfx90a that later CDNA GPUs lack or number differently: (encoding, number) ->
#: name, and an instruction of the table with the same operands.
OF_GFX90A = {
    ("VOP2", 22): ("V_MAC_F32_E32", "V_FMAC_F32_E32"),
    ("VOP3", 278): ("V_MAC_F32_E64", "V_FMAC_F32_E64"),
    ("VOP2_LIT", 23): ("V_MADMK_F32", "V_FMAMK_F32"),
    ("VOP2_LIT", 24): ("V_MADAK_F32", "V_FMAAK_F32"),
    ("VOP3P_MFMA", 77): ("V_MFMA_F32_16X16X16_F16", "V_MFMA_F32_16X16X16_F16"),
    ("VOP3P_MFMA", 103): ("V_MFMA_F32_16X16X16_BF16", "V_MFMA_F32_16X16X16_BF16"),
    ("MUBUF", 40): ("BUFFER_WBL2", ""),
    ("MUBUF", 41): ("BUFFER_INVL2", ""),
    ("MUBUF", 63): ("BUFFER_WBINVL1_VOL", ""),
}


#: Pseudo-code that the table of CDNA 3 lacks.
PSEUDO_CODE = {
    "V_MADMK_F32": "D0.f32 = S0.f32 * SIMM32.f32 + S1.f32",
    "V_MADAK_F32": "D0.f32 = S0.f32 * S1.f32 + SIMM32.f32",
}


@dataclass(frozen=True)
class Operand:
    """An operand in the table: its format, such as NUM_F32 or NUM_M64, and its size."""

    format: str
    bits: int

    @property
    def kind(self) -> str:
        """How constants are read: as a value of ``gfx::Kind``."""
        if re.search(r"NUM_(PK2_)?B?F\d", self.format):
            return "Kind::kFloat"
        return "Kind::kSigned" if self.format.startswith("NUM_I") else "Kind::kBits"

    @property
    def packed(self) -> bool:
        return "_PK2_" in self.format


@dataclass(frozen=True)
class Op:
    """An instruction in one encoding."""

    name: str
    operands: dict[str, Operand]
    pseudo_code: str

    @property
    def base(self) -> str:
        """The name without what says how it is encoded."""
        return re.sub(r"_(E32|E64)$", "", self.name).replace("V_DUAL_", "V_")


@dataclass
class Encoding:
    """A layout of instructions: its fixed bits, fields, and instructions by number."""

    name: str
    words: int
    mask: int
    bits: int
    fields: dict[str, tuple[int, int, str]]
    ops: dict[int, Op] = field(default_factory=dict)

    @property
    def number(self) -> tuple[int, int]:
        """Lowest bit and size of the instruction's number."""
        high, low, _ = self.fields["opx" if "opx" in self.fields else "op"]
        return low, high - low + 1


def load(architecture: str) -> list[Encoding]:
    """Return an architecture's encodings, in the order in which a decoder tries them."""
    family = ARCHITECTURES[architecture][0]
    package = "tinygrad.runtime.autogen.amd"
    formats = importlib.import_module("tinygrad.renderer.amd")._load_formats()[family]
    instructions = importlib.import_module(f"{package}.{family}.ins")
    # The table of CDNA lacks the pseudo-code of some instructions that RDNA3 has as well.
    texts: dict[str, str] = {}
    for source in ("rdna3", family):
        code = importlib.import_module(f"{package}.{source}.str_pcode").PCODE
        texts |= {op.name: text for op, text in code.items()}
    operands = importlib.import_module(f"{package}.{family}.operands").OPERANDS
    # An encoding that only its third word tells is that of matrix instructions with scales.
    formats = [each for each in formats if each.__name__ != "VOP3PX2"]
    found = [read(each, operands, texts) for each in formats]
    found += [read(getattr(instructions, name), operands, texts) for name in MORE_ENCODINGS[family]]
    if architecture == "gfx90a":
        add_gfx90a(found)
    return found


def read(layout: Any, operands: dict[Any, Any], texts: dict[str, str]) -> Encoding:
    """Read one of tinygrad's classes of instructions."""
    mask = bits = 0
    fields = {}
    for name, each in layout._fields:
        kind = type(each).__name__.removesuffix("Field")
        fields[name] = (each.hi, each.lo, kind)
        if kind == "FixedBit" and each.lo < 64:
            mask |= each.mask << each.lo
            bits |= each.default << each.lo
    for suffix, marker in (("_SDWA", 0xF9), ("_SDWA_SDST", 0xF9), ("_DPP16", 0xFA)):
        if layout.__name__.endswith(suffix):
            mask, bits = mask | 0x1FF, bits | marker
    encoding = Encoding(layout.__name__, layout._base_size // 4, mask, bits, fields)
    choice = dict(layout._fields)["opx" if "opx" in fields else "op"]
    allowed = choice._enum if choice.allowed is None else choice.allowed
    for op in sorted(allowed, key=lambda each: each.value):
        given = {
            name: Operand(form.name.removeprefix("FMT_"), size)
            for name, (form, size, _) in operands.get(op, {}).items()
        }
        encoding.ops[op.value] = Op(op.name, given, texts.get(op.name, ""))
    return encoding


def add_gfx90a(encodings: list[Encoding]) -> None:
    """Add the instructions of gfx90a. Its multiply-add rounds the product, unlike the FMA."""
    by_name = {encoding.name: encoding for encoding in encodings}
    for (name, number), (op, like) in OF_GFX90A.items():
        ops = by_name[name].ops
        same = next((each for each in ops.values() if each.name == like), None)
        same = same or next(
            (each for e in encodings for each in e.ops.values() if each.name == like), None
        )
        text = re.sub(r"fma\((.*), (.*), (.*)\)", r"\1 * \2 + \3", same.pseudo_code if same else "")
        text = text or PSEUDO_CODE.get(op, "")
        ops[number] = Op(op, same.operands if same else {}, text)
