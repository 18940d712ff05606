# SPDX-License-Identifier: Apache-2.0
"""Upstream's own tests for CPUs: which of them run over our kernels, and why others do not.

The files come out of the locked source distribution when the tests run. Nothing of them is in this
tree, and nothing is changed: tests that do not apply are deselected by name.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Files to run -> their subject.
RUN: Mapping[str, str] = {
    "tests/distributed/test_cpu_all_reduce.py": "gloo between processes",
    "tests/kernels/attention/test_cpu_attn.py": "paged attention and its cache",
    "tests/kernels/attention/test_mla_decode_cpu.py": "decoding over latent rows",
    "tests/kernels/core/test_cpu_activation.py": "activations",
    "tests/kernels/moe/test_cpu_fused_moe.py": "mixtures of experts",
    "tests/kernels/quantization/test_cpu_fp8_quant.py": "conversion to float8",
    "tests/kernels/test_cpu_fused_sampling.py": "greedy and random sampling",
    "tests/kernels/test_onednn.py": "products, and those of int8",
    "tests/model_executor/test_cpu_unquantized_gemm_dispatch.py": "choice of products",
    "tests/platforms/test_cpu.py": "the platform's settings",
    "tests/utils_/test_cpu_resource_utils.py": "CPUs, memory nodes and limits",
    "tests/v1/attention/test_cpu_mla_backend.py": "attention over latent rows",
    "tests/v1/attention/test_group_head_counts.py": "heads of attention",
    "tests/v1/sample/test_rejection_sampler.py": "rejection sampling",
    "tests/v1/worker/test_cpu_worker_kv_budget.py": "the size of the cache",
}

#: Files that the files above import.
HELPERS = (
    "tests/__init__.py",
    "tests/kernels/__init__.py",
    "tests/kernels/allclose_default.py",
    "tests/kernels/quant_utils.py",
    "tests/kernels/utils.py",
    "tests/v1/sample/utils.py",
)

#: Tests of these files that do not run -> the reason. A name is the beginning of others.
LEFT_OUT: Mapping[str, str] = {
    "tests/kernels/attention/test_cpu_attn.py::test_cpu_attn_fp8_cache_write_rounding": (
        "reads upstream's private layout of the cache; tests/kernels/test_attention_fp8.py has "
        "this test for ours"
    ),
    "tests/kernels/test_cpu_fused_sampling.py::TestFusedGumbelArgmax::"
    "test_distribution_chi_squared": "needs SciPy; tests/kernels/test_sampling.py has this test",
    "tests/kernels/test_cpu_fused_sampling.py::TestFusedGumbelArgmax::"
    "test_masked_support_matches_softmax": "the same",
    "tests/v1/sample/test_rejection_sampler.py::test_fly_": "needs Triton",
    "tests/v1/sample/test_rejection_sampler.py::test_synthetic_": (
        "upstream refuses this way of acceptance on CPUs"
    ),
    "tests/v1/attention/test_group_head_counts.py::"
    "test_cpu_builder_selects_native_group_for_single_request": (
        "reads upstream's private layout of the metadata of attention"
    ),
    "tests/v1/attention/test_cpu_mla_backend.py::test_cpu_mla_backend_smoke": ("downloads a model"),
    "tests/v1/sample/test_rejection_sampler.py::test_sample_recovered_tokens": (
        "passes drafts as a matrix, which the engine does not"
    ),
}

#: Upstream's other tests for CPUs -> why they do not run here. A folder ends with a slash.
NOT_RUN: Mapping[str, str] = {
    "tests/basic_correctness/cpu_offload/": "needs a GPU and downloads models",
    "tests/kernels/attention/test_amx_mla.py": (
        "no ops for latent rows with AMX: the plugin chooses the attention for every CPU"
    ),
    "tests/kernels/mamba/": "no ops of state-space models",
    "tests/kernels/moe/test_cpu_int4_moe.py": "no weights of four bits",
    "tests/kernels/moe/test_cpu_quant_fused_moe.py": "no experts with quantised weights",
    "tests/kernels/moe/test_zen_cpu_fused_moe.py": "needs zentorch",
    "tests/kernels/moe/test_zen_cpu_int8_moe.py": "needs zentorch",
    "tests/kernels/quantization/test_cpu_fp8_scaled_mm.py": "no products of float8 with AMX",
    "tests/kernels/quantization/test_zen_da8w4.py": "needs zentorch",
    "tests/kernels/test_awq_int4_to_int8.py": "no weights of four bits",
    "tests/kernels/test_deepseek_v4_cpu_kernels.py": "no ops of DeepSeek-V4",
    "tests/quantization/": "downloads models",
    "tests/test_zen_cpu_platform_detection.py": "the platform comes from our plugin",
    "tests/test_zentorch_version_pin.py": "needs zentorch",
    "tests/v1/e2e/": "downloads models",
    "tests/v1/ec_connector/": "caches in other processes; no op of ours",
    "tests/v1/kv_connector/": "caches in other processes; no op of ours",
    "tests/v1/kv_offload/": "moves caches between a GPU and a CPU",
    "tests/v1/sample/test_topk_topp_sampler.py": "needs Triton",
}


def candidates(archive: Path) -> list[str]:
    """Upstream's test files for CPUs: by their name, and those of its own job for CPU kernels."""
    with tarfile.open(archive) as tar:
        names = [member.name.partition("/")[2] for member in tar if member.isfile()]
        top = tar.getnames()[0].partition("/")[0]
        jobs = tar.extractfile(f"{top}/.buildkite/hardware_tests/cpu.yaml")
        assert jobs is not None
        text = jobs.read().decode()
    kernels = text.partition("commands:")[2].partition("parallelism:")[0]
    found = set(re.findall(r"tests/[\w/]+\.py", kernels))
    named = re.compile(r"tests/(.*/)?(test_[^/]*cpu[^/]*\.py|cpu[^/]*/(.*/)?test_[^/]*\.py)")
    return sorted(found | {name for name in names if named.fullmatch(name)})


def unexplained(archive: Path) -> list[str]:
    """Upstream's test files for CPUs that this module does not mention."""
    return [
        name
        for name in candidates(archive)
        if name not in RUN
        and not any(
            name == entry or (entry.endswith("/") and name.startswith(entry)) for entry in NOT_RUN
        )
    ]


def extract(archive: Path, folder: Path) -> None:
    """Write :data:`RUN` and :data:`HELPERS` into ``folder``, and our fixtures."""
    wanted = {*RUN, *HELPERS}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            if name not in wanted or not member.isfile():
                continue
            content = tar.extractfile(member)
            assert content is not None
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
            wanted.remove(name)
    if wanted:
        raise FileNotFoundError(f"{archive.name} has no {', '.join(sorted(wanted))}")
    (folder / "conftest.py").write_bytes(_FIXTURES.read_bytes())


_FIXTURES = Path(__file__).with_name("engine_upstream_fixtures.py")
