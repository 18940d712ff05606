# SPDX-License-Identifier: Apache-2.0
"""C++ for instructions of the vector unit: arithmetic, comparisons, packed and dual ones."""

from __future__ import annotations

import re

import pseudo_code
import tables
from pseudo_code import UnknownPseudoCodeError
from scalar_ops import code

#: The family whose instructions are written: how 16-bit results are written differs.
FAMILY = {"cdna": False}

F32, F64 = "As<float, 32>", "As<double, 64>"
#: Instructions whose pseudo-code is not translated, or would be slow.
OWN = {
    "V_MOV_B32": "D0 = S0;",
    **{
        f"V_{which}{name}_F32": f"Put<float, 32>(D0, v_{which.lower()}_f32({F32}(S0), {F32}(S1)));"
        for which in ("MAX", "MIN")
        for name in ("", "_NUM")
    },
    **{
        f"V_{which}3{name}_F32": f"Put<float, 32>(D0, v_{which.lower()}3_f32({F32}(S0), {F32}(S1),"
        f" {F32}(S2)));"
        for which in ("MAX", "MIN")
        for name in ("", "_NUM")
    },
    **{
        f"V_MED3{name}_F32": f"Put<float, 32>(D0, Median({F32}(S0), {F32}(S1), {F32}(S2)));"
        for name in ("", "_NUM")
    },
    "V_RNDNE_F32": f"Put<float, 32>(D0, std::nearbyint({F32}(S0)));",
    "V_EXP_F32": f"Put<float, 32>(D0, exp2({F32}(S0)));",
    "V_LDEXP_F32": f"Put<float, 32>(D0, std::ldexp({F32}(S0), static_cast<int32_t>(S1)));",
    "V_LDEXP_F64": f"Put<double, 64>(D0, std::ldexp({F64}(S0), static_cast<int32_t>(S1)));",
    "V_DIV_SCALE_F32": f"""\
uint32_t scaled = 0;
Put<float, 32>(D0, ScaleForDivision({F32}(S0), {F32}(S1), {F32}(S2), &scaled));
MASK_OUT = scaled;""",
    "V_DIV_FMAS_F32": f"""\
const float sum = std::fma({F32}(S0), {F32}(S1), {F32}(S2));
Put<float, 32>(D0, MASK_IN ? std::ldexp(sum, {F32}(S2) != 0 && std::fabs({F32}(S2)) > 1 ? 64 : -64)
                           : sum);""",
    "V_DIV_FIXUP_F32": f"Put<float, 32>(D0, FixDivision({F32}(S0), {F32}(S1), {F32}(S2)));",
    "V_PERM_B32": "D0 = PermuteBytes(S0, S1, S2);",
    "V_MBCNT_LO_U32_B32": """\
D0 = std::popcount(S0 & (lane < 32 ? (1u << lane) - 1 : ~0u)) + S1;""",
    "V_MBCNT_HI_U32_B32": """\
D0 = std::popcount(S0 & (lane < 32 ? 0u : (1u << (lane - 32)) - 1)) + S1;""",
    "V_BCNT_U32_B32": "D0 = std::popcount(S0) + S1;",
    "V_MAD_U64_U32": "D0 = uint64_t{S0} * S1 + S2;",
    "V_MAD_I64_I32": """\
D0 = static_cast<uint64_t>(int64_t{static_cast<int32_t>(S0)} * static_cast<int32_t>(S1)) + S2;""",
    "V_PK_MOV_B32": """\
D0 = (OPSEL & 1 ? S0 >> 32 : S0 & 0xffffffff) | (OPSEL & 2 ? S1 >> 32 : S1) << 32;""",
    "V_LSHL_ADD_U64": "D0 = (S0 << (S1 & 7)) + S2;",
    "V_CVT_PK_F16_F32": f"""\
D0 = static_cast<uint32_t>(Raw(static_cast<Half>({F32}(S0)))
                           | Raw(static_cast<Half>({F32}(S1))) << 16);""",
}
OWN |= {"V_MAD_CO_U64_U32": OWN["V_MAD_U64_U32"], "V_MAD_CO_I64_I32": OWN["V_MAD_I64_I32"]}
#: Factors of the matrix instructions' names -> their C++ type.
FACTORS = {"F16": "Half", "BF16": "BFloat"}


def check_family(architecture: str) -> None:
    """Remember the family of the architecture."""
    FAMILY["cdna"] = tables.ARCHITECTURES[architecture][0] == "cdna"


def bit(encoding: tables.Encoding, name: str, place: int = 0) -> str:
    """C++ for one bit of a field; "0" if the encoding has no such field."""
    if name not in encoding.fields:
        return "0"
    low = encoding.fields[name][1] + place
    return f"Field(i, {low}, {low})"


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


def read_source(encoding: tables.Encoding, field: str, place: int, given: tables.Operand) -> str:
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
            plain = f"ApplySigns({name}, {', '.join(signs)});"
            lines.append(plain if bits == 32 else reject(signs))
    elif bits == 16 and not long:
        lines.append(f"auto {name} = ReadHalf<{given.kind}>(w, i, {number});")
    elif given.packed and bits == 32:
        # Constants are in the lower half.
        lines.append(f"Operand<32> {name};")
        lines.append(f"const auto read{place} = Read<16, {given.kind}>(w, i, {number});")
        lines.append(f"std::memcpy({name}.lanes, read{place}.lanes, sizeof({name}.lanes));")
    else:
        lines.append(f"auto {name} = Read<{bits}, {given.kind}>(w, i, {number});")
    if encoding.name.startswith("VOP3P"):
        lines += packed_modifiers(encoding, name, place, given)
    elif long:
        if bits == 16:
            lines.append(f"TakeUpperHalf({name}, {bit(encoding, 'opsel', place)});")
        if given.kind == "Kind::kFloat":
            signs = ", ".join(bit(encoding, sign, place) for sign in ("neg", "abs"))
            lines.append(f"ApplySigns({name}, {signs});")
    return "\n".join(lines)


def reject(signs: list[str]) -> str:
    conditions = " || ".join(signs)
    return f'if ({conditions}) Fail(i, "a sign of half a register is not emulated");'


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


def write(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for an instruction of the vector encodings."""
    if "DPP" in encoding.name:
        raise UnknownPseudoCodeError("moves between neighbouring lanes are not emulated")
    for special in (write_lane, write_matrix, write_mixed):
        if text := special(encoding, op):
            return text
    body = OWN.get(op.base) or pseudo_code.translate(op.pseudo_code)
    if not body.strip():
        raise UnknownPseudoCodeError("there is no pseudo-code")
    given = {name for _, name, _ in sources(encoding, op)}
    if missing := set(re.findall(r"\bS[012]\b", body)) - given:
        raise UnknownPseudoCodeError(f"reads {', '.join(sorted(missing))}")
    if is_sdwa(encoding) and any(each.bits > 32 for each in op.operands.values()):
        raise UnknownPseudoCodeError("parts of 64 bits are not emulated")
    lines, loop = ["const uint64_t exec = w.Exec();"], []
    mask_in = "w.Mask(kVcc)"
    for field, name, given in sources(encoding, op):
        if is_mask(op, field):
            mask_in = f"w.Mask({code(encoding, field)})"
            continue
        if op.base == "V_PK_MOV_B32":
            number = code(encoding, field)
            lines.append(f"auto s{name[1]} = Read<64, Kind::kBits>(w, i, {number});")
        else:
            lines.append(read_source(encoding, field, int(name[1]), given))
        loop.append(f"[[maybe_unused]] const auto {name} = s{name[1]}.lanes[lane];")
    if op.base == "V_PK_MOV_B32":
        lines.append("const unsigned OPSEL = Field(i, 13, 11);")
    if "SIMM32" in body:
        lines.append("[[maybe_unused]] const uint32_t SIMM32 = i.literal;")
    if "MASK_IN" in body:
        lines.append(f"const uint64_t mask_in = {mask_in};")
        loop.append("[[maybe_unused]] const uint64_t MASK_IN = mask_in >> lane & 1;")
    masks = "MASK_OUT" in body
    if masks:
        lines.append("uint64_t mask_out = 0;")
        loop.append("uint64_t MASK_OUT = 0;")
    result = write_result(encoding, op, body)
    lines += result.before
    loop += result.at_start
    loop.append(body)
    loop += result.at_end
    if masks:
        loop.append("mask_out |= (MASK_OUT & 1) << lane;")
    lines.append("for (int lane = 0; lane < kLanes; ++lane) {\n" + "\n".join(loop) + "\n}")
    lines += result.after
    if masks:
        lines.append(f"w.SetMask({mask_target(encoding, op)}, mask_out & exec);")
    return "\n".join(lines)


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


class Result:
    """Parts of a function that concern its result."""

    def __init__(self) -> None:
        self.before: list[str] = []
        self.at_start: list[str] = []
        self.at_end: list[str] = []
        self.after: list[str] = []


def write_result(encoding: tables.Encoding, op: tables.Op, body: str) -> Result:
    """C++ for reading the old result, and for writing the new one."""
    result = Result()
    given = op.operands.get("vdst")
    if given is None or not re.search(r"\bD0\b", body):
        return result
    bits = width(given)
    held = 64 if bits == 64 else 32
    high, low, kind = encoding.fields["vdst"]
    number = f"Field(i, {high}, {low})"
    result.before.append(f"Operand<{held}> result;")
    result.at_end.append("result.lanes[lane] = D0;")
    if kind != "VGPR":
        result.at_start.append(f"Word<{held}> D0 = 0;")
        result.after.append(f"WriteScalar<{held}>(w, {number}, result.lanes[0]);")
        return result
    upper = bit(encoding, "opsel", 3) if encoding.name.startswith("VOP3") else "0"
    if encoding.name.startswith("VOP3P"):
        upper = "0"
    if bits == 16 and not FAMILY["cdna"] and not encoding.name.startswith("VOP3"):
        upper, number = f"({number} >> 7)", f"({number} & 127)"
    if encoding.name.startswith("VOP3P_MFMA"):
        raise UnknownPseudoCodeError("this matrix instruction is not emulated")
    result.before.append(f"[[maybe_unused]] const auto old = Read<{held}, Kind::kBits>(w, i, kVgpr + {number});")
    zero = bits == 16 and FAMILY["cdna"]
    start = "0" if zero else "old.lanes[lane]"
    if bits == 16 and not zero:
        start = f"{start} >> ({upper} ? 16 : 0)"
    result.at_start.append(f"Word<{held}> D0 = {start};")
    real = {"16": "Half", "32": "float", "64": "double"}[str(bits)]
    if given.kind == "Kind::kFloat" and not given.packed:
        factor = "Field(i, {}, {})".format(*encoding.fields["omod"][:2]) if (
            "omod" in encoding.fields
        ) else "0"
        clamp = bit(encoding, "clmp")
        if (factor, clamp) != ("0", "0"):
            result.after.append(f"ApplyOutput<{real}, {bits}>(result, {factor}, {clamp});")
    elif bit(encoding, "clmp") != "0":
        result.after.append(f'if ({bit(encoding, "clmp")}) Fail(i, "clamp is not emulated");')
    if "dst_sel" in encoding.fields:
        part, unused = (
            "Field(i, {}, {})".format(*encoding.fields[name][:2])
            for name in ("dst_sel", "dst_unused")
        )
        result.after.append(f"PlacePart(result, old.lanes, {part}, {unused});")
    if bits == 16:
        whole = f"Write<32>(w, {number}, result, exec);"
        half = f"WriteHalf(w, {number}, result, {upper}, exec);"
        if zero:
            result.after.append(f"if ({upper}) {half} else {whole}" if upper != "0" else whole)
        else:
            result.after.append(half)
    else:
        result.after.append(f"Write<{held}>(w, {number}, result, exec);")
    return result


def write_lane(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for reads and writes of one lane."""
    if op.base not in ("V_READFIRSTLANE_B32", "V_READLANE_B32", "V_WRITELANE_B32"):
        return ""
    source = code(encoding, "src0")
    to = "Field(i, {}, {})".format(*encoding.fields["vdst"][:2])
    if op.base == "V_WRITELANE_B32":
        lane = f"ReadScalar<32, Kind::kBits>(w, i, {code(encoding, 'src1')}) % kLanes"
        value = f"ReadScalar<32, Kind::kBits>(w, i, {source})"
        return f"w.Vector({to})[{lane}] = {value};"
    lane = "w.Exec() == 0 ? 0 : std::countr_zero(w.Exec())"
    if op.base == "V_READLANE_B32":
        lane = f"ReadScalar<32, Kind::kBits>(w, i, {code(encoding, 'src1')}) % kLanes"
    return (
        f"const auto lane = {lane};\n"
        f"const auto all = Read<32, Kind::kBits>(w, i, {source});\n"
        f"WriteScalar<32>(w, {to}, all.lanes[lane]);"
    )


def write_matrix(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for products of matrices."""
    found = re.fullmatch(r"V_(WMMA|MFMA)_F32_16X16X16_(F16|BF16)(_w32)?", op.name)
    if found is None:
        return ""
    a, b, c = (code(encoding, f"src{place}") for place in range(3))
    d = "Field(i, {}, {})".format(*encoding.fields["vdst"][:2])
    kind = FACTORS[found[2]]
    if found[1] == "WMMA":
        signs = "if (Field(i, 63, 61) || Field(i, 10, 8)) Fail(i, \"signs are not emulated\");\n"
        return f"{signs}MultiplyMatrices<{kind}>(w, i, {d}, {a}, {b}, {c});"
    checks = 'if (Field(i, 10, 8) || Field(i, 63, 61)) Fail(i, "a broadcast is not emulated");\n'
    a, b = (
        f"{x} + ({bit(encoding, 'acc', place)} ? w.accumulators : 0)"
        for place, x in enumerate((a, b))
    )
    more = f"({bit(encoding, 'acc_cd')} ? w.accumulators : 0)"
    third = f"const unsigned c = {c};\n"
    sums = f"c < kVgpr ? c : c + {more}"
    return f"{checks}{third}MultiplyMatrices<{kind}>(w, i, {d} + {more}, {a}, {b}, {sums});"


def write_mixed(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for multiply-adds of operands that are float32 or one half of a register."""
    found = re.fullmatch(r"V_(?:FMA|MAD)_MIX(LO|HI)?(?:_F32|_F16)", op.name)
    if found is None:
        return ""
    lines = ["const uint64_t exec = w.Exec();", "Operand<32> x[3];"]
    for place in range(3):
        high = bit(encoding, "opsel_hi2") if place == 2 else bit(encoding, "opsel_hi", place)
        number = code(encoding, f"src{place}")
        lines.append(
            f"if ({high}) {{\nauto half = Read<16, Kind::kFloat>(w, i, {number});\n"
            f"TakeUpperHalf(half, {bit(encoding, 'opsel', place)});\n"
            "for (int lane = 0; lane < kLanes; ++lane)\n"
            f"Put<float, 32>(x[{place}].lanes[lane], f16_to_f32(As<Half, 16>(half.lanes[lane])));\n"
            f"}} else {{\nx[{place}] = Read<32, Kind::kFloat>(w, i, {number});\n}}\n"
            f"ApplySigns(x[{place}], {bit(encoding, 'neg', place)}, "
            f"{bit(encoding, 'neg_hi', place)});"
        )
    to = "Field(i, {}, {})".format(*encoding.fields["vdst"][:2])
    three = ", ".join(f"{F32}(x[{place}].lanes[lane])" for place in range(3))
    lines.append(f"Operand<32> result;\nfor (int lane = 0; lane < kLanes; ++lane) {{")
    lines.append(f"float sum = std::fma({three});")
    lines.append("if (Field(i, 15, 15)) sum = sum > 0 ? (sum < 1 ? sum : 1) : 0;")
    value = "sum" if found[1] is None else "f32_to_f16(sum)"
    lines.append(f"result.lanes[lane] = static_cast<uint32_t>(Raw({value}));\n}}")
    if found[1] is None:
        lines.append(f"Write<32>(w, {to}, result, exec);")
    else:
        lines.append(f"WriteHalf(w, {to}, result, {str(found[1] == 'HI').lower()}, exec);")
    return "\n".join(lines)


def write_dual(encoding: tables.Encoding) -> str:
    """C++ for two instructions in one. Both read their operands before one writes its result."""
    x, y = ("Field(i, {}, {})".format(*encoding.fields[f"op{which}"][:2]) for which in "xy")
    first = "Field(i, {}, {})".format(*encoding.fields["vdstx"][:2])
    second = "Field(i, {}, {})".format(*encoding.fields["vdsty"][:2])
    operands = [code(encoding, f"{name}") for name in ("srcx0", "vsrcx1", "srcy0", "vsrcy1")]
    return (
        f"const unsigned to_x = {first}, to_y = {second} << 1 | (~to_x & 1);\n"
        f"RunDuals(w, i, {x}, {', '.join(operands[:2])}, to_x, {y}, {', '.join(operands[2:])}, to_y);"
    )


def write_dual_table(encodings: list[tables.Encoding]) -> str:
    """C++ for the instructions that can be one of two."""
    encoding = next(each for each in encodings if each.name == "VOPD")
    single = {op.base: op for each in encodings for op in each.ops.values() if op.pseudo_code}
    functions, cases = [], {}
    for number, op in encoding.ops.items():
        like = single.get(op.base, op)
        try:
            body = OWN.get(op.base) or pseudo_code.translate(op.pseudo_code or like.pseudo_code)
        except UnknownPseudoCodeError:
            body = ""
        if not body:
            continue
        cases[number] = f"Dual{number}"
        functions.append(
            f"void Dual{number}([[maybe_unused]] const Inst& i, const Operand<32>& s0,\n"
            "const Operand<32>& s1, [[maybe_unused]] uint64_t mask, Operand<32>& result) {\n"
            "for (int lane = 0; lane < kLanes; ++lane) {\n"
            "[[maybe_unused]] const auto S0 = s0.lanes[lane], S1 = s1.lanes[lane];\n"
            "[[maybe_unused]] const uint64_t MASK_IN = mask >> lane & 1;\n"
            "[[maybe_unused]] const uint32_t SIMM32 = i.literal;\n"
            f"auto& D0 = result.lanes[lane];\n{body}\n}}\n}}\n"
        )
    table = ", ".join(cases.get(number, "nullptr") for number in range(32))
    functions.append(
        "using Dual = void(const Inst&, const Operand<32>&, const Operand<32>&, uint64_t,\n"
        f"Operand<32>&);\nconstexpr Dual* kDuals[32] = {{{table}}};\n{DUALS}"
    )
    return "\n".join(functions)


DUALS = """\
void RunDuals(Wave& w, const Inst& i, unsigned x, unsigned x0, unsigned x1, unsigned to_x,
              unsigned y, unsigned y0, unsigned y1, unsigned to_y) {
  if (kDuals[x] == nullptr || kDuals[y] == nullptr) Fail(i, "one of the two is not emulated");
  const uint64_t exec = w.Exec(), mask = w.Mask(kVcc);
  const auto a = Read<32, Kind::kFloat>(w, i, x0), b = Read<32, Kind::kFloat>(w, i, x1);
  const auto c = Read<32, Kind::kFloat>(w, i, y0), d = Read<32, Kind::kFloat>(w, i, y1);
  auto first = Read<32, Kind::kBits>(w, i, kVgpr + to_x);
  auto second = Read<32, Kind::kBits>(w, i, kVgpr + to_y);
  kDuals[x](i, a, b, mask, first);
  kDuals[y](i, c, d, mask, second);
  Write<32>(w, to_x, first, exec);
  Write<32>(w, to_y, second, exec);
}
"""
