# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import row_cases
import torch
from float8 import E4M3, NAME
from hypothesis import given
from hypothesis import strategies as st
from row_cases import LEADING, PADS, orders

if TYPE_CHECKING:
    from row_cases import Strided


#: Without empty rows, whose reference does not exist.
SHAPES = [*(shape for shape in row_cases.SHAPES if shape[-1]), (2, 3, 35)]


def saturated(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(-128, 127).to(torch.int8)


def empty(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.full(shape, 0x5A, dtype=torch.int8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_static(ops: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, scale = (torch.randn(shape) * 40).to(dtype), torch.tensor([0.37])
    out = empty(shape)
    ops.static_scaled_int8_quant(out, x, scale, None)
    assert torch.equal(out, saturated((x.float() / scale).round()))
    ops.static_scaled_int8_quant(out, x, scale, torch.tensor([-19], dtype=torch.int32))
    assert torch.equal(out, saturated((x.float() * (1 / scale)).round() - 19))


@pytest.mark.parametrize("width", [1, 4096])
def test_rounding_and_saturation(ops: Any, width: int) -> None:
    """All integers, all halves between them, neighbours of halves, and values out of range.

    Some values exceed the range of int32.
    """
    halves = torch.arange(-300, 301) / 2
    x = torch.cat(
        [
            halves,
            torch.nextafter(halves, torch.tensor(1e9)),
            torch.nextafter(halves, torch.tensor(-1e9)),
        ]
    )
    x = (
        torch.cat([x, torch.tensor([1e6, -1e6, 3e9, -3e9, 1e38, -1e38, math.inf, -math.inf])])[
            :, None
        ]
        .expand(-1, width)
        .contiguous()
    )
    out = empty(tuple(x.shape))
    ops.static_scaled_int8_quant(out, x, torch.ones(1), None)
    assert torch.equal(out, saturated(x.round()))
    for azp in (0, 5, -128, 2**31 - 1, -(2**31)):
        ops.static_scaled_int8_quant(out, x, torch.ones(1), torch.tensor([azp], dtype=torch.int32))
        assert torch.equal(out, saturated(x.double().round().clamp(-(2**31), 2**31 - 1) + azp)), azp


def test_nan_is_zero(ops: Any, dtype: torch.dtype) -> None:
    x = torch.full((2, 37), math.nan).to(dtype)
    out = empty((2, 37))
    ops.static_scaled_int8_quant(out, x, torch.ones(1), None)
    assert not out.any()
    ops.static_scaled_int8_quant(out, x, torch.ones(1), torch.tensor([-7], dtype=torch.int32))
    assert (out == -7).all()


def check_symmetric(ops: Any, x: torch.Tensor, out: torch.Tensor) -> None:
    scale = torch.full(x.shape[:-1], math.nan)
    ops.dynamic_scaled_int8_quant(out, x, scale, None)
    largest = x.float().nan_to_num(0.0).abs().amax(-1)
    assert torch.equal(scale, largest / 127)
    # Not 127 / largest, which torch computes with a reciprocal.
    factor = torch.where(largest == 0, 0.0, torch.tensor(127.0) / largest)
    assert torch.equal(out, saturated((x.float() * factor[..., None]).round().nan_to_num(0.0)))


def check_asymmetric(ops: Any, x: torch.Tensor, out: torch.Tensor) -> None:
    scale = torch.full(x.shape[:-1], math.nan)
    azp = torch.full(x.shape[:-1], 99, dtype=torch.int32)
    ops.dynamic_scaled_int8_quant(out, x, scale, azp)
    least = x.float().nan_to_num(math.inf, posinf=math.inf, neginf=-math.inf).amin(-1)
    largest = x.float().nan_to_num(-math.inf, posinf=math.inf, neginf=-math.inf).amax(-1)
    same = least == largest
    least, largest = (
        torch.where(same, least.clamp(max=0), least),
        torch.where(same, largest.clamp(min=0), largest),
    )
    assert torch.equal(scale, (largest - least) / 255)
    zero = torch.where(scale == 0, 0.0, (-128 - least / scale).round())
    assert torch.equal(azp, zero.to(torch.int32))
    factor = torch.where(scale == 0, 0.0, 1 / scale)
    rounded = (x.float() * factor[..., None]).round().nan_to_num(0.0)
    assert torch.equal(out, saturated(rounded.double() + azp[..., None]))


@pytest.mark.parametrize("shift", [0.0, 100.0, -1000.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dynamic(ops: Any, dtype: torch.dtype, shape: tuple[int, ...], shift: float) -> None:
    x = (torch.randn(shape) * 20 + shift).to(dtype)
    check_symmetric(ops, x, empty(shape))
    check_asymmetric(ops, x, empty(shape))


@given(
    leading=LEADING,
    width=st.integers(1, 150),
    pads=PADS,
    data=st.data(),
)
def test_strided(
    ops: Any,
    *,
    strided: Strided,
    dtype: torch.dtype,
    leading: list[int],
    width: int,
    pads: tuple[int, int],
    data: Any,
) -> None:
    x = strided((*leading, width), dtype, pad=pads[0], order=data.draw(orders(leading)))
    out = strided((*leading, width), torch.int8, pad=pads[1], order=data.draw(orders(leading)))
    memory = out._base if out._base is not None else out
    before = memory.clone()
    check_symmetric(ops, x, out)
    check_asymmetric(ops, x, out)
    ops.static_scaled_int8_quant(out, x, torch.tensor(0.01), None)
    assert torch.equal(out, saturated((x.float() / 0.01).round()))
    out.zero_()
    before.as_strided(out.shape, out.stride(), out.storage_offset()).zero_()
    assert torch.equal(memory, before)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_rows_of_one_number(ops: Any, dtype: torch.dtype, value: float) -> None:
    """The zero point is in range, and the number comes back."""
    x = torch.full((2, 37), value).to(dtype)
    out, scale, azp = empty((2, 37)), torch.empty(2), torch.empty(2, dtype=torch.int32)
    check_symmetric(ops, x, out)
    check_asymmetric(ops, x, out)
    ops.dynamic_scaled_int8_quant(out, x, scale, azp)
    torch.testing.assert_close((out.int() - azp[:, None]) * scale[:, None], x.float())


def test_nan_is_left_out_of_the_scale(ops: Any, dtype: torch.dtype) -> None:
    x = torch.randn(3, 70).to(dtype)
    x[1, [0, 33, 69]] = math.nan
    check_symmetric(ops, x, empty((3, 70)))
    check_asymmetric(ops, x, empty((3, 70)))


def test_far_from_zero(ops: Any) -> None:
    """A zero point beyond int32: nothing overflows, and the order of the numbers is kept."""
    x = torch.tensor([[1e30, 1.0001e30, 1.0002e30]])
    out, scale, azp = empty((1, 3)), torch.empty(1), torch.empty(1, dtype=torch.int32)
    ops.dynamic_scaled_int8_quant(out, x, scale, azp)
    assert (out[:, 1:] >= out[:, :-1]).all()


BAD = {
    "float8 result": (
        {"result": torch.empty(4, 6, dtype=E4M3)},
        f"result is of dtype {NAME}, expected Char",
    ),
    "result of other shape": (
        {"result": torch.empty(4, 5, dtype=torch.int8)},
        r"result has shape \[4, 5\], expected \[4, 6\]",
    ),
    "integers": ({"input": torch.ones(4, 6, dtype=torch.int32)}, "input is of dtype Int"),
    "columns": ({"input": torch.ones(6, 4).t()}, r"input has strides \[1, 4\]"),
    "half scale": ({"scale": torch.ones(4).half()}, "scale is of dtype Half, expected Float"),
    "wrong number of scales": ({"scale": torch.ones(3)}, r"scale has shape \[3\]"),
    "azp of float": ({"azp": torch.ones(4)}, "azp is of dtype Float, expected Int"),
    "wrong number of azps": ({"azp": torch.ones(3, dtype=torch.int32)}, r"azp has shape \[3\]"),
}


@pytest.mark.parametrize("name", ["static_scaled_int8_quant", "dynamic_scaled_int8_quant"])
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, name: str, case: str) -> None:
    changes, message = BAD[case]
    good = {
        "result": empty((4, 6)),
        "input": torch.ones(4, 6),
        "scale": torch.ones(4) if name.startswith("dynamic") else torch.ones(1),
        "azp": None,
    }
    with pytest.raises(RuntimeError, match=f"^{name}: {message}"):
        getattr(ops, name)(**(good | changes))
