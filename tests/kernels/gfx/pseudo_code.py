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
    "u64": ("uint64_t", 64),
    "b64": ("uint64_t", 64),
    "i64": ("int64_t", 64),
    "f16": ("Half", 16),
    "bf16": ("BFloat", 16),
    "f32": ("float", 32),
    "f64": ("double", 64),
}
#: Binary operators, from the weakest to the strongest.
OPERATORS = (
    *(("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!=", "<>")),
    *(("<", "<=", ">", ">="), ("<<", ">>"), ("+", "-"), ("*", "/", "%")),
)
#: Functions of the pseudo-code that ``gfx_machine.h`` defines under the same name.
FUNCTIONS = frozenset(
    (
        *("fma", "isNAN", "isSignalNAN", "isQuietNAN", "cvtToQuietNAN", "abs", "sign"),
        *("exponent", "mantissa", "trunc", "floor", "sqrt", "log2", "signext"),
        *("signext_from_bit", "f16_to_f32", "f32_to_f16", "bf16_to_f32", "u32_to_f32"),
        *("i32_to_f32", "f32_to_u32", "f32_to_i32", "u32_to_f64", "i32_to_f64", "f32_to_f64"),
        *("f64_to_f32", "f64_to_i32", "f64_to_u32", "v_max_f32", "v_min_f32", "v_max_num_f32"),
        *("v_min_num_f32", "v_max3_f32", "v_min3_f32", "v_max_u32", "v_min_u32"),
        *("v_max_i32", "v_min_i32"),
    )
)
#: Names that ``gfx_values.h`` or the caller of the translation defines.
CONSTANTS = frozenset(("INF",))
OPERANDS = ("S0", "S1", "S2", "D0", "SCC", "EXEC", "SIMM32", "MASK_IN", "MASK_OUT")
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


class Translation:
    """The statements so far."""

    def __init__(self) -> None:
        self.names = Names(set(OPERANDS))
        self.lines: list[str] = []
        self.depth = 0

    def value(self, source: str) -> str:
        """Translate an expression."""
        return Expression(LANE.sub("MASK_IN", source), self.names).parse()

    def add(self, line: str) -> None:
        """Translate a statement."""
        for pattern, write in STATEMENTS:
            if found := pattern.fullmatch(line):
                self.lines.append(write(self, *found.groups()))
                break
        else:
            raise UnknownPseudoCodeError(f"cannot read {line!r}")
        self.depth += self.lines[-1].count("{") - self.lines[-1].count("}")

    def declare(self, name: str, bits: str, kind: str, length: str | None) -> str:
        self.names.known.add(name)
        if length is None:
            return f"uint64_t {name} = 0;"
        self.names.arrays.add(name)
        return f"{TYPES[('f' if kind == 'F' else 'u') + bits][0]} {name}[{length}] = {{}};"

    def start_if(self, condition: str) -> str:
        return f"if ({self.value(condition)}) {{"

    def start_elsif(self, condition: str) -> str:
        return f"}} else {self.start_if(condition)}"

    def start_else(self) -> str:
        return "} else {"

    def end(self) -> str:
        return "}"

    def start_for(self, name: str, first: str, last: str) -> str:
        self.names.known.add(name)
        start, stop = self.value(first), self.value(last)
        return f"for (int {name} = {start}; {name} <= {stop}; ++{name}) {{"

    def leave(self) -> str:
        return "break;"

    def assign(self, *parts: str) -> str:
        """Translate ``name.type[index].type = value``, also with ``+=`` and ``-=``."""
        name, before, index, after, operator, source = parts
        value, kind = self.value(source), (after or before)[1:]
        if name in READ_ONLY:
            raise UnknownPseudoCodeError(f"assigns {name}")
        if kind and kind not in TYPES:
            raise UnknownPseudoCodeError(f"unknown type {kind}")
        if name in self.names.arrays:
            return f"{name}{index} {operator} {value};"
        start = ""
        if name not in self.names.known:
            start = self.define(name, value, whole=not index and not kind)
            if not index and not kind:
                return start
        if index:
            return start + self.assign_slice(name, index, operator, value, kind)
        if not kind:
            return f"{name} {operator} {value};"
        if operator != "=":
            value = f"({typed('As', kind)}({name}) {operator[0]} {value})"
        return f"{start}{typed('Put', kind)}({name}, {value});"

    def define(self, name: str, value: str, *, whole: bool) -> str:
        """Define a variable at its first assignment."""
        if self.depth:
            raise UnknownPseudoCodeError(f"defines {name} under a condition")
        self.names.known.add(name)
        if not whole:
            return f"uint64_t {name} = 0; "
        if value.startswith("As<BFloat"):
            raise UnknownPseudoCodeError("sums of bfloat16 are not translated")
        return f"auto {name} = {value};"

    def assign_slice(self, name: str, index: str, operator: str, value: str, kind: str) -> str:
        limits = index[1:-1].split(" : ")
        if len(limits) != 2 or operator != "=":
            raise UnknownPseudoCodeError(f"cannot assign {name}{index}")
        high, low = (self.value(limit) for limit in limits)
        bits = f"{typed('Convert', kind)}({value})" if kind else value
        return f"PutSlice({name}, {high}, {low}, {bits});"


READ_ONLY = ("S0", "S1", "S2", "VCC", "MASK_IN")
#: Form of a statement -> how it is translated.
STATEMENTS = (
    (re.compile(r"declare (\w+) : (\d*)'([UIFB])(?:\[(\d+)\])?"), Translation.declare),
    (re.compile(r"if (.*) then"), Translation.start_if),
    (re.compile(r"elsif (.*) then"), Translation.start_elsif),
    (re.compile(r"else"), Translation.start_else),
    (re.compile(r"endif|endfor"), Translation.end),
    (re.compile(r"for (\w+) in (.*) : (.*) do"), Translation.start_for),
    (re.compile(r"break"), Translation.leave),
    (
        re.compile(r"(\w+)((?:\.\w+)?)((?:\[[^]]*\])?)((?:\.\w+)?) ([-+]?=) (.*)"),
        Translation.assign,
    ),
)


def translate(text: str) -> str:
    """Return C++ statements over S0, S1, S2, D0, SCC, MASK_IN and MASK_OUT."""
    if "lambda" in text or "MEM[" in text or "VGPR[" in text or "PC" in text.split():
        raise UnknownPseudoCodeError("needs an implementation of its own")
    translation = Translation()
    for line in statements(text):
        translation.add(re.sub(r"^(VCC|D0|EXEC)\.u64\[laneId\] =(?!=)", "MASK_OUT =", line))
    if translation.depth:
        raise UnknownPseudoCodeError("unbalanced conditions")
    return "\n".join(translation.lines)
