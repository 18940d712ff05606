# SPDX-License-Identifier: Apache-2.0
"""Numbers are written with 0 to 9.

``\\d``, ``str.isdigit`` and ``int`` know the digits of every script, which no other tool of a build
reads.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from vllm_build.architectures import cuda_archs, gpu_targets, rocm_archs
from vllm_build.commands.package_options import parse_days
from vllm_build.target import torch_flavour
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: ARABIC-INDIC, FULLWIDTH and DEVANAGARI digits for 0 to 9.
SCRIPTS = tuple(
    "".join(chr(zero + digit) for digit in range(10)) for zero in (0x0660, 0xFF10, 0x0966)
)
READERS: tuple[tuple[Callable[[str], object], str], ...] = (
    (lambda text: cuda_archs.parse(text, "TORCH_CUDA_ARCH_LIST"), "9.0a"),
    (lambda text: gpu_targets.parse("cuda", text, "--arch-list"), "12.0+PTX"),
    (lambda text: gpu_targets.from_cmake(text, "CMAKE_CUDA_ARCHITECTURES"), "90a-real"),
    (lambda text: rocm_archs.parse(text, "PYTORCH_ROCM_ARCH"), "gfx1100"),
    (parse_days, "30"),
)


@pytest.mark.parametrize("digits", SCRIPTS)
@pytest.mark.parametrize(("read", "text"), READERS)
def test_digits_of_other_scripts_are_refused(
    read: Callable[[str], object], text: str, digits: str
) -> None:
    read(text)
    foreign = text.translate(str.maketrans("0123456789", digits))
    with pytest.raises(ConfigurationError, match=re.escape(repr(foreign))) as caught:
        read(foreign)
    assert caught.value.remedy


@pytest.mark.parametrize("digits", SCRIPTS)
def test_digits_of_other_scripts_name_no_release(digits: str) -> None:
    table = str.maketrans("0123456789", digits)
    assert torch_flavour.from_local("2.11.0+cu129") is not None
    assert torch_flavour.from_local("2.11.0+cu129".translate(table)) is None


def _sources(root: Path) -> list[Path]:
    return [*(root / "scripts" / "vllm_build").rglob("*.py"), *(root / "vllm").rglob("*.py")]


def test_no_pattern_has_digits_of_every_script(root: Path) -> None:
    for path in _sources(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert r"\d" not in node.value, f"{path}:{node.lineno}: write [0-9]"


def test_isdigit_comes_with_isascii(root: Path) -> None:
    for path in _sources(root):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if (
                re.search(r"\.is(digit|numeric|decimal)\(", line) and path.name != "supervisor.py"
            ):  # names below /proc
                assert ".isascii()" in line, f"{path}:{number}"
