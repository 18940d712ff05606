# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from hypothesis import given
from hypothesis import strategies as st
from row_cases import LEADING, PADS, SHAPES, orders

if TYPE_CHECKING:
    from collections.abc import Callable

    from row_cases import Check, Strided


def quick(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


def tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def exact_gelu(x: torch.Tensor) -> torch.Tensor:
    # erfc keeps the relative precision of the lower tail, which 1 + erf loses even in float64.
    return 0.5 * x * torch.special.erfc(-x / math.sqrt(2))


GATED = {"silu_and_mul": F.silu, "gelu_and_mul": exact_gelu, "gelu_tanh_and_mul": tanh_gelu}
PLAIN = {"gelu_new": tanh_gelu, "gelu_tanh": tanh_gelu, "gelu_fast": tanh_gelu, "gelu_quick": quick}
WIDTHS = st.integers(1, 80)


def gated_reference(name: str, x: torch.Tensor) -> torch.Tensor:
    gate, factor = x.double().chunk(2, -1)
    return GATED[name](gate) * factor


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated(
    ops: Any, check: Check, dtype: torch.dtype, name: str, shape: tuple[int, int]
) -> None:
    x = (torch.randn(shape[0], 2 * shape[1]) * 3).to(dtype)
    out = torch.full(shape, math.nan, dtype=dtype)
    getattr(ops, name)(out, x)
    check(out, gated_reference(name, x))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("shape", [*SHAPES, (), (3,), (2, 3, 5)], ids=str)
def test_plain(
    ops: Any, check: Check, dtype: torch.dtype, name: str, shape: tuple[int, ...]
) -> None:
    x = (torch.randn(shape) * 3).to(dtype)
    out = torch.full(shape, math.nan, dtype=dtype)
    getattr(ops, name)(out, x)
    check(out, PLAIN[name](x.double()))


@pytest.mark.parametrize("name", GATED)
@given(
    leading=LEADING,
    width=WIDTHS,
    pads=PADS,
    data=st.data(),
)
def test_gated_strided(
    ops: Any,
    check: Check,
    *,
    strided: Strided,
    dtype: torch.dtype,
    name: str,
    leading: list[int],
    width: int,
    pads: tuple[int, int],
    data: Any,
) -> None:
    x = strided((*leading, 2 * width), dtype, pad=pads[0], order=data.draw(orders(leading)))
    out = strided((*leading, width), dtype, pad=pads[1], order=data.draw(orders(leading)))
    check_untouched = untouched(out)
    want = gated_reference(name, x)
    getattr(ops, name)(out, x)
    check(out, want)
    check_untouched()


@pytest.mark.parametrize("name", PLAIN)
@given(
    leading=LEADING,
    width=WIDTHS,
    pads=PADS,
    data=st.data(),
)
def test_plain_strided(
    ops: Any,
    check: Check,
    *,
    strided: Strided,
    dtype: torch.dtype,
    name: str,
    leading: list[int],
    width: int,
    pads: tuple[int, int],
    data: Any,
) -> None:
    x = strided((*leading, width), dtype, pad=pads[0], order=data.draw(orders(leading)))
    out = strided((*leading, width), dtype, pad=pads[1], order=data.draw(orders(leading)))
    check_untouched = untouched(out)
    want = PLAIN[name](x.double())
    getattr(ops, name)(out, x)
    check(out, want)
    check_untouched()


def untouched(out: torch.Tensor) -> Callable[[], None]:
    """Remember the memory around a view; the returned function asserts that it is unchanged."""
    memory = out._base if out._base is not None else out
    before = memory.clone()

    def compare() -> None:
        after = memory.clone()
        offset = out.storage_offset() - memory.storage_offset()
        for image in (before, after):
            image.as_strided(out.shape, out.stride(), offset).zero_()
        assert torch.equal(before, after)

    return compare


@pytest.mark.parametrize("name", PLAIN)
def test_in_place(ops: Any, check: Check, dtype: torch.dtype, name: str) -> None:
    x = torch.randn(5, 769).to(dtype)
    want = PLAIN[name](x.double())
    getattr(ops, name)(x, x)
    check(x, want)


@pytest.mark.parametrize("name", [*GATED, *PLAIN])
def test_extreme_values(ops: Any, check: Check, dtype: torch.dtype, name: str) -> None:
    """Extreme values are handled.

    Intermediate results do not overflow, tails keep their relative precision, NaN stays NaN, and
    zeros keep their sign.
    """
    largest = torch.finfo(dtype).max
    x = torch.cat(
        [
            torch.linspace(-20, 20, 4001),
            torch.tensor([0.0, -0.0, largest, -largest, 1e4, -1e4, math.inf, math.nan]),
        ]
    ).to(dtype)
    out = torch.empty_like(x)
    if name in GATED:
        getattr(ops, name)(out, torch.cat([x, torch.ones_like(x)]))
        want = GATED[name](x.double())
    else:
        getattr(ops, name)(out, x)
        want = PLAIN[name](x.double())
    finite = want.isfinite()
    check(out[finite], want[finite])
    assert torch.equal(out[~finite].isnan(), want[~finite].isnan())
    assert out[-2].item() == math.inf
    assert torch.equal(out[4001:4003].signbit(), x[4001:4003].signbit())


@pytest.mark.parametrize("name", ["silu_and_mul", "gelu_and_mul"])
def test_lower_tail_is_relatively_exact(ops: Any, name: str) -> None:
    gate = torch.linspace(-12, -2, 1001)
    out = torch.empty_like(gate)
    getattr(ops, name)(out, torch.cat([gate, torch.ones_like(gate)]))
    torch.testing.assert_close(out.double(), GATED[name](gate.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", [*GATED, *PLAIN])
def test_threads_change_no_bit(ops: Any, dtype: torch.dtype, name: str) -> None:
    x = torch.randn(37, 2 * 1031).to(dtype)
    width = 1031 if name in GATED else 2062
    many, one = torch.empty(37, width, dtype=dtype), torch.empty(37, width, dtype=dtype)
    getattr(ops, name)(many, x)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        getattr(ops, name)(one, x)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(many, one)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "out too narrow": (
        lambda: (torch.empty(2, 3), torch.empty(2, 8)),
        r"(result|out) has shape \[2, 3\], expected \[2, 4\]",
    ),
    "out of other rank": (
        lambda: (torch.empty(2, 1, 4), torch.empty(2, 8)),
        r"(result|out) has shape \[2, 1, 4\], expected \[2, 4\]",
    ),
    "odd input": (
        lambda: (torch.empty(2, 3), torch.empty(2, 7)),
        r"input has shape \[2, 7\], expected an even last dimension",
    ),
    "scalar input": (lambda: (torch.empty(()), torch.empty(())), r"input has no dimension"),
    "float64": (
        lambda: (torch.empty(2, 4).double(), torch.empty(2, 8).double()),
        r"input is of dtype Double, expected Float, BFloat16 or Half",
    ),
    "mixed dtypes": (
        lambda: (torch.empty(2, 4).half(), torch.empty(2, 8)),
        r"(result|out) is of dtype Half, expected Float, the dtype of input",
    ),
    "strided last dimension": (
        lambda: (torch.empty(2, 4), torch.empty(2, 16)[:, ::2]),
        r"input has strides \[16, 2\], expected stride 1",
    ),
    "out over itself": (
        lambda: (torch.empty(1, 4).expand(2, 4), torch.empty(2, 8)),
        r"(result|out) has strides \[0, 1\], expected separate memory",
    ),
}


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("case", BAD)
def test_bad_gated_arguments(ops: Any, name: str, case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(RuntimeError, match=f"^{name}: {message}"):
        getattr(ops, name)(*make())


@pytest.mark.parametrize("name", PLAIN)
def test_bad_plain_arguments(ops: Any, name: str) -> None:
    op = getattr(ops, name)
    with pytest.raises(RuntimeError, match=rf"^{name}: out has shape \[2, 4\], expected \[2, 8\]"):
        op(torch.empty(2, 4), torch.empty(2, 8))
    with pytest.raises(RuntimeError, match=rf"^{name}: input is of dtype Long"):
        op(torch.empty(2, 8), torch.ones(2, 8, dtype=torch.long))
    with pytest.raises(
        RuntimeError, match=rf"^{name}: input has strides \[1, 2\], expected stride 1"
    ):
        op(torch.empty(2, 8), torch.empty(8, 2).t())


def test_too_many_strides(ops: Any) -> None:
    x = torch.empty(*[4] * 7, 4)[::2, ::2, ::2, ::2, ::2, ::2, ::2]
    with pytest.raises(RuntimeError, match="at most 6 leading dimensions after merging"):
        ops.silu_and_mul(torch.empty(*[2] * 7, 2), x)


def test_meta_tensor_among_cpu_tensors(ops: Any) -> None:
    with pytest.raises(RuntimeError, match="result is not on the CPU"):
        ops.silu_and_mul.default._handle.redispatch_boxed(
            torch._C.DispatchKeySet(torch._C.DispatchKey.CPU),
            torch.empty(2, 4, device="meta"),
            torch.empty(2, 8),
        )
