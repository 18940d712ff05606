# SPDX-License-Identifier: Apache-2.0
"""Every op with each tensor replaced by a wrong one: an error names it and nothing is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vllm._kernels import ops

#: The wrappers that the tested library has; it is for the CPU.
NAMES = [name for name in ops.__all__ if name not in ops.GPU_ONLY]
NAMESPACES = ("_C", "_C_cache_ops", "_moe_C")
ANY = ("dtype", "rank", "flat", "longer")

ATTENTION = ("cpu_attention_with_kv_cache", "get_scheduler_metadata")

#: Cases that are not errors: (op, or None for all; argument) -> cases.
ACCEPTED: dict[tuple[str | None, str], tuple[str, ...]] = {
    # A tensor of one element is a scale, regardless of its rank.
    **{(None, scale): ("rank", "flat") for scale in ("k_scale", "v_scale", "scale", "scale_ub")},
    # Bytes in any shape.
    ("swap_blocks", "src"): ANY,
    ("swap_blocks", "dst"): ANY,
    # More elements than needed.
    ("gather_and_maybe_dequant_cache", "block_table"): ("longer",),
    ("gather_and_maybe_dequant_cache", "token_to_seq"): ("longer",),
    ("cp_gather_cache", "block_table"): ("longer",),
    **{
        (op, buffer): ("longer",)
        for op in ("moe_align_block_size", "batched_moe_align_block_size")
        for buffer in ("sorted_token_ids", "experts_ids", "num_tokens_post_pad")
    },
    **{
        (op, per_sequence): ("longer",)
        for op in ATTENTION
        for per_sequence in ("query_start_loc", "seq_lens", "block_table")
    },
    **{("mla_decode_kvcache", argument): ("longer",) for argument in ("block_tables", "seq_lens")},
    ("dynamic_per_token_scaled_fp8_quant", "scale"): ("longer",),
    ("rms_norm_dynamic_per_token_quant", "scale"): ("longer",),
    ("dynamic_scaled_int8_quant", "scale"): ("longer",),
    ("dynamic_scaled_int8_quant", "azp"): ("rank", "flat", "longer"),
    ("static_scaled_int8_quant", "azp"): ("rank", "flat"),
    # One scale for each of the two heads.
    ("reshape_and_cache_flash", "k_scale"): ("longer",),
    ("reshape_and_cache_flash", "v_scale"): ("longer",),
    # One element per token, in any shape.
    ("moe_align_block_size", "scatter_idx"): ("rank",),
    # One column more.
    ("create_onednn_mm_handler", "b"): ("longer",),
    # The rows may have several dimensions.
    ("onednn_mm", "c"): ("rank",),
    # One element per row or column, in any shape.
    **{
        (op, argument): ("rank", "flat")
        for op in ("create_onednn_scaled_mm_handler", "onednn_mm", "onednn_scaled_mm")
        for argument in ("b_scales", "a_scales", "azp", "handler_tensor")
    },
    # The caller chooses the width of a value, up to that of a row of the cache.
    ("mla_decode_kvcache", "out"): ("longer",),
    # More tokens, requests, blocks or slots than needed.
    **{
        ("compute_slot_mapping_kernel_impl", argument): ("longer",)
        for argument in ("positions", "block_table", "slot_mapping")
    },
    **{
        (op, "output_token_ids"): ("longer",)
        for op in ("rejection_greedy_sample_kernel_impl", "rejection_random_sample_kernel_impl")
    },
    ("expand_kernel_impl", "output"): ("longer",),
    # One row more.
    ("convert_weight_packed", "weight"): ("longer",),
    # One more token to choose from.
    ("greedy_argmax", "logits"): ("longer",),
    ("fused_gumbel_argmax", "logits"): ("longer",),
}

#: Ops without tensor arguments.
WITHOUT_TENSORS = ("cpu_attn_has_isa", "init_cpu_memory_env", "release_dnnl_matmul_handler")

Answers = dict[str, dict[tuple[str, str], dict[str, object]]]


def children(names: list[str]) -> Answers:
    """op → (argument, case) → outcome.

    A child process that dies is replaced by one for the remaining ops.
    """
    found: Answers = {}
    left = list(names)
    while left:
        command = [sys.executable, "-P", str(Path(__file__).with_name("op_cases.py")), *left]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        for (op, argument, case), answer in zip(
            lines[::2],
            [*lines[1::2], {"died": done.returncode, "said": done.stderr[-2000:]}],
            strict=False,
        ):
            found.setdefault(op, {})[argument, case] = answer
        if not done.returncode:
            break
        last = lines[-1 if len(lines) % 2 else -2][0] if lines else left[0]
        if len(lines) % 2 == 0:  # the program failed between two calls
            found.setdefault(last, {})["", "start"] = {
                "died": done.returncode,
                "said": done.stderr[-2000:],
            }
        left = left[left.index(last) + 1 :]
    return found


@pytest.fixture(scope="module")
def answers() -> Answers:
    pytest.importorskip("torch", reason="torch is not installed here")
    from vllm._kernels import loader

    if "_C" not in loader.available():
        pytest.skip("no kernels are installed")
    return children(NAMES)


def names_an_argument(error: str, name: str) -> bool:
    """Whether the error names the changed argument, or the one that it no longer fits."""
    import torch

    op = next(
        getattr(getattr(torch.ops, space), name)
        for space in NAMESPACES
        if hasattr(getattr(torch.ops, space), name)
    ).default
    words = re.findall(r"\w+", error.removeprefix(f"{name}: "))
    return error.startswith(f"{name}: ") and any(
        argument.name in words for argument in op._schema.arguments
    )


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_are_errors(answers: Answers, name: str) -> None:
    assert answers.get(name) or name in WITHOUT_TENSORS
    wrong = []
    for (argument, case), answer in answers.get(name, {}).items():
        accepted = {*ACCEPTED.get((name, argument), ()), *ACCEPTED.get((None, argument), ())}
        error = str(answer.get("error", ""))
        named = not error or names_an_argument(error, name)
        if (
            "died" in answer
            or answer.get("changed")
            or not named
            or (not error and case in ANY and case not in accepted)
        ):
            wrong.append(f"{argument}, {case}: {answer}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_memory_order_changes_no_result(answers: Answers, name: str) -> None:
    wrong = [
        f"{argument}, {case}: {answer}"
        for (argument, case), answer in answers.get(name, {}).items()
        if "differs" in answer
    ]
    assert not wrong, "\n".join(wrong)
