# SPDX-License-Identifier: Apache-2.0
"""The environment variables that this package reads at run time, as typed attributes: ``from vllm import envs; envs.VLLM_TARGET_DEVICE``.

An attribute is evaluated each time it is read, so a change of ``os.environ`` counts at once. Unset and empty mean the same. A malformed
value raises ``ValueError`` with the variable, the value and what is accepted. What the *build* reads is described in docs/build.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    VLLM_TARGET_DEVICE: str | None


@dataclass(frozen=True)
class Variable:
    """One environment variable.

    Attributes:
        parse: turns a non-empty value into the attribute's value, or raises ``ValueError`` with what is accepted.
        default: the attribute's value when the variable is unset or empty.
        meaning: for people.
    """

    parse: Callable[[str], Any]
    default: Any
    meaning: str


def _one_of(*accepted: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.strip().lower() in accepted:
            return value.strip().lower()
        raise ValueError(f"one of {', '.join(accepted)}, in any case")

    return parse


VARIABLES = {
    "VLLM_TARGET_DEVICE": Variable(
        _one_of("cuda", "rocm", "cpu", "tpu", "xpu", "empty"),
        None,
        "The device to run on (`vllm.platforms.current_platform`). Unset: the device of the installed kernels.",
    ),
}


def __getattr__(name: str) -> Any:
    try:
        variable = VARIABLES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = os.environ.get(name, "")
    if not value.strip():
        return variable.default
    try:
        return variable.parse(value)
    except ValueError as error:
        raise ValueError(f"{name}={value!r}: expected {error}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *VARIABLES])
