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

from vllm_build.kernels import kernels_table, plan_resolver
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
#: Set for both libraries, whatever the architectures.
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
