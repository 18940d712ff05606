# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("torch", reason="torch is not installed here")

CODE = """
import torch
from vllm._kernels import fakes
torch.library.define("_vt::writes", "(Tensor(a!) out, Tensor x) -> ()")
torch.library.define("_vt::writes.other", "(Tensor(a!)? out, Tensor x) -> ()")
torch.library.define("_vt::returns", "(Tensor(a!) out, Tensor x) -> Tensor")
torch.library.define("_vt::reads", "(Tensor x) -> ()")
torch.library.define("_vt_not::writes", "(Tensor(a!) out) -> ()")
print(fakes.register(["_vt", "_vt_missing"]))
print(fakes.register(["_vt"]))
with torch._subclasses.FakeTensorMode():
    x = torch.empty(2, 3)
    print(torch.ops._vt.writes(x, x))
    try:
        torch.ops._vt.returns(x, x)
    except RuntimeError as error:
        print(type(error).__name__)
"""


def test_ops_that_only_write_get_one(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = python(copy, CODE)
    both = "('_vt::writes', '_vt::writes.other')"
    assert done.stdout.splitlines() == [both, "()", "None", "UnsupportedOperatorException"], (
        done.stderr
    )


RETURNED = """
import torch
from vllm._kernels import fakes
fakes.RETURNED["_vt::first"] = lambda x: x.new_empty(x.shape[:1])
torch.library.define("_vt::first", "(Tensor x) -> Tensor")
print(fakes.register(["_vt"]))
with torch._subclasses.FakeTensorMode():
    print(tuple(torch.ops._vt.first(torch.empty(2, 3)).shape))
"""


def test_ops_that_return_something_have_an_entry(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = python(copy, RETURNED)
    assert done.stdout.splitlines() == ["('_vt::first',)", "(2,)"], done.stderr
