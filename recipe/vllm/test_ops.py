# SPDX-License-Identifier: Apache-2.0
"""Compares operators of the installed package with torch's in each dtype.

The width is no multiple of a vector's. If torch sees no GPU, GPU kernels are only loaded and their
operators looked up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from vllm._kernels import loader, ops
from vllm._kernels.platforms import current_platform

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def close(name: str, got: torch.Tensor, want: torch.Tensor) -> None:
    """Raise an error if ``got`` differs too much for its dtype from the float64 reference."""
    tolerance = TOLERANCE[got.dtype]
    torch.testing.assert_close(
        got.double(),
        want,
        rtol=tolerance,
        atol=tolerance,
        msg=lambda text: f"{name} {got.dtype}: {text}",
    )


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding in neox order, float64."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def registered(key: str) -> list[str]:
    """List the installed operators that have an implementation for a dispatch key."""
    spaces = {space for name in loader.load() for space in loader.LIBRARIES[name].namespaces}
    every = [
        name
        for name in torch._C._dispatch_get_all_op_names()  # noqa: SLF001 - no public list
        if name.partition("::")[0] in spaces
    ]
    return [name for name in every if torch._C._dispatch_has_kernel_for_dispatch_key(name, key)]  # noqa: SLF001 - as above


def main() -> None:
    """Check all operators.

    Raises:
        SystemExit, AssertionError: an operator is missing or computes wrong.
    """
    found = registered(current_platform.dispatch_key)
    if not {"_C::silu_and_mul", "_C::rms_norm", "_C::rotary_embedding"} <= set(found):
        raise SystemExit(
            f"operators are missing for {current_platform.dispatch_key}: only {found} are there"
        )
    if current_platform.is_cuda_alike() and not torch.cuda.is_available():
        device = current_platform.device_name
        print(
            f"{len(found)} operators are registered for {device}; none was run, because torch "
            f"{torch.__version__} sees no GPU"
        )
        return
    torch.set_default_device(current_platform.device_type)
    torch.manual_seed(0)
    width = 769
    for dtype in TOLERANCE:
        x = torch.randn(5, 2 * width).to(dtype)
        a, b = x.double().chunk(2, -1)
        for name, reference in (
            ("silu_and_mul", F.silu(a) * b),
            ("gelu_and_mul", F.gelu(a) * b),
            ("gelu_tanh_and_mul", F.gelu(a, approximate="tanh") * b),
        ):
            out = torch.empty(5, width, dtype=dtype)
            getattr(ops, name)(out, x)
            close(name, out, reference)
        tanh = F.gelu(x.double(), approximate="tanh")
        for name, reference in (
            ("gelu_new", tanh),
            ("gelu_fast", tanh),
            ("gelu_quick", x.double() * torch.sigmoid(1.702 * x.double())),
        ):
            out = torch.empty_like(x)
            getattr(ops, name)(out, x)
            close(name, out, reference)
        y, weight = torch.randn(5, width).to(dtype), torch.rand(width).to(dtype)
        out = torch.empty_like(y)
        ops.rms_norm(out, y, weight, 1e-6)
        close("rms_norm", out, F.rms_norm(y.double(), (width,), weight.double(), 1e-6))
        residual = torch.randn(5, width).to(dtype)
        total = (y.double() + residual.double()).to(dtype)
        ops.fused_add_rms_norm(y, residual, weight, 1e-6)
        close("fused_add_rms_norm residual", residual, total.double())
        close("fused_add_rms_norm", y, F.rms_norm(total.double(), (width,), weight.double(), 1e-6))
        size, positions = 64, torch.tensor([3, 0, 9])
        angle = torch.outer(torch.arange(16.0), 1e4 ** (-torch.arange(0, size, 2) / size))
        cache = torch.cat([angle.cos(), angle.sin()], -1).to(dtype)
        query, key = torch.randn(3, 4 * size).to(dtype), torch.randn(3, 2 * size).to(dtype)
        cos, sin = cache[positions].double().unsqueeze(1).chunk(2, -1)
        want = [rotate(t.double().view(3, -1, size), cos, sin).view(3, -1) for t in (query, key)]
        ops.rotary_embedding(positions, query, key, size, cache, is_neox=True)
        close("rotary_embedding query", query, want[0])
        close("rotary_embedding key", key, want[1])
    print(
        f"all operators agree with torch {torch.__version__} in "
        f"{', '.join(str(d) for d in TOLERANCE)}"
    )


if __name__ == "__main__":
    main()
