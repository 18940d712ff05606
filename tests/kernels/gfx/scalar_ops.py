# SPDX-License-Identifier: Apache-2.0
"""C++ for instructions of the scalar unit: arithmetic, comparisons, branches, barriers."""

from __future__ import annotations

import re

import pseudo_code
import tables
from pseudo_code import UnknownPseudoCodeError

#: Instructions that change nothing here: time does not pass, and memory has no caches.
NOTHING = re.compile(
    r"S_(NOP|WAITCNT\w*|WAIT_\w+|DELAY_ALU|CLAUSE|SENDMSG|SET_INST_PREFETCH_DISTANCE|SLEEP|SETPRIO"
    r"|ICACHE_INV|BARRIER_SIGNAL|CODE_END|TTRACEDATA\w*|INST_PREFETCH|DCACHE_\w+)"
)
BRANCHES = {
    "S_BRANCH": "true",
    "S_CBRANCH_SCC0": "w.scc == 0",
    "S_CBRANCH_SCC1": "w.scc != 0",
    "S_CBRANCH_VCCZ": "w.Mask(kVcc) == 0",
    "S_CBRANCH_VCCNZ": "w.Mask(kVcc) != 0",
    "S_CBRANCH_EXECZ": "w.Exec() == 0",
    "S_CBRANCH_EXECNZ": "w.Exec() != 0",
}
#: Comparisons with a constant in the instruction.
COMPARISONS = {"EQ": "==", "LG": "!=", "GT": ">", "GE": ">=", "LT": "<", "LE": "<="}
#: Instructions whose pseudo-code is not translated. S0 is the destination of a SOPK instruction.
OWN = {
    "S_MOVK_I32": "D0 = static_cast<uint32_t>(CONSTANT);",
    "S_CMOVK_I32": "if (SCC) D0 = static_cast<uint32_t>(CONSTANT);",
    "S_MULK_I32": "D0 = S0 * static_cast<uint32_t>(CONSTANT);",
    "S_ADDK_I32": """\
const int64_t sum = int64_t{static_cast<int32_t>(S0)} + CONSTANT;
D0 = static_cast<uint32_t>(sum);
SCC = sum != static_cast<int32_t>(D0);""",
}
OWN["S_ADDK_CO_I32"] = OWN["S_ADDK_I32"]


def write_control(op: tables.Op) -> str:
    """C++ for an instruction of the encoding SOPP."""
    if NOTHING.fullmatch(op.name):
        return ""
    if op.name in BRANCHES:
        return f"Branch(w, i, {BRANCHES[op.name]});"
    if op.name in ("S_BARRIER", "S_BARRIER_WAIT"):
        return "w.state = State::kAtBarrier;"
    if op.name in ("S_ENDPGM", "S_ENDPGM_SAVED"):
        return "w.state = State::kEnded;"
    raise UnknownPseudoCodeError("control that is not emulated")


def code(encoding: tables.Encoding, name: str) -> str:
    """C++ for the number of an operand."""
    high, low, kind = encoding.fields[name]
    value = f"Field(i, {high}, {low})"
    if kind == "VGPR":
        return f"(kVgpr + {value})"
    return f"({value} << 1)" if kind == "SBase" else value


def bit(encoding: tables.Encoding, name: str, place: int = 0) -> str:
    """C++ for one bit of a field; "0" if the encoding has no such field."""
    if name not in encoding.fields:
        return "0"
    low = encoding.fields[name][1] + place
    return f"Field(i, {low}, {low})"


def write(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for an instruction of the encodings SOP1, SOP2, SOPC and SOPK."""
    if NOTHING.fullmatch(op.name):
        return ""
    lines = [
        "[[maybe_unused]] uint32_t SCC = w.scc;",
        "[[maybe_unused]] uint64_t EXEC = w.Exec();",
    ]
    is_constant = encoding.name.startswith("SOPK")
    if is_constant:
        body = write_constant(op)
        lines.append("[[maybe_unused]] const int32_t CONSTANT = SignedField(i, 15, 0);")
    else:
        body = OWN.get(op.base) or pseudo_code.translate(op.pseudo_code)
    check_body(op, body, is_constant=is_constant)
    for place, name in enumerate(("ssrc0", "ssrc1")):
        if name in encoding.fields and name in op.operands:
            given = op.operands[name]
            read = f"ReadScalar<{width(given)}, {given.kind}>(w, i, {code(encoding, name)})"
            lines.append(f"[[maybe_unused]] const auto S{place} = {read};")
    given = op.operands.get("sdst", tables.Operand("NUM_B32", 32))
    bits = width(given)
    has_result = "sdst" in encoding.fields and re.search(r"\bD0\b", body)
    if "sdst" in encoding.fields:
        old = f"ReadScalar<{bits}, Kind::kBits>(w, i, {code(encoding, 'sdst')})"
        lines.append(f"[[maybe_unused]] Word<{bits}> D0 = {old};")
        if is_constant:
            lines.append("[[maybe_unused]] const auto S0 = D0;")
    lines.append(body)
    if re.search(r"\bSCC = ", body):
        lines.append("w.scc = SCC != 0;")
    if has_result:
        lines.append(f"WriteScalar<{bits}>(w, {code(encoding, 'sdst')}, D0);")
    if re.search(r"EXEC = |Put\w*<[^>]*>\(EXEC,", body):
        lines.append("w.SetMask(kExec, EXEC);")
    return "\n".join(lines)


def check_body(op: tables.Op, body: str, *, is_constant: bool) -> None:
    """Raise for statements that an instruction cannot have."""
    if not body.strip():
        raise UnknownPseudoCodeError("there is no pseudo-code")
    missing = {f"S{place}" for place in (0, 1) if f"ssrc{place}" not in op.operands}
    missing |= {"S2", "SIMM32"}
    missing -= {"S0"} if is_constant else set()
    if any(re.search(rf"\b{name}\b", body) for name in missing):
        raise UnknownPseudoCodeError("reads an operand that it has not")


def width(operand: tables.Operand) -> int:
    """32 or 64: scalar registers are read whole."""
    return 64 if operand.bits > 32 else 32


def write_constant(op: tables.Op) -> str:
    """C++ for an instruction with a constant of 16 bits."""
    if op.name in OWN:
        return OWN[op.name]
    if found := re.fullmatch(r"S_CMPK_(\w\w)_([IU])32", op.name):
        sign = COMPARISONS[found[1]]
        if found[2] == "I":
            return f"SCC = static_cast<int32_t>(S0) {sign} CONSTANT;"
        return f"SCC = S0 {sign} static_cast<uint32_t>(CONSTANT & 0xffff);"
    raise UnknownPseudoCodeError("a constant that is not emulated")
