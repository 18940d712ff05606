# SPDX-License-Identifier: Apache-2.0
"""C++ for vector instructions of special forms: of one lane, on matrices, mixed, and dual ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pseudo_code
from own_meanings import F32, OWN
from pseudo_code import UnknownPseudoCodeError
from scalar_ops import bit, code

if TYPE_CHECKING:
    import tables

#: Factors of the matrix instructions' names -> their C++ type.
FACTORS = {"F16": "Half", "BF16": "BFloat"}


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
        signs = 'if (Field(i, 63, 61) || Field(i, 10, 8)) Fail(i, "signs are not emulated");\n'
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
    lines.append("Operand<32> result;\nfor (int lane = 0; lane < kLanes; ++lane) {")
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
        f"RunDuals(w, i, {x}, {', '.join(operands[:2])}, to_x, {y}, "
        f"{', '.join(operands[2:])}, to_y);"
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
