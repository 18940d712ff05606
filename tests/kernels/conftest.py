# SPDX-License-Identifier: Apache-2.0
"""Loads the compiled ops, and holds what their tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable

HOW_TO_BUILD = """\
Build and install the kernels first: `make package VARIANT=cpu`, then `vllm-build test-package cpu`; or `pip install -e .` in this tree."""

try:
    import torch

    from vllm import _ops
except ImportError as error:
    raise ImportError(f"{error}\n{HOW_TO_BUILD}") from error

#: What the kernels run on: "cpu"; "emulated", GPU kernels on the CPU; "cuda".
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")
if DEVICE == "cuda":
    # All tensors of the tests, those of their references as well.
    torch.set_default_device("cuda")

#: What a library for the CPU does not have, or treats otherwise; what the emulation has not; and tests with several GPUs in one process,
#: which only the emulation offers, or of itself.
collect_ignore = {
    "cpu": [
        "test_bench_cases.py",
        "test_cache_gpu.py",
        "test_cumem.py",
        "test_custom_all_reduce.py",
        "test_flash_attn.py",
        "test_flash_attn_arguments.py",
        "test_flashmla.py",
        "test_hopper_emulation.py",
        "test_indexer_cache.py",
        "test_moe_gpu.py",
        "test_norm_block_quant.py",
        "test_scaled_mm.py",
    ],
    "emulated": ["test_cumem.py", "test_flash_attn.py", "test_flash_attn_arguments.py"],
    "cuda": ["test_custom_all_reduce.py", "test_hopper_emulation.py"],
}[DEVICE]

# As tests/conftest.py, which is not loaded where these tests run against an installed vllm.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

#: Relative and absolute error that rounding to the dtype, and float32 arithmetic before it, explain.
TOLERANCE = {torch.float32: (1e-5, 1e-6), torch.bfloat16: (2**-8, 1e-6), torch.float16: (2**-10, 1e-6)}


@pytest.fixture(scope="session", autouse=True)
def ops() -> Any:
    """``torch.ops._C`` with the ops of the installed library."""
    try:
        _ops.load()
    except ImportError as error:
        pytest.fail(f"{error}\n{HOW_TO_BUILD}", pytrace=False)
    return torch.ops._C


@pytest.fixture(scope="session", params=list(TOLERANCE), ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def check() -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Compares a result with a float64 reference."""

    def close(got: torch.Tensor, want: torch.Tensor) -> None:
        assert want.dtype == torch.float64
        relative, absolute = TOLERANCE[got.dtype]
        torch.testing.assert_close(got.double(), want, rtol=relative, atol=absolute, equal_nan=True)

    return close


@pytest.fixture(scope="session")
def strided() -> Callable[..., torch.Tensor]:
    """Makes a tensor whose rows lie apart: random memory around and between them, the last dimension side by side."""

    def make(shape: tuple[int, ...], dtype: torch.dtype, *, pad: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
        """``order`` is the order of the leading dimensions in memory; ``pad`` the elements between rows."""
        leading = len(shape) - 1
        order = order or tuple(range(leading))
        memory = torch.randn(*[shape[i] for i in order], shape[-1] + pad).to(dtype)
        view = memory.permute(*[order.index(i) for i in range(leading)], leading)
        return view[..., pad // 2 : pad // 2 + shape[-1]]

    return make
