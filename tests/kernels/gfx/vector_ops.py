# SPDX-License-Identifier: Apache-2.0
"""C++ for instructions of the vector unit: arithmetic, comparisons, packed and dual ones."""

from __future__ import annotations

import re

import pseudo_code
import tables
from own_meanings import OWN
from pseudo_code import UnknownPseudoCodeError
from scalar_ops import bit, code
from special_ops import write_lane, write_matrix, write_mixed

#: The family whose instructions are written: how 16-bit results are written differs.
FAMILY = {"cdna": False}


def check_family(architecture: str) -> None:
    """Remember the family of the architecture."""
    FAMILY["cdna"] = tables.ARCHITECTURES[architecture][0] == "cdna"


def width(operand: tables.Operand) -> int:
    return 64 if operand.bits > 32 else 16 if operand.bits <= 16 else 32


def is_mask(op: tables.Op, name: str) -> bool:
    """Whether an operand has one bit for each lane, in scalar registers."""
    return name == "src2" and bool(
        re.match(r"V_(CNDMASK|(ADD|SUB|SUBREV)_CO_CI|ADDC|SUBB|SUBBREV)_", op.name)
    )


def sources(encoding: tables.Encoding, op: tables.Op) -> list[tuple[str, str, tables.Operand]]:
    """Field, name in the pseudo-code, and operand of each source."""
    found = []
    for place in range(3):
        given = next(
            (op.operands[name] for name in (f"src{place}", f"vsrc{place}") if name in op.operands),
            None,
        )
        if given is None:
            continue
        names = [f"vsrc{place}", f"src{place}"] if is_sdwa(encoding) else [f"src{place}"]
        field = next(
            name for name in (*names, f"vsrc{place}", f"src{place}") if name in encoding.fields
        )
        found.append((field, f"S{place}", given))
    return found


def is_sdwa(encoding: tables.Encoding) -> bool:
    return "_SDWA" in encoding.name


def read_source(
    encoding: tables.Encoding, field: str, place: int, given: tables.Operand, *, signed: bool
) -> str:
    """C++ that defines ``s<place>``, with the operand's modifiers applied."""
    bits, name = width(given), f"s{place}"
    number = code(encoding, field)
    long = encoding.name.startswith("VOP3")
    lines = []
    if is_sdwa(encoding):
        scalar = bit(encoding, f"s{place}")
        plain = number.replace("kVgpr + ", "")
        number = f"{plain} + ({scalar} ? 0 : kVgpr)"
        lines.append(f"auto {name} = Read<{max(bits, 32)}, {given.kind}>(w, i, {number});")
        high, low, _ = encoding.fields[f"src{place}_sel"]
        part, extended = f"Field(i, {high}, {low})", bit(encoding, f"src{place}_sext")
        lines.append(f"ChoosePart({name}, {part}, {extended});")
        if given.kind == "Kind::kFloat":
            signs = [bit(encoding, f"src{place}_{sign}") for sign in ("neg", "abs")]
            apply = "ApplySigns" if bits == 32 else "ApplyHalfSigns"
            lines.append(f"{apply}({name}, {', '.join(signs)});")
    elif bits == 16 and not long:
        lines.append(f"auto {name} = ReadHalf<{given.kind}>(w, i, {number});")
    elif given.packed and bits == 32:
        # Constants are in the lower half.
        lines.append(f"Operand<32> {name};")
        lines.append(f"const auto read{place} = Read<16, {given.kind}>(w, i, {number});")
        lines.append(f"std::memcpy({name}.lanes, read{place}.lanes, sizeof({name}.lanes));")
    elif given.packed and bits == 64:
        lines.append(f"auto {name} = ReadPair(w, i, {number});")
    else:
        lines.append(f"auto {name} = Read<{bits}, {given.kind}>(w, i, {number});")
    if encoding.name.startswith("VOP3P"):
        lines += packed_modifiers(encoding, name, place, given)
    elif long:
        if bits == 16:
            lines.append(f"TakeUpperHalf({name}, {bit(encoding, 'opsel', place)});")
        if given.kind == "Kind::kFloat" or signed:
            both = ", ".join(bit(encoding, sign, place) for sign in ("neg", "abs"))
            lines.append(f"ApplySigns({name}, {both});")
    return "\n".join(lines)


def packed_modifiers(
    encoding: tables.Encoding, name: str, place: int, given: tables.Operand
) -> list[str]:
    """C++ for the choice of halves, which only packed operands have."""
    if not given.packed:
        if given.kind == "Kind::kFloat":
            return [f"ApplySigns({name}, {bit(encoding, 'neg', place)}, 0);"]
        return []
    high = bit(encoding, "opsel_hi2") if place == 2 else bit(encoding, "opsel_hi", place)
    signs = [bit(encoding, sign, place) for sign in ("neg", "neg_hi")]
    if given.kind != "Kind::kFloat":
        signs = ["0", "0"]
    return [f"ChooseHalves({name}, {bit(encoding, 'opsel', place)}, {high}, {', '.join(signs)});"]


class Parts:
    """The statements of a function: before and after its loop over the lanes, and within it."""

    def __init__(self) -> None:
        self.before = ["[[maybe_unused]] const uint64_t exec = w.Exec();"]
        self.at_start: list[str] = []
        self.at_end: list[str] = []
        self.after: list[str] = []


def write(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for an instruction of the vector encodings."""
    if "DPP" in encoding.name:
        raise UnknownPseudoCodeError("moves between neighbouring lanes are not emulated")
    for special in (write_lane, write_matrix, write_mixed):
        if text := special(encoding, op):
            return text
    body = OWN.get(op.base) or pseudo_code.translate(op.pseudo_code)
    check_body(encoding, op, body)
    parts = Parts()
    mask_in = read_sources(encoding, op, parts)
    if "SIMM32" in body:
        parts.before.append("[[maybe_unused]] const uint32_t SIMM32 = i.literal;")
    if "MASK_IN" in body:
        parts.before.append(f"const uint64_t mask_in = {mask_in};")
        parts.at_start.append("[[maybe_unused]] const uint64_t MASK_IN = mask_in >> lane & 1;")
    masks = "MASK_OUT" in body
    if masks:
        parts.before.append("uint64_t mask_out = 0;")
        parts.at_start.append("uint64_t MASK_OUT = 0;")
    given = op.operands.get("vdst")
    if given is not None and re.search(r"\bD0\b", body):
        write_result(encoding, given, parts)
    if masks:
        parts.at_end.append("mask_out |= (MASK_OUT & 1) << lane;")
        parts.after.append(f"w.SetMask({mask_target(encoding, op)}, mask_out & exec);")
    loop = "\n".join((*parts.at_start, body, *parts.at_end))
    start = "for (int lane = 0; lane < kLanes; ++lane) {\n"
    return "\n".join((*parts.before, f"{start}{loop}\n}}", *parts.after))


def check_body(encoding: tables.Encoding, op: tables.Op, body: str) -> None:
    """Raise for statements that an instruction cannot have."""
    if not body.strip():
        raise UnknownPseudoCodeError("there is no pseudo-code")
    given = {name for _, name, _ in sources(encoding, op)}
    if missing := set(re.findall(r"\bS[012]\b", body)) - given:
        raise UnknownPseudoCodeError(f"reads {', '.join(sorted(missing))}")
    if is_sdwa(encoding) and any(each.bits > 32 for each in op.operands.values()):
        raise UnknownPseudoCodeError("parts of 64 bits are not emulated")


def read_sources(encoding: tables.Encoding, op: tables.Op, parts: Parts) -> str:
    """Add the reads of the sources; return C++ for the mask that the instruction reads."""
    mask_in = "w.Mask(kVcc)"
    chooses = op.base == "V_PK_MOV_B32"
    for field, name, given in sources(encoding, op):
        if is_mask(op, field):
            mask_in = f"w.Mask({code(encoding, field)})"
            continue
        if chooses:
            number = code(encoding, field)
            parts.before.append(f"auto s{name[1]} = ReadPair(w, i, {number});")
        else:
            # A choice between two numbers can change their signs, although they are bits.
            signed = op.base.startswith("V_CNDMASK")
            parts.before.append(read_source(encoding, field, int(name[1]), given, signed=signed))
        parts.at_start.append(f"[[maybe_unused]] const auto {name} = s{name[1]}.lanes[lane];")
    if chooses:
        parts.before.append("const unsigned OPSEL = Field(i, 13, 11);")
    return mask_in


def mask_target(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for the scalar registers that get one bit of each lane."""
    if "_CMPX_" in op.name:
        if FAMILY["cdna"]:
            raise UnknownPseudoCodeError("comparisons that set EXEC are not emulated")
        return "kExec"
    if is_sdwa(encoding) and "sdst" in encoding.fields:
        return f"({bit(encoding, 'sd')} ? {code(encoding, 'sdst')} : kVcc)"
    if "sdst" in encoding.fields:
        return code(encoding, "sdst")
    if encoding.name.startswith("VOP3"):
        return code(encoding, "vdst")
    return "kVcc"


def write_result(encoding: tables.Encoding, given: tables.Operand, parts: Parts) -> None:
    """Add the read of the old result, and the write of the new one."""
    if encoding.name.startswith("VOP3P_MFMA"):
        raise UnknownPseudoCodeError("this matrix instruction is not emulated")
    bits = width(given)
    held = 64 if bits == 64 else 32
    high, low, kind = encoding.fields["vdst"]
    number = f"Field(i, {high}, {low})"
    parts.before.append(f"Operand<{held}> result;")
    parts.at_end.append("result.lanes[lane] = D0;")
    if kind != "VGPR":
        parts.at_start.append(f"Word<{held}> D0 = 0;")
        parts.after.append(f"WriteScalar<{held}>(w, {number}, result.lanes[0]);")
        return
    long = encoding.name.startswith("VOP3") and not encoding.name.startswith("VOP3P")
    upper = bit(encoding, "opsel", 3) if long else "0"
    if bits == 16 and not FAMILY["cdna"] and not encoding.name.startswith("VOP3"):
        upper, number = f"({number} >> 7)", f"({number} & 127)"
    old = f"Read<{held}, Kind::kBits>(w, i, kVgpr + {number})"
    parts.before.append(f"[[maybe_unused]] const auto old = {old};")
    zero = bits == 16 and FAMILY["cdna"]
    start = "0" if zero else "old.lanes[lane]"
    if bits == 16 and not zero:
        start = f"{start} >> ({upper} ? 16 : 0)"
    parts.at_start.append(f"Word<{held}> D0 = {start};")
    parts.after += modify_output(encoding, given)
    if bits != 16:
        parts.after.append(f"Write<{held}>(w, {number}, result, exec);")
        return
    half = f"WriteHalf(w, {number}, result, {upper}, exec);"
    whole = f"Write<32>(w, {number}, result, exec);" if zero else half
    parts.after.append(f"if ({upper}) {half} else {whole}" if zero and upper != "0" else whole)


def modify_output(encoding: tables.Encoding, given: tables.Operand) -> list[str]:
    """C++ for the modifiers of a result, and for the part of a register that it goes to."""
    lines = []
    clamp = bit(encoding, "clmp")
    if given.kind == "Kind::kFloat" and not given.packed:
        factor = "0"
        if "omod" in encoding.fields:
            factor = "Field(i, {}, {})".format(*encoding.fields["omod"][:2])
        if (factor, clamp) != ("0", "0"):
            bits = width(given)
            real = {16: "Half", 32: "float", 64: "double"}[bits]
            lines.append(f"ApplyOutput<{real}, {bits}>(result, {factor}, {clamp});")
    elif clamp != "0":
        lines.append(f'if ({clamp}) Fail(i, "clamp is not emulated");')
    if "dst_sel" in encoding.fields:
        part, unused = (
            "Field(i, {}, {})".format(*encoding.fields[name][:2])
            for name in ("dst_sel", "dst_unused")
        )
        lines.append(f"PlacePart(result, old.lanes, {part}, {unused});")
    return lines
