# SPDX-License-Identifier: Apache-2.0
"""The records of the engine's CUDA kernels, compared with upstream's CMakeLists.txt."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest
import upstream_build
from packaging.version import Version

from vllm_build.engine import engine_source, op_calls, op_schemas
from vllm_build.kernels import kernels_table, op_table, plan_resolver
from vllm_build.kernels.kernel_choice import Choice
from vllm_build.sources import engine_kernels, third_party
from vllm_build.toolchain import third_party_fetch
from vllm_build.util import paths
from vllm_build.util.console import Console

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.build_plan import PlannedExtension

pytestmark = pytest.mark.slow
ROOT = paths.source_root()
LIBRARIES = ("_C_stable_libtorch", "_moe_C_stable_libtorch")
#: Set for both libraries, for all architectures.
ALWAYS = {"CUTLASS_ENABLE_DIRECT_CUDA_DRIVER_CALL=1"}
#: Sources whose architectures differ from upstream's, and why.
DIFFERENT = {
    "csrc/quantization/machete/*": "upstream compiles them for every architecture of the build; "
    "only 9.0a has the instructions",
    "csrc/quantization/hadamard/*": "code for 9.0 with PTX serves 9.0a, and later GPUs",
    "csrc/quantization/marlin/sm80_kernel_*_bfloat16.cu": "the same",
    "csrc/gdn/*": "upstream compiles for families from CUDA 13.0 on, and CUDA 12.9 knows them",
}
CASES = (
    ("13.0", "9.0a"),
    ("13.0", "7.5;8.0;8.6;8.9;9.0a;10.0f;12.0f"),
    *(("13.0", arch) for arch in ("7.5", "8.0", "8.6", "8.9", "10.0f", "11.0f", "12.0f")),
    ("12.9", "9.0a;10.0f;12.0f"),
    ("12.4", "8.0;9.0a"),
)


@pytest.fixture(scope="module")
def sources() -> Path:
    source = third_party.read(ROOT)[engine_kernels.NAME]
    third_party_fetch.fetch(source, Console(quiet=True), os.environ)
    return source.folder


def planned(toolkit: str, archs: str, kernel_set: str = "full") -> dict[str, PlannedExtension]:
    plan = plan_resolver.survey(
        kernels_table.load(ROOT),
        "cuda",
        toolkit_version=Version(toolkit),
        arch_list=archs,
        choice=Choice(provider="engine", kernel_set=kernel_set),
    )
    return {extension.module: extension for extension in plan.extensions}


@pytest.mark.parametrize(("toolkit", "archs"), CASES)
def test_the_records_are_upstreams(sources: Path, tmp_path: Path, toolkit: str, archs: str) -> None:
    theirs, ours = upstream_build.build(sources, toolkit, archs, tmp_path), planned(toolkit, archs)
    for name in LIBRARIES:
        library, extension = theirs[name], ours[name]
        left = set(library.units)
        for kernel in extension.kernels:
            codes = {code for o in kernel.options for code in re.findall(r",code=(\w+)$", o)}
            options = {o for o in kernel.options if "gencode" not in o and not o.startswith("-D")}
            for source in kernel.third_party_sources:
                # A pattern of upstream's covers the files that a program writes.
                matching = [unit for unit in library.units if fnmatchcase(source, unit)]
                assert matching, f"{source}: upstream does not build it"
                left.difference_update(matching)
                unit = library.units[matching[0]]
                assert options == unit.options, source
                if not any(fnmatchcase(source, pattern) for pattern in DIFFERENT):
                    assert codes == unit.archs, source
        assert not left, "upstream builds these"
    # Upstream passes the macros of the first library to the second one, too, which has no use for
    # them.
    first = LIBRARIES[0]
    assert set(ours[first].definitions) == theirs[first].macros - ALWAYS


def test_smaller_sets_are_part_of_larger_ones() -> None:
    units = {
        name: {
            source
            for extension in planned("13.0", "7.5;8.0;8.9;9.0a;10.0f;12.0f", name).values()
            for kernel in extension.kernels
            for source in kernel.third_party_sources
        }
        for name in ("check", "core", "full")
    }
    assert units["check"] < units["core"] < units["full"]


#: Ops that upstream's CUDA sources define, the engine's modules call, and a full build lacks: those
#: of AMD GPUs, and of FlashKDA, whose sources are in another repository and on no registry.
NOT_BUILT = {
    *("_flashkda_C::fwd", "_flashkda_C::get_workspace_size"),
    *("_C::fused_kda_chunk", "_C::fused_kda_prologue"),
    *("_C::octave_cache_store", "_C::octave_decode", "_C::octave_decode_sparse"),
    *("_C::octave_prefill", "_C::octave_rotate", "_C::octave_window_store"),
}
#: Ops that a full build for 9.0a has and a core build lacks: weights of four bits with activations
#: of eight, Hadamard rotations, and kernels of single models.
NOT_CORE = {
    *("_C::beam_allreduce", "_C::beam_allreduce_norm", "_C::fused_kda_decode"),
    *("_C::cutlass_encode_and_reorder_int4b", "_C::cutlass_encode_and_reorder_int4b_grouped"),
    *("_C::cutlass_pack_scale_fp8", "_C::cutlass_w4a8_mm", "_C::cutlass_w4a8_moe_mm"),
    "_C::hadacore_transform",
}
#: Ops of GPUs that are not for 9.0a, which has other kernels for the same products.
BLACKWELL_ALONE = {
    *("_C::cutlass_fp4_group_mm", "_C::cutlass_mxfp4_group_mm", "_C::mxfp4_experts_quant"),
    *("_C::silu_and_mul_mxfp4_experts_quant", "_C::mxfp4_experts_quant_supported"),
    *("_C::sm100_cutlass_mla_decode", "_C::sm100_cutlass_mla_get_workspace_size"),
    "_C::kimi_k3_attn_res",
}


def implemented(sources: Path, toolkit: str, archs: str, kernel_set: str) -> set[str]:
    """The ops that a build of the engine's kernels, and of what goes along, implements."""
    plan = plan_resolver.survey(
        kernels_table.load(ROOT),
        "cuda",
        toolkit_version=Version(toolkit),
        arch_list=archs,
        choice=Choice("full", provider="engine", kernel_set=kernel_set),
    )
    theirs = engine_kernels.ops(plan, sources)
    ours = op_table.of_plan(op_table.load(ROOT), plan)
    names = {
        key: {schema.partition("(")[0] for schema in schemas}
        for key, schemas in (*theirs.items(), *((f"our {key}", o) for key, o in ours.items()))
    }
    assert not set().union(*(names[key] for key in names if key.startswith("our "))) & set().union(
        *(names[key] for key in theirs)
    ), "two libraries of one build define these"
    return set().union(*(names[key] for key in names if key != op_table.NO_KEY))


@pytest.fixture(scope="module")
def called() -> set[str]:
    """The ops that the engine's modules call and that upstream's CUDA sources define."""
    source = engine_source.locked(ROOT)
    third_party_fetch.fetch(source, Console(quiet=True), os.environ)
    archive = third_party_fetch.archive(source, Console(quiet=True), os.environ)
    return set(op_calls.calls(engine_source.find(ROOT).package)) & set(
        op_schemas.of_archive(archive)["cuda"]
    )


def test_a_full_build_has_every_op_that_the_engine_calls(sources: Path, called: set[str]) -> None:
    every = implemented(sources, "13.0", "7.5;8.0;8.6;8.9;9.0a;10.0f;11.0f;12.0f", "full")
    assert called - every == NOT_BUILT
    hopper = implemented(sources, "13.0", "9.0a", "full")
    assert called - hopper == NOT_BUILT | BLACKWELL_ALONE


@pytest.mark.parametrize(
    ("toolkit", "lacking"), [("13.0", set()), ("12.4", {"_C::fused_kda_decode"})]
)
def test_a_core_build_has_what_dense_and_moe_models_call(
    sources: Path, called: set[str], toolkit: str, lacking: set[str]
) -> None:
    core, full = (implemented(sources, toolkit, "9.0a", name) for name in ("core", "full"))
    assert full - core == NOT_CORE - lacking
    assert called - core == NOT_BUILT | BLACKWELL_ALONE | NOT_CORE


@pytest.mark.parametrize("pattern", DIFFERENT)
def test_every_difference_still_exists(sources: Path, tmp_path: Path, pattern: str) -> None:
    for toolkit, archs in CASES:
        theirs = upstream_build.build(sources, toolkit, archs, tmp_path)[LIBRARIES[0]]
        for kernel in planned(toolkit, archs)[LIBRARIES[0]].kernels:
            codes = {code for o in kernel.options for code in re.findall(r",code=(\w+)$", o)}
            for source in kernel.third_party_sources:
                matching = [unit for unit in theirs.units if fnmatchcase(source, unit)]
                if fnmatchcase(source, pattern) and codes != theirs.units[matching[0]].archs:
                    return
    pytest.fail("upstream and the table agree")
