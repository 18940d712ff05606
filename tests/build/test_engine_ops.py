# SPDX-License-Identifier: Apache-2.0
"""The ops that the engine names, compared with those that our libraries register."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllm_build.engine import op_calls
from vllm_build.engine.op_calls import Gap
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

GAPS = (
    Gap("no kernels", frozenset({"cpu", "cuda"}), frozenset({"_C::other"})),
    Gap("for GPUs", frozenset({"cpu"}), frozenset({"_C::gpu"})),
)
PRESENT = {"cpu": frozenset({"_C::both"}), "cuda": frozenset({"_C::both", "_C::gpu"})}
CALLED = dict.fromkeys(("_C::both", "_C::gpu", "_C::other"), ("a.py",))


def test_calls_are_found_in_the_modules(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.py").write_text(
        "torch.ops._C.one(x)\nif hasattr(torch.ops._moe_C, 'two'):\n    torch.ops\\\n"
        "        ._moe_C.two()\ntorch.ops.aten.add(x)\n",
        encoding="utf-8",
    )
    (tmp_path / "b.py").write_text("f = torch.ops._C.one\n", encoding="utf-8")
    # Another encoding does not hide a call.
    (tmp_path / "c.py").write_bytes(b"# coding: latin-1\nx = '\xe4'\ntorch.ops._C.three()\n")
    found = op_calls.calls(tmp_path)
    assert found == {
        "_C::one": ("b.py", "sub/a.py"),
        "_C::three": ("c.py",),
        "_moe_C::two": ("sub/a.py",),
    }


def test_a_namespace_without_an_op_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "x = torch.ops._C\ny = getattr(torch.ops._D, name)\nz = torch.ops._E.f(torch.ops._F)\n"
        "w = (torch.ops._G, 'op')\n# torch.ops._H here\nhasattr(torch.ops._I,\n  \"op\")\n",
        encoding="utf-8",
    )
    assert op_calls.hidden(tmp_path) == [
        f"a.py uses torch.ops.{space} without naming an op" for space in ("_C", "_D", "_F")
    ]


def test_explained_gaps_are_no_differences() -> None:
    assert op_calls.unexplained(CALLED, PRESENT, GAPS) == []


@pytest.mark.parametrize(
    ("called", "present", "words"),
    [
        ({"_C::new": ("n.py",)}, {}, ["cpu: the engine names _C::new (n.py)", "cuda: the engine"]),
        (
            {},
            {"cpu": frozenset({"_C::both", "_C::other"})},
            ["cpu: _C::other is listed as missing"],
        ),
        ({}, {"cuda": frozenset({"_C::both"})}, ["cuda: the engine names _C::gpu"]),
    ],
)
def test_a_difference_is_named(
    called: dict[str, tuple[str, ...]], present: dict[str, frozenset[str]], words: list[str]
) -> None:
    found = op_calls.unexplained({**CALLED, **called}, {**PRESENT, **present}, GAPS)
    assert len(found) == len(words)
    assert all(line.startswith(start) for line, start in zip(found, words, strict=True)), found


def test_an_op_that_the_engine_no_longer_names() -> None:
    called = {name: files for name, files in CALLED.items() if name != "_C::other"}
    (found,) = op_calls.unexplained(called, PRESENT, GAPS)
    assert found == "_C::other is listed as missing, but the engine does not name it"


@pytest.mark.parametrize(
    "text",
    [
        "gap = 1",
        'gaps = 1\n[[gap]]\nreason = "r"\nops = ["_C::a"]\n',
        '[[gap]]\nreason = ""\nops = ["_C::a"]\n',
        '[[gap]]\nreason = "r"\nops = ["a"]\n',
        '[[gap]]\nreason = "r"\nops = ["_C::a"]\ndevices = ["abacus"]\n',
        '[[gap]]\nreason = "r"\nops = ["_C::a"]\nnote = "n"\n',
    ],
)
def test_a_malformed_table_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "third_party").mkdir()
    (tmp_path / op_calls.TABLE).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        op_calls.read(tmp_path)


def test_each_device_registers_ops(root: Path) -> None:
    found = op_calls.registered(root)
    assert set(found) == {"cpu", "cuda", "rocm"}
    assert all("_C::rms_norm" in ops for ops in found.values())


@pytest.mark.parametrize("kind", op_calls.KINDS)
def test_no_op_is_explained_twice_for_a_device(root: Path, kind: str) -> None:
    gaps = op_calls.read(root, kind)
    pairs = [(device, op) for gap in gaps for device in gap.devices for op in gap.ops]
    assert len(pairs) == len(set(pairs))
