# SPDX-License-Identifier: Apache-2.0
"""The environment variables that this package reads at run time, as typed attributes.

Example: ``from vllm._kernels import envs; envs.VLLM_TARGET_DEVICE``.

An attribute is evaluated each time it is read, so a change of ``os.environ`` takes effect at once.
Unset, empty and blank mean the same. A malformed value raises ``ValueError`` with the variable, its
value and the accepted values. docs/build.md lists the variables that the *build* reads.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    VLLM_CPU_ISA: str | None
    VLLM_SLEEP_MEM_CHUNK_SIZE: int
    VLLM_TARGET_DEVICE: str | None


@dataclass(frozen=True)
class Variable:
    """One environment variable.

    Attributes:
        parse: converts a non-empty value to the attribute's value, or raises ``ValueError`` with
            the accepted values.
        default: the attribute's value if the variable is unset or empty.
        meaning: description for people.
    """

    parse: Callable[[str], Any]
    default: Any
    meaning: str


def _one_of(*accepted: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() in accepted:
            return value.lower()
        raise ValueError(f"one of {', '.join(accepted)}, in any case")

    return parse


#: Architecture of the host → instruction sets that the CPU kernels are compiled for, lowest first
#: (csrc/core/cpu_targets.h, csrc/core/amx.h).
CPU_ISAS = {"x86_64": ("sse2", "avx2", "avx3", "avx3_zen4", "amx")}


def _cpu_isa(value: str) -> str:
    machine = platform.machine()
    if machine not in CPU_ISAS:
        raise ValueError(f"it to be unset on {machine}, for which no kernels exist")
    return _one_of(*CPU_ISAS[machine])(value)


#: The largest VLLM_SLEEP_MEM_CHUNK_SIZE (csrc/allocator/chunk_setting.cc).
_LARGEST_CHUNK = 1 << 20


def _chunk_size(value: str) -> int:
    number = 0
    if re.fullmatch("0x[0-9a-f]+|[0-9]+", value, re.IGNORECASE | re.ASCII):
        number = int(value, 16 if value[:2].lower() == "0x" else 10)
    if not 1 <= number <= _LARGEST_CHUNK:
        raise ValueError(f"a whole number of MiB from 1 to {_LARGEST_CHUNK}")
    return number


VARIABLES = {
    "VLLM_CPU_ISA": Variable(
        _cpu_isa,
        None,
        "The best instruction set that the CPU kernels may use. If the CPU lacks it, they use the "
        "next lower one. Unset: no limit. The kernels read the variable once, at the first op. "
        "avx3 is the AVX-512 of Skylake-X, avx3_zen4 that of Zen 4 and Sapphire Rapids, "
        "amx adds Sapphire Rapids' matrix instructions.",
    ),
    "VLLM_SLEEP_MEM_CHUNK_SIZE": Variable(
        _chunk_size,
        256,
        "The size in MiB of the pieces in which ROCm's memory that sleeps is created. The "
        "allocator reads the variable each time a pool is opened, and rounds the size up to the "
        "device's granularity.",
    ),
    "VLLM_TARGET_DEVICE": Variable(
        _one_of("cuda", "rocm", "cpu", "tpu", "xpu", "empty"),
        None,
        "The device of `vllm._kernels.platforms.current_platform`. Unset: the device of the "
        "installed kernels.",
    ),
}


def __getattr__(name: str) -> Any:
    try:
        variable = VARIABLES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = os.environ.get(name, "").strip()
    if not value:
        return variable.default
    try:
        return variable.parse(value)
    except ValueError as error:
        raise ValueError(f"{name}={value!r}: expected {error}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *VARIABLES])
