# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from float8 import E4M3, SCALED

if TYPE_CHECKING:
    from row_cases import Strided


#: Tokens, columns, elements of a group: vectors and tails of any target, groups that are no
#: multiple of a vector, empty.
SIZES = [
    (1, 128, 128),
    (3, 256, 64),
    (83, 512, 128),
    (5, 30, 3),
    (4, 77, 77),
    (2, 35, 5),
    (1, 1, 1),
    (0, 128, 64),
    (300, 1024, 128),
]
#: Dtype of the result, smallest and largest quotient.
KINDS = [
    (E4M3, -SCALED[E4M3], SCALED[E4M3]),
    (torch.float8_e5m2, -57344.0, 57344.0),
    (torch.int8, -128.0, 127.0),
]


@pytest.fixture(params=KINDS, ids=["e4m3", "e5m2", "int8"], scope="session")
def kind(request: pytest.FixtureRequest) -> tuple[torch.dtype, float, float]:
    chosen: tuple[torch.dtype, float, float] = request.param
    return chosen


def quantize(
    ops: Any,
    x: torch.Tensor,
    q: torch.Tensor,
    s: torch.Tensor,
    size: int,
    limits: tuple[float, float],
    **more: Any,
) -> None:
    eps = more.get("eps", 1e-10)
    if q.dtype == torch.int8:
        ops.per_token_group_quant_int8(x, q, s, size, eps, *limits)
    else:
        ops.per_token_group_fp8_quant(
            x, q, s, size, eps, *limits, more.get("ue8m0", False), False, False
        )


def scales_of(x: torch.Tensor, size: int, high: float, eps: float = 1e-10) -> torch.Tensor:
    groups = x.float().nan_to_num(0.0, posinf=math.inf, neginf=-math.inf).unflatten(-1, (-1, size))
    return groups.abs().amax(-1).clamp(min=eps) / high


def quotients(
    x: torch.Tensor, scales: torch.Tensor, size: int, q: torch.Tensor, limits: tuple[float, float]
) -> torch.Tensor:
    values = (x.float() / scales.repeat_interleave(size, -1)).clamp(*limits)
    if q.dtype == torch.int8:
        return values.nan_to_num(0.0).trunc().to(torch.int8)
    return values.to(q.dtype)


def same(got: torch.Tensor, want: torch.Tensor) -> bool:
    number = ~want.double().isnan()
    return bool(
        torch.equal(got.double().isnan(), ~number)
        and torch.equal(got.view(torch.uint8)[number], want.view(torch.uint8)[number])
    )


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_groups(
    ops: Any,
    dtype: torch.dtype,
    kind: tuple[torch.dtype, float, float],
    sizes: tuple[int, int, int],
) -> None:
    tokens, columns, size = sizes
    x = (torch.randn(tokens, columns) * torch.logspace(-3, 3, columns)).to(dtype)
    q, s = (
        torch.empty(tokens, columns, dtype=kind[0]),
        torch.full((tokens, columns // size), math.nan),
    )
    quantize(ops, x, q, s, size, kind[1:])
    assert torch.equal(s, scales_of(x, size, kind[2]))
    assert same(q, quotients(x, s, size, q, kind[1:]))


def test_scales_in_columns(ops: Any, kind: tuple[torch.dtype, float, float]) -> None:
    """Column-major scales with padding, as matrix products need them; nothing else is written."""
    x = torch.randn(5, 3 * 64)
    q = torch.empty(x.shape, dtype=kind[0])
    memory = torch.full((3, 8), math.nan)
    quantize(ops, x, q, memory.t()[:5], 64, kind[1:])
    assert torch.equal(memory[:, :5].t(), scales_of(x, 64, kind[2]))
    assert memory[:, 5:].isnan().all()
    assert same(q, quotients(x, memory[:, :5].t(), 64, q, kind[1:]))


def test_more_dimensions_and_strides(
    ops: Any, strided: Strided, dtype: torch.dtype, kind: tuple[torch.dtype, float, float]
) -> None:
    x = strided((2, 3, 48), dtype, pad=5, order=(1, 0))
    q = strided((2, 3, 48), kind[0], pad=7)
    s, flat = torch.empty(2, 3, 3), torch.empty(6, 3)
    quantize(ops, x, q, s, 16, kind[1:])
    want = scales_of(x, 16, kind[2])
    assert torch.equal(s, want)
    assert same(q.contiguous(), quotients(x, s, 16, q, kind[1:]).contiguous())
    quantize(ops, x, q, flat, 16, kind[1:])
    assert torch.equal(flat.view(2, 3, 3), want)


def test_least_maximum(
    ops: Any, dtype: torch.dtype, kind: tuple[torch.dtype, float, float]
) -> None:
    x = torch.zeros(2, 32, dtype=dtype)
    q, s = torch.empty(2, 32, dtype=kind[0]), torch.empty(2, 2)
    quantize(ops, x, q, s, 16, kind[1:], eps=0.5)
    assert torch.equal(s, torch.full((2, 2), 0.5) / kind[2])
    assert not q.view(torch.uint8).any()


def test_scales_of_powers_of_two(ops: Any, dtype: torch.dtype) -> None:
    x = torch.cat(
        [
            torch.randn(50, 32) * 10 ** torch.linspace(-4, 4, 50)[:, None],
            torch.full((1, 32), SCALED[E4M3] / 64),
            torch.zeros(1, 32),
        ]
    )
    x = x.to(dtype)
    q, s = torch.empty(x.shape, dtype=E4M3), torch.empty(len(x), 2)
    quantize(ops, x, q, s, 16, (-SCALED[E4M3], SCALED[E4M3]), ue8m0=True)
    mantissa, exponent = torch.frexp(scales_of(x, 16, SCALED[E4M3]).clamp(min=1e-10))
    want = torch.ldexp(torch.ones_like(s), torch.where(mantissa == 0.5, exponent - 1, exponent))
    assert torch.equal(s, want)
    assert s[50, 0].item() == 1 / 64
    assert same(q, quotients(x, s, 16, q, (-SCALED[E4M3], SCALED[E4M3])))


def test_narrower_limits(ops: Any, dtype: torch.dtype) -> None:
    """The range of another format, such as 240, and a lower limit that truncates."""
    x = torch.randn(7, 64).to(dtype)
    q, s = torch.empty(7, 64, dtype=E4M3), torch.empty(7, 2)
    quantize(ops, x, q, s, 32, (-100.0, 240.0))
    assert torch.equal(s, scales_of(x, 32, 240.0))
    assert same(q, quotients(x, s, 32, q, (-100.0, 240.0)))


def test_nan_and_infinity(
    ops: Any, dtype: torch.dtype, kind: tuple[torch.dtype, float, float]
) -> None:
    x = torch.randn(2, 64).to(dtype)
    x[0, 3], x[1, 40] = math.nan, -math.inf
    q, s = torch.empty(2, 64, dtype=kind[0]), torch.empty(2, 2)
    quantize(ops, x, q, s, 32, kind[1:])
    assert torch.equal(s, scales_of(x, 32, kind[2]))
    assert same(q, quotients(x, s, 32, q, kind[1:]))


BAD = {
    "size that does not divide": (
        {"group_size": 5},
        r"input has shape \[4, 32\] and group_size is 5, expected a group_size that divides",
    ),
    "size of zero": ({"group_size": 0}, r"input has shape \[4, 32\] and group_size is 0"),
    "scales too few": (
        {"output_s": torch.ones(4, 1)},
        r"output_s has shape \[4, 1\], expected \[4, 2\]",
    ),
    "scales of half": (
        {"output_s": torch.ones(4, 2).half()},
        "output_s is of dtype Half, expected Float",
    ),
    "scales over themselves": (
        {"output_s": torch.ones(1, 2).expand(4, 2)},
        r"output_s has strides \[0, 1\]",
    ),
    "result of other shape": (
        {"output_q": lambda q: q[:, :31]},
        r"output_q has shape \[4, 31\], expected \[4, 32\]",
    ),
    "result of floats": ({"output_q": torch.ones(4, 32)}, "output_q is of dtype Float, expected"),
    "columns": ({"input": torch.ones(32, 4).t()}, r"input has strides \[1, 4\]"),
    "limits": (
        {"low": 3.0, "high": 2.0},
        r"(fp8|int8)_min is 3.0* and (fp8|int8)_max is 2.0*, expected",
    ),
    "no upper limit": (
        {"high": 0.0},
        r"(fp8|int8)_min is -1.0* and (fp8|int8)_max is 0.0*, expected",
    ),
}


@pytest.mark.parametrize("name", ["per_token_group_fp8_quant", "per_token_group_quant_int8"])
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, name: str, case: str) -> None:
    changes, message = BAD[case]
    fp8 = "fp8" in name
    arguments: dict[str, Any] = {
        "input": torch.ones(4, 32),
        "output_q": torch.empty(4, 32, dtype=E4M3 if fp8 else torch.int8),
        "output_s": torch.empty(4, 2),
        "group_size": 16,
        "eps": 1e-10,
        "low": -1.0,
        "high": 1.0,
    }
    for key, value in changes.items():
        arguments[key] = value(arguments[key]) if callable(value) else value
    with pytest.raises(RuntimeError, match=f"^{name}: {message}"):
        getattr(ops, name)(*arguments.values(), *([False, False, False] if fp8 else []))
