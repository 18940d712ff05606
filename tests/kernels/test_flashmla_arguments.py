# SPDX-License-Identifier: Apache-2.0
"""Errors of attention over a cache of latent rows, its schema and its fake."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from flashmla_batches import PAGE, VALUES, WIDTH, Batch, op

from vllm._kernels import flashmla

#: Same as in conftest.py. The emulation has the library; a GPU may be of another kind.
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")


WHY_NOT = flashmla.is_flashmla_dense_supported()[1] if DEVICE == "cuda" else None


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "q: float32": ({"q": torch.float32}, "q is of dtype Float, expected BFloat16 or Half"),
    "q: 512 wide": (
        {"q": (2, 1, 16, 512)},
        r"q has shape \[2, 1, 16, 512\], expected \[batch, queries, heads, 576\]",
    ),
    "q: three dimensions": ({"q": (2, 16, WIDTH)}, "q has shape"),
    "cache: other dtype": (
        {"kcache": torch.float16},
        "kcache is of dtype Half, expected BFloat16, the dtype of q",
    ),
    "cache: pages of 32": (
        {"kcache": (4, 32, 1, WIDTH)},
        "kcache has shape .* pages of 64 rows that all heads share",
    ),
    "cache: two heads": ({"kcache": (4, PAGE, 2, WIDTH)}, "kcache has shape"),
    "values: 576": ({"head_size_v": 576}, "head_size_v is 576, expected 512"),
    "lengths: int64": ({"seqlens_k": torch.int64}, "seqlens_k is of dtype Long, expected Int"),
    "lengths: one": ({"seqlens_k": (1,)}, "seqlens_k has shape .* a length for each sequence"),
    "table: int64": ({"block_table": torch.int64}, "block_table is of dtype Long, expected Int"),
    "table: one row": ({"block_table": (1, 3)}, "block_table has shape .* a row for each sequence"),
    "metadata alone": (
        {"tile_scheduler_metadata": (2, 8)},
        "given alone, expected both or neither",
    ),
    "metadata: seven": (
        {"tile_scheduler_metadata": (2, 7), "num_splits": (3,)},
        r"tile_scheduler_metadata has shape .* \[parts, 8\]",
    ),
    "metadata: none": (
        {"tile_scheduler_metadata": (0, 8), "num_splits": (3,)},
        r"tile_scheduler_metadata has shape",
    ),
    "splits: two": (
        {"tile_scheduler_metadata": (2, 8), "num_splits": (2,)},
        "num_splits has shape .* one more than the number of sequences",
    ),
    "out: shape": (
        {"out_": (2, 1, 16, 500)},
        "out_ has shape .* the shape of q with 512 elements a head",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    batch = Batch([65, 3], 1, 16, torch.bfloat16)
    given = batch.arguments()
    changed, words = WRONG[name]
    for key, change in changed.items():
        if isinstance(change, torch.dtype):
            given[key] = given[key].to(change)
        elif isinstance(change, tuple):
            dtype = torch.bfloat16 if key in {"q", "kcache", "out_"} else torch.int32
            given[key] = torch.zeros(change, dtype=dtype)
        else:
            given[key] = change
    with pytest.raises(
        RuntimeError,
        match=f"^dense_decode_fwd: {words}" if " has " in words or " is " in words else words,
    ):
        op()(**given)


def test_rows_that_begin_anywhere() -> None:
    batch = Batch([65, 3], 1, 16, torch.bfloat16)
    wide = torch.zeros(2, 1, 16, WIDTH + 4, dtype=torch.bfloat16)[..., :WIDTH]
    with pytest.raises(
        RuntimeError, match=r"q has strides .* rows that begin at multiples of 16 bytes"
    ):
        op()(**batch.arguments() | {"q": wide})
    with pytest.raises(RuntimeError, match=r"out_ has strides .* a contiguous tensor"):
        op()(
            **batch.arguments()
            | {"out_": torch.zeros(2, 1, 16, VALUES + 8, dtype=torch.bfloat16)[..., :VALUES]}
        )


def test_schema_and_fake() -> None:
    """The schema is upstream's 0.33.0; fake tensors have the shapes of real ones."""
    schema = str(op().default._schema)
    assert schema == (
        "_flashmla_C::dense_decode_fwd(Tensor q, Tensor kcache, int head_size_v, Tensor seqlens_k, "
        "Tensor block_table, "
        "float softmax_scale, bool is_causal, Tensor(a)? tile_scheduler_metadata, Tensor(b)? "
        "num_splits, Tensor(c!)? out_) -> "
        "(Tensor(c!), Tensor, Tensor(a)?, Tensor(b)?)"
    )
    batch = Batch([65, 3], 2, 16, torch.bfloat16)
    given = batch.arguments() | {"is_causal": True}
    real = op()(**given)
    given |= {"tile_scheduler_metadata": real[2], "num_splits": real[3]}
    with torch._subclasses.FakeTensorMode() as mode:
        fake = op()(
            **{
                key: mode.from_tensor(value) if isinstance(value, torch.Tensor) else value
                for key, value in given.items()
            }
        )
    assert [(x.shape, x.dtype) for x in fake] == [(x.shape, x.dtype) for x in real]
