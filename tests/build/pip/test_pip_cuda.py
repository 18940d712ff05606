# SPDX-License-Identifier: Apache-2.0
"""A wheel for CUDA, with the real nvcc of the toolchain channel and a few kernels of each library.

``make test`` compiles GPU code here and in ``test_pip_rocm.py``. The packages with all kernels take
half an hour: ``make test-full``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from wheel_files import member, names, only_wheel

from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

    from tests.build.pip.conftest import Developer

pytestmark = pytest.mark.slow
ATTENTION = ("_vllm_fa2_C", "_vllm_fa3_C")
LIBRARIES = ("_C", "_flashmla_C", "_moe_C", "cumem_allocator")


def test_every_library_compiles_and_links(
    builder: Developer, cuda_tree: Path, cuda: Path, tmp_path: Path
) -> None:
    done = builder.run(
        *("python", "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-v"),
        *("-w", str(tmp_path)),
        cwd=cuda_tree,
        VLLM_TARGET_DEVICE="cuda",
        TORCH_CUDA_ARCH_LIST="9.0a",
        VLLM_FA_SET="check",
        VLLM_WERROR="1",
        CUDA_HOME=str(cuda),
        VLLM_BUILD_CACHE=str(paths.cache_root()),
    )
    assert done.status == 0, done.log[-6000:]
    assert {"activation.cu", "flash_fwd_hdim64_bf16_sm80.cu"} <= set(done.units)
    built = only_wheel(tmp_path)
    assert sorted(name for name in names(built) if name.endswith(".so")) == [
        *(f"vllm/{name}.abi3.so" for name in LIBRARIES),
        *(f"vllm/vllm_flash_attn/{name}.abi3.so" for name in ATTENTION),
    ]
    record = json.loads(member(built, "vllm/_build_info/vllm-kernels.json"))
    assert record["device"] == "cuda"
    assert record["extensions"][0]["kernels"] == ["gpu-runtime", "activation-gpu"]
