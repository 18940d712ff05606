# SPDX-License-Identifier: Apache-2.0
"""Loads the compiled ops, and defines what their tests share."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOW_TO_BUILD = """\
Build and install the kernels first: `make package VARIANT=cpu`, then
`.venv/bin/vllm-build test-package cpu`; or `pip install -e .` in this tree."""

# Test files import modules of this folder, such as attention_batches.
sys.path.insert(0, str(Path(__file__).parent))

try:
    import torch

    from vllm._kernels import loader
except ImportError as error:
    raise ImportError(f"{error}\n{HOW_TO_BUILD}") from error

#: Device of the kernels: "cpu", "cuda", or "emulated" for GPU kernels on the CPU.
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")
if DEVICE == "cuda":
    # For all tensors of the tests, including those of the references.
    torch.set_default_device("cuda")

#: Test files that do not run on every device -> the values of ``DEVICE`` that they run on. The
#: CPU's library lacks their subject or behaves differently. The emulation has no driver and no
#: FlashAttention, and only the emulation has several GPUs in one process.
RUNS_ON = {
    "test_bench_cases.py": ("emulated", "cuda"),
    "test_cache_gpu.py": ("emulated", "cuda"),
    "test_cumem.py": ("cuda",),
    "test_custom_all_reduce.py": ("emulated",),
    "test_flash_attn.py": ("cuda",),
    "test_flash_attn_arguments.py": ("cuda",),
    "test_flash_attn_caches.py": ("cuda",),
    "test_flash_attn_schedule.py": ("cuda",),
    "test_flashmla.py": ("emulated", "cuda"),
    "test_flashmla_arguments.py": ("emulated", "cuda"),
    "test_hopper_emulation.py": ("emulated",),
    "test_indexer_cache.py": ("emulated", "cuda"),
    "test_moe_gpu.py": ("emulated", "cuda"),
    "test_norm_block_quant.py": ("emulated", "cuda"),
    "test_rocm_attention.py": ("emulated",),
    "test_rocm_attention_arguments.py": ("emulated",),
    "test_rocm_gemm.py": ("emulated",),
    "test_rocm_gemm_arguments.py": ("emulated",),
    "test_rocm_gemm_quantised.py": ("emulated",),
    "test_scaled_mm.py": ("emulated", "cuda"),
    "test_wave_emulation.py": ("emulated",),
}
#: Devices that such tests run on -> the reason for the skip elsewhere.
#: tests/recipe/test_built_packages.py knows how the reasons begin.
WHY_NOT = {
    ("cuda",): "needs a GPU: make gpu-tests",
    ("emulated", "cuda"): "needs a GPU or its emulation: make gpu-tests, make emulate",
    ("emulated",): "needs a GPU's emulation: make emulate",
}


class FileOfAnotherDevice(pytest.File):
    """Replaces a file whose tests cannot run here by one skipped test with the reason.

    The file is not imported.
    """

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the skipped test."""
        item = SkippedFile.from_parent(self, name="whole file")
        item.add_marker(pytest.mark.skip(reason=WHY_NOT[RUNS_ON[self.path.name]]))
        yield item


class SkippedFile(pytest.Item):
    """Represents all tests of a file."""

    def runtest(self) -> None:
        """Not called, because the mark skips the test."""
        raise AssertionError(f"{self.path} needs another device")

    def reportinfo(self) -> tuple[Path, int, str]:
        """The location for the summary of skips."""
        return self.path, 0, self.path.name


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Collector | None:
    """Collect a visible skip for a file whose tests need another device."""
    if DEVICE in RUNS_ON.get(module_path.name, (DEVICE,)):
        return None
    return FileOfAnotherDevice.from_parent(parent, path=module_path)


# As in tests/conftest.py, which is not loaded when these tests run against an installed vllm.
# test_instruction_sets.py and sanitize.py, which repeat these tests, take fewer examples.
settings.register_profile(
    "untimed",
    deadline=None,
    max_examples=int(os.environ.get("KERNEL_TEST_EXAMPLES", "50")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")

#: Relative and absolute error that is explained by float32 arithmetic and rounding to the dtype.
TOLERANCE = {
    torch.float32: (1e-5, 1e-6),
    torch.bfloat16: (2**-8, 1e-6),
    torch.float16: (2**-10, 1e-6),
}


@pytest.fixture(scope="session", autouse=True)
def ops() -> Any:
    """``torch.ops._C`` with the ops of the installed library."""
    try:
        loader.load()
    except ImportError as error:
        pytest.fail(f"{error}\n{HOW_TO_BUILD}", pytrace=False)
    return torch.ops._C


@pytest.fixture(scope="session")
def cache_ops(ops: Any) -> Any:
    """``torch.ops._C_cache_ops``."""
    assert ops is not None
    return torch.ops._C_cache_ops


@pytest.fixture(scope="session")
def moe(ops: Any) -> Any:
    """``torch.ops._moe_C``."""
    assert ops is not None
    return torch.ops._moe_C


@pytest.fixture(
    scope="session", params=list(TOLERANCE), ids=lambda dtype: str(dtype).removeprefix("torch.")
)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


#: Bits of NaN: the usual one, with the sign, with a payload, with all bits set, signalling.
NAN_BITS = {
    torch.float32: (0x7FC00000, 0xFFC00000, 0x7FC00001, 0xFFFFFFFF, 0x7F800001),
    torch.bfloat16: (0x7FC0, 0xFFC0, 0x7FC1, 0xFFFF, 0x7F81),
    torch.float16: (0x7E00, 0xFE00, 0x7E01, 0xFFFF, 0x7C01),
}


def nans(dtype: torch.dtype) -> torch.Tensor:
    """All kinds of NaN in the dtype."""
    size = 8 * dtype.itemsize
    bits = [b - (1 << size) if b >> (size - 1) else b for b in NAN_BITS[dtype]]
    return torch.tensor(bits, dtype=torch.int32 if size == 32 else torch.int16).view(dtype)


@pytest.fixture(scope="session")
def rows_with_nan() -> Callable[..., torch.Tensor]:
    """Makes rows with NaN.

    NaN is in each position by itself, next to infinities, alone among infinities, and in all
    positions. Numbers differ by more than the dtype's rounding, so their order is unambiguous.
    """

    def make(width: int, dtype: torch.dtype, *, positions: int | None = None) -> torch.Tensor:
        """Make shuffled rows. ``positions`` is their number, spread over the row; default: all."""
        places = (
            torch.arange(width)
            if positions is None
            else torch.linspace(0, width - 1, positions).long()
        )
        count = len(places)
        numbers = ((torch.rand(count, width).argsort(-1) - width / 2) / 16).to(dtype)
        plus, minus = (torch.full_like(numbers, value) for value in (math.inf, -math.inf))
        each = torch.arange(count)
        before, behind = numbers.clone(), numbers.clone()
        before[each, (places - 1) % width] = math.inf
        behind[each, (places + 1) % width] = -math.inf
        both = behind.clone()
        both[each, (places + width // 2) % width] = math.inf
        made = []
        for nan in nans(dtype):
            for context in (numbers, plus, minus, before, behind, both):
                rows = context.clone()
                # Copies bits: an assignment of a number may lose the payload.
                rows[each, places] = nan
                made.append(rows)
            made.append(nan.expand(1, width))
        rows = torch.cat(made)
        return rows[torch.randperm(len(rows))].contiguous()

    return make


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
    """Makes a tensor with random memory around and between its rows.

    The last dimension is contiguous.
    """

    def make(
        shape: tuple[int, ...],
        dtype: torch.dtype,
        *,
        pad: int,
        order: tuple[int, ...] | None = None,
    ) -> torch.Tensor:
        """``order``: leading dimensions as they are in memory; ``pad``: elements between rows."""
        leading = len(shape) - 1
        order = order or tuple(range(leading))
        memory = torch.randn(*[shape[i] for i in order], shape[-1] + pad).to(dtype)
        view = memory.permute(*[order.index(i) for i in range(leading)], leading)
        return view[..., pad // 2 : pad // 2 + shape[-1]]

    return make


@pytest.fixture(scope="session")
def check_sums() -> Callable[..., None]:
    """Compares a product of matrices with float64."""

    def close(
        got: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        factor: float = 1.0,
        terms: float = 1.0,
    ) -> None:
        """Compare with ``b @ a.T * factor + bias`` in float64.

        The bound is half a unit of the result's rounding, and some units of float32 for the sum of
        the magnitudes that were added; ``terms`` is their ratio to the products.
        """
        x, y = a.double(), b.double()
        exact = y @ x.t() * factor
        want = exact + (0 if bias is None else bias.double())
        assert got.shape == want.shape
        size = y.abs() @ x.abs().t() * abs(factor) * terms
        rounding = torch.finfo(got.dtype).eps / 2 * 1.001
        room = rounding * want.abs() + 2.0**-20 * size + 2.0**-22 * want.abs() + 1e-7
        off = (got.double() - want).abs() - room
        assert got.isfinite().all()
        if off.numel():
            place = divmod(int(off.argmax()), got.shape[1])
            assert off.max() <= 0, (
                f"{off.max()} above the bound at {place}: {got[place]}, {want[place]}"
            )

    return close
