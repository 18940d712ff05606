# SPDX-License-Identifier: Apache-2.0
"""A wheel for CUDA, with the real nvcc of the toolchain channel and a few kernels of each library.

``make test`` compiles GPU code here and in ``test_pip_rocm.py``. The packages with all kernels take
half an hour: ``make test-full``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from full_suite import full_only
from wheel_files import member, names, only_wheel

from vllm_build.util import paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.build.pip.conftest import Developer, Done

pytestmark = pytest.mark.slow
ATTENTION = ("_vllm_fa2_C", "_vllm_fa3_C")
LIBRARIES = ("_C", "_flashmla_C", "_moe_C", "cumem_allocator")


@pytest.fixture
def wheel(
    builder: Developer, cuda_tree: Path, cuda: Path, tmp_path: Path
) -> Callable[..., tuple[Path, Done]]:
    """Builds a wheel for one architecture with some settings."""

    def build(**variables: str) -> tuple[Path, Done]:
        done = builder.run(
            *("python", "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-v"),
            *("-w", str(tmp_path)),
            cwd=cuda_tree,
            VLLM_TARGET_DEVICE="cuda",
            TORCH_CUDA_ARCH_LIST="9.0a",
            VLLM_WERROR="1",
            CUDA_HOME=str(cuda),
            VLLM_BUILD_CACHE=str(paths.cache_root()),
            **variables,
        )
        assert done.status == 0, done.log[-6000:]
        return only_wheel(tmp_path), done

    return build


def test_every_library_compiles_and_links(wheel: Callable[..., tuple[Path, Done]]) -> None:
    built, done = wheel(VLLM_FA_SET="check")
    assert {"activation.cu", "flash_fwd_hdim64_bf16_sm80.cu"} <= set(done.units)
    assert sorted(name for name in names(built) if name.endswith(".so")) == [
        *(f"vllm/{name}.abi3.so" for name in LIBRARIES),
        *(f"vllm/vllm_flash_attn/{name}.abi3.so" for name in ATTENTION),
    ]
    record = json.loads(member(built, "vllm/_build_info/vllm-kernels.json"))
    assert record["device"] == "cuda"
    assert record["extensions"][0]["kernels"] == ["gpu-runtime", "activation-gpu"]


@full_only
def test_the_engines_kernels_compile_and_register_their_ops(
    wheel: Callable[..., tuple[Path, Done]],
) -> None:
    """Next to a torch for CPUs. A first build takes half an hour of processor time."""
    built, done = wheel(
        VLLM_KERNELS="engine", VLLM_KERNEL_SET="check", VLLM_COMPONENTS="vllm-engine-kernels"
    )
    assert {"activation_kernels.cu", "moe_align_sum_kernels.cu"} <= set(done.units)
    libraries = ("_C_stable_libtorch", "_moe_C_stable_libtorch")
    assert sorted(name for name in names(built) if name.endswith(".so")) == [
        f"vllm/{name}.abi3.so" for name in libraries
    ]
    assert re.search(r"^ *16\d ops registered as defined$", done.log, re.MULTILINE)
    record = json.loads(member(built, "vllm/_build_info/vllm-engine-kernels.json"))
    assert {"_C::rms_norm", "_moe_C::topk_softmax"} <= set(record["ops"]["CUDA"])
    # Its unit belongs to a larger set.
    assert "_C::marlin_gemm" in record["ops"]["none"]
