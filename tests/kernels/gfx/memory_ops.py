# SPDX-License-Identifier: Apache-2.0
"""C++ for loads, stores, atomics, and moves between lanes through shared memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pseudo_code import UnknownPseudoCodeError
from scalar_ops import code

if TYPE_CHECKING:
    import tables

#: Name of a size, of RDNA or CDNA -> bytes, and whether the value is signed.
SIZES = {
    "B8": (1, False),
    "U8": (1, False),
    "I8": (1, True),
    "UBYTE": (1, False),
    "BYTE": (1, False),
    "SBYTE": (1, True),
    "B16": (2, False),
    "U16": (2, False),
    "I16": (2, True),
    "USHORT": (2, False),
    "SHORT": (2, False),
    "SSHORT": (2, True),
    **{f"B{32 * n}": (4 * n, False) for n in (1, 2, 3, 4, 8, 16)},
    **{f"DWORD{f'X{n}' if n > 1 else ''}": (4 * n, False) for n in (1, 2, 3, 4, 8, 16)},
}
#: Name of an atomic operation -> value of ``gfx::Atomic``.
ATOMICS = {
    "ADD_U32": "kAdd",
    "ADD": "kAdd",
    "SUB_U32": "kSub",
    "SUB": "kSub",
    "MIN_I32": "kMinSigned",
    "SMIN": "kMinSigned",
    "MAX_I32": "kMaxSigned",
    "SMAX": "kMaxSigned",
    "MIN_U32": "kMin",
    "UMIN": "kMin",
    "MAX_U32": "kMax",
    "UMAX": "kMax",
    "AND_B32": "kAnd",
    "AND": "kAnd",
    "OR_B32": "kOr",
    "OR": "kOr",
    "XOR_B32": "kXor",
    "XOR": "kXor",
    "SWAP_B32": "kSwap",
    "SWAP": "kSwap",
    "STOREXCHG_B32": "kSwap",
}
CACHES = re.compile(r"(BUFFER|GLOBAL)_(GL[01]_INV|WBL2|INVL2|INV|WB|WBINV|WBINVL1_VOL|WBINVL1)")


def flag(value: object) -> str:
    return str(bool(value)).lower()


def read_size(text: str) -> tuple[int, bool, str]:
    """Bytes, whether signed, and the part of the register, of "D16_HI_U8" or "UBYTE_D16_HI"."""
    part = "kAll"
    if found := re.fullmatch(r"(.*_)?D16(_HI)?(_.*)?", text):
        part = "kHigh" if found[2] else "kLow"
        text = ((found[1] or "") + (found[3] or "")).strip("_")
    if text not in SIZES:
        raise UnknownPseudoCodeError(f"{text} is not emulated")
    return *SIZES[text], f"Part::{part}"


def data(encoding: tables.Encoding, name: str) -> str:
    """The number of a data register, which may be an accumulation register."""
    high, low, _ = encoding.fields[name]
    if "acc" not in encoding.fields:
        return f"Field(i, {high}, {low})"
    at = encoding.fields["acc"][1]
    return f"(Field(i, {high}, {low}) + (Field(i, {at}, {at}) ? w.accumulators : 0))"


def write_cache_control(op: tables.Op) -> str:
    """C++ for instructions of the buffer encodings: only those that change caches."""
    if CACHES.fullmatch(op.name):
        return ""
    raise UnknownPseudoCodeError("buffers are not emulated")


def write_global(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for global and flat instructions."""
    if CACHES.fullmatch(op.name):
        return ""
    fields = encoding.fields
    address = "addr" if "addr" in fields else "vaddr"
    value = "data" if "data" in fields else "vsrc"
    high, low, _ = fields["offset" if "offset" in fields else "ioffset"]
    # Flat addresses have no negative offsets before RDNA4.
    signed = "Field" if encoding.name == "FLAT" else "SignedField"
    if encoding.name == "FLAT":
        high = min(high, 11)
    at = "const Address at{{Field(i, {}, {}), Field(i, {}, {}), {}(i, {}, {})}};\n".format(
        *fields[address][:2], *fields["saddr"][:2], signed, high, low
    )
    what = re.sub(r"^(GLOBAL|FLAT)_", "", op.name)
    if what.startswith("LOAD_") and "LDS" not in what and "ADDTID" not in what:
        size, sign, part = read_size(what.removeprefix("LOAD_"))
        kinds = f"{size}, {flag(sign)}, {part}"
        return f"{at}LoadGlobal<{kinds}>(w, i, at, {data(encoding, 'vdst')});"
    if what.startswith("STORE_") and "ADDTID" not in what:
        size, _, part = read_size(what.removeprefix("STORE_"))
        return f"{at}StoreGlobal<{size}, {part}>(w, i, at, {data(encoding, value)});"
    if what.startswith("ATOMIC_") and what.removeprefix("ATOMIC_") in ATOMICS:
        atomic = f"Atomic::{ATOMICS[what.removeprefix('ATOMIC_')]}"
        if "th" in fields:
            returns = "Field(i, {}, {}) & 1".format(*fields["th"][:2])
        else:
            place = fields["sc0" if "sc0" in fields else "glc"][1]
            returns = f"Field(i, {place}, {place})"
        rest = f"{data(encoding, value)}, {data(encoding, 'vdst')}, {returns}"
        return f"{at}UpdateGlobal<{atomic}>(w, i, at, {rest});"
    raise UnknownPseudoCodeError("this access to memory is not emulated")


def write_shared(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for instructions on shared memory."""
    what = op.name.removeprefix("DS_")
    address = "Field(i, {}, {})".format(*encoding.fields["addr"][:2])
    first = "Field(i, {}, {})".format(*encoding.fields["offset0"][:2])
    second = "Field(i, {}, {})".format(*encoding.fields["offset1"][:2])
    whole = f"({first} | {second} << 8)"
    one, two = data(encoding, "data0"), data(encoding, "data1")
    to = data(encoding, "vdst")
    if what == "BPERMUTE_B32":
        return f"PermuteBackward(w, {address}, {whole}, {one}, {to});"
    twice = re.fullmatch(r"(LOAD|STORE|READ|WRITE)_?2(?:ADDR)?(_STRIDE64|ST64)?_B(32|64)", what)
    if twice:
        size = int(twice[3]) // 8
        scale = size * (64 if twice[2] else 1)
        if twice[1] in ("LOAD", "READ"):
            rest = f"{first} * {scale}, {second} * {scale}, {to}"
            return f"LoadSharedTwice<{size}>(w, i, {address}, {rest});"
        kinds = f"<{size}, Part::kAll>"
        return (
            f"StoreShared{kinds}(w, i, {address}, {first} * {scale}, {one});\n"
            f"StoreShared{kinds}(w, i, {address}, {second} * {scale}, {two});"
        )
    if found := re.fullmatch(r"(LOAD|READ)_(.*)", what):
        size, sign, part = read_size(found[2])
        return f"LoadShared<{size}, {flag(sign)}, {part}>(w, i, {address}, {whole}, {to});"
    if found := re.fullmatch(r"(STORE|WRITE)_(.*)", what):
        size, _, part = read_size(found[2])
        return f"StoreShared<{size}, {part}>(w, i, {address}, {whole}, {one});"
    plain = what.replace("_RTN", "")
    if plain in ATOMICS:
        rest = f"{whole}, {one}, {to}, {flag('_RTN' in what)}"
        return f"UpdateShared<Atomic::{ATOMICS[plain]}>(w, i, {address}, {rest});"
    raise UnknownPseudoCodeError("this access to shared memory is not emulated")


def write_scalar_load(encoding: tables.Encoding, op: tables.Op) -> str:
    """C++ for loads into scalar registers."""
    if re.match(r"S_(DCACHE|GL1|PREFETCH|ICACHE)", op.name):
        return ""
    found = re.fullmatch(r"S_LOAD_(\w+)", op.name)
    if found is None:
        raise UnknownPseudoCodeError("this access to memory is not emulated")
    size, sign, _ = read_size(found[1])
    fields = encoding.fields
    base = f"w.Pair({code(encoding, 'sbase')})"
    high, low, _ = fields["offset" if "offset" in fields else "ioffset"]
    constant = f"SignedField(i, {high}, {low})"
    register = "Field(i, {}, {})".format(*fields["soffset"][:2])
    if "imm" in fields:
        # Of gfx9: bit 17 says that there is a constant, bit 14 that there is a register.
        lines = [
            f"int64_t offset = Field(i, 17, 17) ? {constant} : w.scalar[Field(i, 38, 32)];",
            f"if (Field(i, 17, 17) && Field(i, 14, 14)) offset += w.scalar[{register}];",
        ]
    else:
        lines = [
            f"int64_t offset = {constant};",
            f"if ({register} != kNull) offset += w.scalar[{register}];",
        ]
    lines.append(f"const uint64_t address = {base} + static_cast<uint64_t>(offset);")
    to = "Field(i, {}, {})".format(*fields["sdata"][:2])
    if size < 4:
        lines.append(f"LoadScalarPart<{size}, {flag(sign)}>(w, i, address, {to});")
    else:
        lines.append(f"LoadScalar<{size // 4}>(w, i, address, {to});")
    return "\n".join(lines)
