# SPDX-License-Identifier: Apache-2.0
"""What ROCm's paged attention refuses, and what torch is told about it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from vllm._kernels import ops

Case = runpy.run_path(str(Path(__file__).parent / "rocm_attention_case.py"))["Case"]

BAD = {
    "dtype": ({"query": torch.zeros(1, 8, 64)}, r"query is of dtype Float"),
    "rank": ({"query": torch.zeros(8, 64).half()}, r"query has shape \[8, 64\], expected \[tokens"),
    "size": ({"query": torch.zeros(1, 8, 96).half()}, r"expected a head_size of 64 or 128"),
    "ratio": ({"num_kv_heads": 3}, "num_kv_heads is 3, expected a divisor of 8"),
    "none": ({"num_kv_heads": 0}, "num_kv_heads is 0, expected a divisor of 8"),
    "out": ({"out": torch.zeros(2, 8, 64).half()}, r"out has shape \[2, 8, 64\], expected \[1, 8"),
    "out dtype": ({"out": torch.zeros(1, 8, 64).bfloat16()}, "out is of dtype BFloat16"),
    "codes": ({"fp8_out_scale": torch.ones(1)}, "out is of dtype Half"),
    "scale": (
        {
            "out": torch.zeros(1, 8, 64).to(torch.float8_e4m3fn),
            "fp8_out_scale": torch.ones(2),
        },
        r"fp8_out_scale has shape \[2\]",
    ),
    "format": ({"kv_cache_dtype": "fp8"}, "key_cache is of dtype Half"),
    "e5m2": ({"kv_cache_dtype": "fp8_e5m2"}, "kv_cache_dtype is 'fp8_e5m2', expected auto"),
    "name": ({"kv_cache_dtype": "int8"}, "kv_cache_dtype is 'int8', expected auto"),
    "block": ({"block_size": 8}, "block_size is 8, expected a multiple of 16"),
    "blocks": ({"block_size": 32}, r"key_cache has shape .*, expected \[4, 2, 8, 32, 8\]"),
    "values": (
        {"value_cache": torch.zeros(4, 2, 16, 64).half()},
        r"value_cache has shape \[4, 2, 16, 64\], expected \[4, 2, 64, 16\]",
    ),
    "strides": (
        {"value_cache": torch.zeros(4, 2, 16, 64).half().transpose(2, 3)},
        "value_cache has strides",
    ),
    "aligned": (
        {"key_cache": torch.zeros(4 * 2 * 1024 + 1).half()[1:].view(4, 2, 8, 16, 8)},
        "key_cache",
    ),
    "table": ({"block_tables": torch.zeros(1, 2).long()}, "block_tables is of dtype Long"),
    "lengths": ({"seq_lens": torch.zeros(2).int()}, r"seq_lens has shape \[2\], expected \[1\]"),
    "starts": (
        {"query_start_loc": torch.zeros(1).int()},
        r"query_start_loc has shape \[1\], expected \[2\]",
    ),
    "tokens": (
        {"query": torch.zeros(2, 8, 64).half(), "out": torch.zeros(2, 8, 64).half()},
        r"query has shape \[2, 8, 64\], expected 1 tokens",
    ),
    "negative": ({"max_seq_len": -1}, "max_seq_len is -1"),
    "partitions": ({"max_seq_len": 300}, r"exp_sums has shape \[1, 8, 1\], expected \[1, 8, 2\]"),
    "maxima": ({"max_logits": torch.zeros(1, 8, 1).half()}, "max_logits is of dtype Half"),
    "partial": ({"tmp_out": torch.zeros(1, 8, 1, 64)}, "tmp_out is of dtype Float"),
    "slopes": ({"alibi_slopes": torch.zeros(7)}, r"alibi_slopes has shape \[7\], expected \[8\]"),
    "mfma": ({"mfma_type": "f32"}, "mfma_type is 'f32', expected f16 or fp8"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_arguments(name: str) -> None:
    more, message = BAD[name]
    case = Case((20,), torch.float16)
    before = case.out.clone()
    case.more = more
    with pytest.raises(RuntimeError, match=rf"paged_attention: .*{message}"):
        case.run()
    assert torch.equal(case.out.view(torch.int16), before.view(torch.int16))


def test_wrong_scales_of_codes() -> None:
    for name in ("k_scale", "v_scale"):
        case = Case((20,), code=torch.float8_e4m3fn)
        case.more = {name: torch.ones(2)}
        with pytest.raises(RuntimeError, match=rf"paged_attention: {name} has shape \[2\]"):
            case.run()


def test_schema() -> None:
    # As upstream's 0.33.0 has it.
    assert str(torch.ops._rocm_C.paged_attention.default._schema) == (
        "_rocm_C::paged_attention(Tensor($0! -> ) out, Tensor exp_sums, Tensor max_logits, Tensor "
        "tmp_out, Tensor query, Tensor key_cache, Tensor value_cache, int num_kv_heads, float "
        "scale, Tensor block_tables, Tensor seq_lens, Tensor? query_start_loc, int block_size, int "
        "max_seq_len, Tensor? alibi_slopes, str kv_cache_dtype, Tensor k_scale, Tensor v_scale, "
        "Tensor? fp8_out_scale, str mfma_type, bool use_interleaved_v_cache=False) -> ()"
    )


def test_fake() -> None:
    case = Case((20,))
    given = {
        name: value.to("meta") if isinstance(value, torch.Tensor) else value
        for name, value in case.arguments().items()
    }
    ops.paged_attention_rocm(**given)
