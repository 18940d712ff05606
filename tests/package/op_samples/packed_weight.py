# SPDX-License-Identifier: Apache-2.0
"""Sample calls with packed weights; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

import torch

_WEIGHT = torch.linspace(-1, 1, 140).view(20, 7)


def _packed(weight: torch.Tensor) -> torch.Tensor:
    """What csrc/bindings/packed_weight.cc and csrc/gemm/panels.h define for float32."""
    header = torch.zeros(8, dtype=torch.int64)
    header[:3] = torch.tensor([0x7468676965577076, *weight.shape])
    panels = torch.zeros(32 * 32)
    used = torch.cat([weight[first : first + 16].t().flatten() for first in (0, 16)])
    panels[: used.numel()] = used
    return torch.cat((header.view(torch.float32), panels))


SAMPLES = {
    "convert_weight_packed": (
        lambda: (_WEIGHT.clone(),),
        lambda weight: {"return": _packed(weight)},
    ),
    "weight_packed_linear": (
        lambda: (torch.empty(3, 20), torch.randn(3, 7), _packed(_WEIGHT), torch.randn(20), True),
        lambda _out, x, _packed, bias, _vnni: {0: x @ _WEIGHT.t() + bias},
    ),
}
