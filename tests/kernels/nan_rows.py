# SPDX-License-Identifier: Apache-2.0
"""Rows with NaN for the tests of several files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    RowsWithNan = Callable[..., torch.Tensor]


#: Only a tail, whole vectors and a tail on every target, and more than a kernel's block.
WIDTHS = [1, 7, 32, 67, 150]


FLT_MAX = torch.finfo(torch.float32).max


@pytest.fixture(name="x", params=WIDTHS)
def rows_of_each_width(
    request: pytest.FixtureRequest, rows_with_nan: RowsWithNan, dtype: torch.dtype
) -> torch.Tensor:
    return rows_with_nan(request.param, dtype)
