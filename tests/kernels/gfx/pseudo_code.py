# SPDX-License-Identifier: Apache-2.0
"""Translates the pseudo-code of AMD's instruction set documents into C++ statements.

The pseudo-code of one instruction is a list of assignments, conditions and loops over the operands
``S0``, ``S1``, ``S2`` and ``D0``, of which each part has a type: ``S0.f32``, ``S1[4 : 0].u32``.
``gfx_machine.h`` defines what the translation calls. Anything that this module does not know is an
error: an instruction is then not emulated, and a kernel that reaches it stops with its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: Type in the pseudo-code -> C++ type that holds it, and its number of bits.
TYPES = {
    **{f"u{bits}": ("uint32_t", bits) for bits in (1, 2, 3, 4, 5, 6, 8, 16, 24, 32)},
    **{f"b{bits}": ("uint32_t", bits) for bits in (8, 16, 32)},
    **{f"i{bits}": ("int32_t", bits) for bits in (8, 16, 24, 32)},
    **{"u64": ("uint64_t", 64), "b64": ("uint64_t", 64), "i64": ("int64_t", 64)},
    **{"f16": ("Half", 16), "bf16": ("BFloat", 16), "f32": ("float", 32), "f64": ("double", 64)},
}
#: Binary operators, from the weakest to the strongest.
OPERATORS = (
    *(("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!=", "<>")),
    *(("<", "<=", ">", ">="), ("<<", ">>"), ("+", "-"), ("*", "/", "%")),
)
#: Functions of the pseudo-code that ``gfx_machine.h`` defines under the same name.
FUNCTIONS = frozenset(
    "fma isNAN isSignalNAN isQuietNAN cvtToQuietNAN abs sign exponent mantissa trunc floor fract"
    " sqrt log2 signext signext_from_bit f16_to_f32 f32_to_f16 bf16_to_f32 u32_to_f32 i32_to_f32"
    " f32_to_u32 f32_to_i32 u32_to_f64 i32_to_f64 f32_to_f64 f64_to_f32 f64_to_i32 f64_to_u32"
    " v_max_f32 v_min_f32 v_max_num_f32 v_min_num_f32 v_max3_f32 v_min3_f32 v_max_u32 v_min_u32"
    " v_max_i32 v_min_i32".split()
)
#: Names that ``gfx_values.h`` or the caller of the translation defines.
CONSTANTS = frozenset(("INF",))
OPERANDS = ("S0", "S1", "S2", "D0", "SCC", "EXEC", "SIMM32", "MASK_IN")
TOKEN = re.compile(
    r"\s*(?:(?P<cast>\d+'[UIFB](?=\())|(?P<sized>\d+'-?(?:0x[0-9a-fA-F]+|\d+)[UL]*)"
    r"|(?P<number>0x[0-9a-fA-F]+[UL]*|\d+\.\d+F?|\d+[UL]*)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\*\*|<<|>>|<=|>=|==|!=|<>|&&|\|\||[-+*/%&|^~!?:.,(){}\[\]<>]))"
)
#: Bits of a mask that instructions read or write for their own lane.
LANE = re.compile(r"\b(VCC|D0|EXEC)\.u64\[laneId\](?:\.u(?:32|64))?")


class UnknownPseudoCodeError(ValueError):
    """The pseudo-code uses something that this module cannot translate."""


@dataclass
class Names:
    """Variables that statements so far have defined."""

    known: set[str]
    arrays: set[str] = field(default_factory=set)


class Expression:
    """A recursive-descent parser of one expression."""

    def __init__(self, text: str, names: Names) -> None:
        self.names = names
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            if text[at:].isspace():
                break
            found = TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise UnknownPseudoCodeError(f"cannot read {text[at:]!r}")
            self.tokens.append((found.lastgroup, found.group(found.lastgroup)))
            at = found.end()
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> tuple[str, str]:
        if self.at >= len(self.tokens) or (expected and self.peek() != expected):
            raise UnknownPseudoCodeError(f"expected {expected or 'more'} at {self.peek()!r}")
        self.at += 1
        return self.tokens[self.at - 1]

    def parse(self) -> str:
        """Translate the whole text."""
        value = self.choice()
        if self.at != len(self.tokens):
            raise UnknownPseudoCodeError(f"unexpected {self.peek()!r}")
        return value

    def choice(self) -> str:
        condition = self.binary(0)
        if self.peek() != "?":
            return condition
        self.take()
        then = self.choice()
        self.take(":")
        return f"({condition} ? {then} : {self.choice()})"

    def binary(self, level: int) -> str:
        if level == len(OPERATORS):
            return self.unary()
        left = self.binary(level + 1)
        while self.peek() in OPERATORS[level]:
            sign = self.take()[1].replace("<>", "!=")
            right = self.binary(level + 1)
            left = (
                f"Shift{'Left' if sign == '<<' else 'Right'}({left}, {right})"
                if sign in ("<<", ">>")
                else f"({left} {sign} {right})"
            )
        return left

    def unary(self) -> str:
        if self.peek() in ("-", "+", "!", "~"):
            sign = self.take()[1]
            return f"({sign}{self.unary()})"
        value = self.postfix()
        if self.peek() == "**":
            raise UnknownPseudoCodeError("powers are not translated")
        return value

    def postfix(self) -> str:
        value = self.primary()
        while self.peek() in (".", "["):
            if self.take()[1] == ".":
                kind = self.take()[1]
                if kind not in TYPES or value in CONSTANTS:
                    raise UnknownPseudoCodeError(f"unknown type {value}.{kind}")
                value = f"{typed('As', kind)}({value})"
                continue
            high = self.choice()
            if self.peek() == ":":
                self.take()
                value = f"Slice({value}, {high}, {self.choice()})"
            elif value in self.names.arrays:
                value = f"{value}[{high}]"
            else:
                value = f"Bit({value}, {high})"
            self.take("]")
        return value

    def primary(self) -> str:
        kind, text = self.take()
        if kind == "sized":
            return cast(text.partition("'")[0], "U", number(text.partition("'")[2]))
        if kind == "number":
            return number(text)
        if kind == "cast":
            self.take("(")
            value = self.choice()
            self.take(")")
            return cast(text.partition("'")[0], text[-1], value)
        if kind == "name":
            return self.named(text)
        if text == "(":
            value = self.choice()
            self.take(")")
            return f"({value})"
        if text == "{":
            high = self.choice()
            self.take(",")
            low = self.choice()
            self.take("}")
            return f"Join({high}, {low})"
        raise UnknownPseudoCodeError(f"unexpected {text!r}")

    def named(self, name: str) -> str:
        if self.peek() != "(":
            if name not in self.names.known and name not in CONSTANTS:
                raise UnknownPseudoCodeError(f"unknown name {name}")
            return name
        if name not in FUNCTIONS:
            raise UnknownPseudoCodeError(f"unknown function {name}")
        self.take()
        values = [self.choice()]
        while self.peek() == ",":
            self.take()
            values.append(self.choice())
        self.take(")")
        return f"{name}({', '.join(values)})"


def number(text: str) -> str:
    """A literal in C++: hexadecimal ones and those with U are unsigned."""
    if "." in text:
        return text.replace("F", "f")
    digits = text.rstrip("UL")
    return digits + ("ull" if "LL" in text else "u" if "U" in text or "0x" in text else "")


def typed(function: str, kind: str) -> str:
    """The name of a template of ``gfx_machine.h`` for a type."""
    held, bits = TYPES[kind]
    return f"{function}<{held}, {bits}>"


def cast(bits: str, kind: str, value: str) -> str:
    """A conversion, which keeps the value, not the bits."""
    if kind == "F":
        return f"static_cast<{TYPES[f'f{bits}'][0]}>({value})"
    name = f"{'i' if kind == 'I' else 'u'}{bits}"
    if name not in TYPES:
        raise UnknownPseudoCodeError(f"unknown type {name}")
    return f"{typed('Convert', name)}({value})"


def statements(text: str) -> list[str]:
    """Split pseudo-code into statements without comments."""
    plain = re.sub(r"//[^\n]*", "", text)
    # A line that ends inside parentheses continues on the next one.
    found: list[str] = []
    for line in plain.split("\n"):
        if found and found[-1].count("(") > found[-1].count(")"):
            found[-1] += " " + line.strip()
        elif line.strip():
            found.append(line.strip())
    return [part.strip() for line in found for part in line.split(";") if part.strip()]


def translate(text: str) -> str:
    """Return C++ statements over S0, S1, S2, D0, SCC, MASK_IN and MASK_OUT."""
    if "lambda" in text or "MEM[" in text or "VGPR[" in text or "PC" in text.split():
        raise UnknownPseudoCodeError("needs an implementation of its own")
    names = Names(set(OPERANDS))
    lines: list[str] = []
    depth = 0

    def value(source: str) -> str:
        return Expression(LANE.sub("MASK_IN", source), names).parse()

    for line in statements(text):
        if line.startswith("declare "):
            declaration = re.fullmatch(r"declare (\w+) : (\d*)'([UIFB])(\[(\d+)\])?", line)
            if declaration is None:
                raise UnknownPseudoCodeError(line)
            name, bits, kind, array, length = declaration.groups()
            names.known.add(name)
            if array:
                names.arrays.add(name)
                held = TYPES[("f" if kind == "F" else "u") + bits][0]
                lines.append(f"{held} {name}[{length}] = {{}};")
            else:
                lines.append(f"uint64_t {name} = 0;")
        elif found := re.fullmatch(r"if (.*) then", line):
            lines.append(f"if ({value(found[1])}) {{")
        elif found := re.fullmatch(r"elsif (.*) then", line):
            lines.append(f"}} else if ({value(found[1])}) {{")
        elif line == "else":
            lines.append("} else {")
        elif line in ("endif", "endfor"):
            lines.append("}")
        elif found := re.fullmatch(r"for (\w+) in (.*) : (.*) do", line):
            name, first, last = found.groups()
            names.known.add(name)
            lines.append(f"for (int {name} = {value(first)}; {name} <= {value(last)}; ++{name}) {{")
        elif line == "break":
            lines.append("break;")
        else:
            lines.append(assignment(line, names, nested=depth > 0))
        depth += lines[-1].count("{") - lines[-1].count("}")
    if depth:
        raise UnknownPseudoCodeError("unbalanced conditions")
    return "\n".join(lines)


def assignment(line: str, names: Names, *, nested: bool) -> str:
    """Translate ``target = value`` and ``target += value``."""
    line = re.sub(r"^(VCC|D0|EXEC)\.u64\[laneId\] =(?!=)", "MASK_OUT =", line)
    found = re.fullmatch(r"(\w+)((?:\.\w+)?)((?:\[[^]]*\])?)((?:\.\w+)?) ([-+]?=) (.*)", line)
    if found is None:
        raise UnknownPseudoCodeError(f"cannot read {line!r}")
    name, before, index, after, operator, source = found.groups()
    value = Expression(LANE.sub("MASK_IN", source), names).parse()
    if name in ("S0", "S1", "S2", "VCC", "MASK_IN"):
        raise UnknownPseudoCodeError(f"assigns {name}")
    kind = (after or before)[1:]
    if kind and kind not in TYPES:
        raise UnknownPseudoCodeError(f"unknown type {kind}")
    if name in names.arrays:
        return f"{name}{index} {operator} {value};"
    start = ""
    if name not in names.known and name != "MASK_OUT":
        if nested:
            raise UnknownPseudoCodeError(f"defines {name} under a condition")
        names.known.add(name)
        if not index and not kind:
            if value.startswith("As<BFloat"):
                raise UnknownPseudoCodeError("sums of bfloat16 are not translated")
            return f"auto {name} = {value};"
        start = f"uint64_t {name} = 0; "
    if index:
        limits = index[1:-1].split(" : ")
        if len(limits) != 2 or operator != "=":
            raise UnknownPseudoCodeError(f"cannot read {line!r}")
        high, low = (Expression(limit, names).parse() for limit in limits)
        bits = f"{typed('Convert', kind)}({value})" if kind else value
        return f"{start}PutSlice({name}, {high}, {low}, {bits});"
    if operator != "=" and kind:
        value = f"({typed('As', kind)}({name}) {operator[0]} {value})"
    if kind:
        return f"{start}{typed('Put', kind)}({name}, {value});"
    return f"{name} {operator} {value};"
