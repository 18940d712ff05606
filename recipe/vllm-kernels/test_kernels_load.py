# SPDX-License-Identifier: Apache-2.0
"""Loads the kernels into libtorch and computes with them if libtorch supports their device.

This does not use torch's Python part, so it runs under any interpreter, even one without a torch
build. The calls go through the C functions of libtorch's stable ABI
(``torch/csrc/stable/c/shim.h``), so the dispatcher reports a wrong name, argument count or argument
type.
"""

from __future__ import annotations

import ctypes
import json
import math
import struct
import sys
import sysconfig
from pathlib import Path

#: The version of the stable ABI that the calls below use: 2.13, major in the highest byte.
ABI_VERSION = (2 << 56) | (13 << 48)
FLOAT32, INT64, CPU = 6, 4, 0
#: Maximum relative error. Reordering float32 arithmetic causes a much smaller one.
TOLERANCE = 1e-4
Shape = tuple[int, ...]


class Libtorch:
    """The few C calls that create tensors and run operators."""

    def __init__(self, prefix: Path) -> None:
        self.lib = ctypes.CDLL(str(prefix / "lib" / "libtorch_cpu.so"), mode=ctypes.RTLD_GLOBAL)
        self.buffers: list[ctypes.Array[ctypes.c_float] | ctypes.Array[ctypes.c_int64]] = []

    def tensor(
        self, buffer: ctypes.Array[ctypes.c_float] | ctypes.Array[ctypes.c_int64], shape: Shape
    ) -> int:
        """Make a contiguous tensor over ``buffer``; the function that gets the handle owns it."""
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        integers = ctypes.c_int64 * len(shape)
        handle = ctypes.c_void_p()
        dtype = FLOAT32 if buffer._type_ is ctypes.c_float else INT64
        arguments = (
            ctypes.c_int64(len(shape)),
            integers(*shape),
            integers(*strides),
            ctypes.c_int64(0),
            dtype,
            CPU,
            0,
            ctypes.byref(handle),
        )
        if self.lib.aoti_torch_create_tensor_from_blob(ctypes.byref(buffer), *arguments):
            message = f"libtorch cannot make a tensor of shape {shape}"
            raise RuntimeError(message)
        return handle.value or 0

    def optional(self, value: int) -> int:
        """Wrap ``value`` as the argument of an optional parameter."""
        cell = ctypes.POINTER(ctypes.c_uint64)()
        if self.lib.torch_new_stable_ivalue(ctypes.byref(cell)):
            message = "libtorch cannot make an optional value"
            raise RuntimeError(message)
        cell[0] = value
        return ctypes.cast(cell, ctypes.c_void_p).value or 0

    def call(self, name: str, *arguments: float) -> bool:
        """Run an operator; floats are passed as doubles, and other arguments unchanged.

        Returns:
            False if the dispatcher refuses the call.
        """
        values = [
            struct.unpack("<Q", struct.pack("<d", a))[0] if isinstance(a, float) else int(a)
            for a in arguments
        ]
        stack = (ctypes.c_uint64 * max(len(values), 1))(*values)
        return (
            self.lib.torch_call_dispatcher(name.encode(), b"", stack, ctypes.c_uint64(ABI_VERSION))
            == 0
        )


def floats(values: list[float]) -> ctypes.Array[ctypes.c_float]:
    """Make a float32 buffer of the values."""
    return (ctypes.c_float * len(values))(*values)


def silu(x: float) -> float:
    """X * sigmoid(x)."""
    return x / (1 + math.exp(-x))


def gelu(x: float) -> float:
    """X * Phi(x)."""
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def gelu_tanh(x: float) -> float:
    """The tanh form of GELU."""
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


GATED = {"silu_and_mul": silu, "gelu_and_mul": gelu, "gelu_tanh_and_mul": gelu_tanh}
PLAIN = {
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_quick": lambda x: x / (1 + math.exp(-1.702 * x)),
}


def close(name: str, got: list[float], want: list[float]) -> bool:
    """Whether the values agree within ``TOLERANCE``; prints the result."""
    worst = max(abs(g - w) / (1e-5 + abs(w)) for g, w in zip(got, want, strict=True))
    print(f"  {name}: {'ok' if worst < TOLERANCE else 'WRONG'}, largest relative error {worst:.1e}")
    return worst < TOLERANCE


def check(torch: Libtorch) -> bool:
    """Compute with every operator on two rows whose width is no multiple of a vector's."""
    rows, width = 2, 13
    x = [math.sin(0.7 * i) * 3 for i in range(rows * width * 2)]
    good = True
    for name, function in GATED.items():
        out, source = floats([0.0] * rows * width), floats(x)
        good &= torch.call(
            f"_C::{name}", torch.tensor(out, (rows, width)), torch.tensor(source, (rows, 2 * width))
        )
        good &= close(
            name,
            list(out),
            [
                function(x[r * 2 * width + c]) * x[r * 2 * width + width + c]
                for r in range(rows)
                for c in range(width)
            ],
        )
    for name, function in PLAIN.items():
        out, source = floats([0.0] * len(x)), floats(x)
        good &= torch.call(
            f"_C::{name}",
            torch.tensor(out, (rows, 2 * width)),
            torch.tensor(source, (rows, 2 * width)),
        )
        good &= close(name, list(out), [function(v) for v in x])

    a, b, weight, epsilon = (
        x[: rows * width],
        x[rows * width :],
        [1 + 0.1 * i for i in range(width)],
        1e-6,
    )

    def normalised(values: list[float]) -> list[float]:
        scale = [
            1 / math.sqrt(sum(v * v for v in values[r * width : (r + 1) * width]) / width + epsilon)
            for r in range(rows)
        ]
        return [
            values[r * width + c] * scale[r] * weight[c] for r in range(rows) for c in range(width)
        ]

    out, source, w = floats([0.0] * rows * width), floats(a), floats(weight)
    shape = (rows, width)
    good &= torch.call(
        "_C::rms_norm",
        torch.tensor(out, shape),
        torch.tensor(source, shape),
        torch.optional(torch.tensor(w, (width,))),
        epsilon,
    )
    good &= close("rms_norm", list(out), normalised(a))
    source, residual = floats(a), floats(b)
    weights = torch.optional(torch.tensor(w, (width,)))
    good &= torch.call(
        "_C::fused_add_rms_norm",
        torch.tensor(source, shape),
        torch.tensor(residual, shape),
        weights,
        epsilon,
    )
    total = [p + q for p, q in zip(a, b, strict=True)]
    good &= close("fused_add_rms_norm", list(source), normalised(total)) and close(
        "fused_add_rms_norm residual", list(residual), total
    )
    return good & check_rotary(torch)


def check_refusal(torch: Libtorch) -> bool:
    """Check that GPU kernels with a libtorch for the CPU refuse tensors in CPU memory."""
    out, source = floats([0.0] * 4), floats([1.0] * 8)
    called = torch.call("_C::silu_and_mul", torch.tensor(out, (1, 4)), torch.tensor(source, (1, 8)))
    print(
        f"  silu_and_mul of CPU tensors: {'CALLED' if called else 'refused'}; nothing was "
        "computed, because there is no GPU"
    )
    return not called


def check_rotary(torch: Libtorch) -> bool:
    """Rotate one head of 8 at two positions, neox order, without a key."""
    size, half = 8, 4
    query = [math.cos(0.3 * i) for i in range(2 * size)]
    angles = [[(p + 1) * 0.5**i for i in range(half)] for p in range(4)]
    cache = floats([f(a) for row in angles for f in (math.cos, math.sin) for a in row])
    positions = (ctypes.c_int64 * 2)(1, 3)
    rotated = floats(query)
    arguments = (
        torch.tensor(positions, (2,)),
        torch.tensor(rotated, (2, size)),
        0,
        size,
        torch.tensor(cache, (4, size)),
        1,
        0,
        0,
    )
    called = torch.call("_C::rotary_embedding", *arguments)
    want = []
    for token, position in enumerate((1, 3)):
        x, y = (
            query[token * size : token * size + half],
            query[token * size + half : (token + 1) * size],
        )
        sines = [(math.cos(a), math.sin(a)) for a in angles[position]]
        want += [p * c - q * s for p, q, (c, s) in zip(x, y, sines, strict=True)] + [
            q * c + p * s for p, q, (c, s) in zip(x, y, sines, strict=True)
        ]
    return called & close("rotary_embedding", list(rotated), want)


def main() -> int:
    """Load every library in the package's record, compute, and return the exit status."""
    site = Path(sysconfig.get_path("purelib"))
    info = json.loads(
        (site / "vllm" / "_build_info" / "vllm-kernels.json").read_text(encoding="utf-8")
    )
    torch = Libtorch(Path(sys.prefix))
    if torch.call("_C::silu_and_mul"):
        print("silu_and_mul exists before the kernels are loaded, so this test proves nothing")
        return 1
    for extension in info["extensions"]:
        ctypes.CDLL(str(site / extension["file"]))
    threads = "free-threaded " if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    print(
        f"{threads}Python {sys.version.split()[0]}, {len(info['extensions'])} libraries, kernels "
        f"{info['kernel_digest'][:12]}"
    )
    return 0 if (check if info["device"] == "cpu" else check_refusal)(torch) else 1


if __name__ == "__main__":
    sys.exit(main())
