# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 4: the variables of architectures, and what each toolkit compiles."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build.architectures import cuda_archs, gpu_targets
from vllm_build.settings.build_settings import Settings
from vllm_build.target import requested_archs
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    ("device", "toolkit", "entries"),
    [
        ("cuda", None, "7.5 8.0 8.6 8.9 9.0a 10.0f 12.0f+PTX"),
        ("cuda", "13.0", "7.5 8.0 8.6 8.9 9.0a 10.0f 12.0f+PTX"),
        ("cuda", "14.1", "7.5 8.0 8.6 8.9 9.0a 10.0f 12.0f+PTX"),
        ("cuda", "12.9", "7.5 8.0 8.6 8.9 9.0a 10.0f 12.0f+PTX"),
        ("cuda", "12.8", "7.5 8.0 8.6 8.9 9.0a"),
        ("cuda", "12.0", "7.5 8.0 8.6 8.9 9.0a"),
        ("cuda", "11.8", "7.5 8.0 8.6 8.9"),
        ("rocm", None, "gfx90a gfx942 gfx950 gfx1030 gfx1100 gfx1201"),
        ("rocm", "7.0", "gfx90a gfx942 gfx950 gfx1030 gfx1100 gfx1201"),
        ("rocm", "6.4.1", "gfx90a gfx942 gfx1030 gfx1100 gfx1201"),
        ("rocm", "6.0", "gfx90a gfx942 gfx1030 gfx1100"),
        ("rocm", "5.7", "gfx90a gfx1030 gfx1100"),
    ],
)
def test_default_list_is_cut_to_the_toolkit(device: str, toolkit: str | None, entries: str) -> None:
    assert " ".join(gpu_targets.default(device, Version(toolkit) if toolkit else None)) == entries


@pytest.mark.parametrize(
    ("arch", "toolkit", "why"),
    [
        ("7.0", "12.9", None),
        ("7.0", "13.0", "7.0 was dropped by CUDA 13.0"),
        ("3.7", "12.0", "3.7 was dropped by CUDA 12.0"),
        ("9.0", "11.8", None),
        ("9.0a", "11.8", "9.0a needs CUDA >= 12.0"),
        ("10.0", "12.8", None),
        ("10.0a", "12.8", None),
        ("10.0f", "12.8", "10.0f needs CUDA >= 12.9"),
        ("10.0", "12.6", "10.0 needs CUDA >= 12.8"),
        ("10.1", "13.0", "10.1 was dropped by CUDA 13.0"),
        ("11.0", "12.9", "11.0 needs CUDA >= 13.0"),
        ("12.1f+PTX", "12.8", "12.1f+PTX needs CUDA >= 12.9"),
        ("13.5", "12.8", None),
        ("10.0f", None, None),
    ],
)
def test_what_a_toolkit_compiles(arch: str, toolkit: str | None, why: str | None) -> None:
    assert gpu_targets.why_not_compiled("cuda", arch, Version(toolkit) if toolkit else None) == why


@pytest.mark.parametrize("text", ["8.1", "9.1", "6.3", "8.0;9.9", "8.0a", "9.0f", "7.5f+PTX"])
def test_architectures_that_do_not_exist(text: str) -> None:
    with pytest.raises(ConfigurationError, match="x: there is no GPU architecture"):
        gpu_targets.parse("cuda", text, "x")


def test_architectures_of_the_future_are_the_compiler_s_to_judge() -> None:
    assert gpu_targets.parse("cuda", "13.0a", "x") == ("13.0a",)


@pytest.mark.parametrize(
    ("device", "compiled", "options"),
    [
        ("cuda", ["8.0"], ["-gencode=arch=compute_80,code=sm_80"]),
        (
            "cuda",
            ["9.0a", "10.0f"],
            ["-gencode=arch=compute_90a,code=sm_90a", "-gencode=arch=compute_100f,code=sm_100f"],
        ),
        (
            "cuda",
            ["12.0+PTX"],
            ["-gencode=arch=compute_120,code=sm_120", "-gencode=arch=compute_120,code=compute_120"],
        ),
        ("cuda", [], []),
        (
            "rocm",
            ["gfx90a", "gfx942"],
            [
                "--offload-arch=gfx90a",
                "--offload-arch=gfx942",
                "-DVLLM_HIP_ARCHITECTURES=gfx90a,gfx942",
            ],
        ),
    ],
)
def test_compiler_options(device: str, compiled: list[str], options: list[str]) -> None:
    assert list(gpu_targets.compile_options(device, compiled)) == options


@pytest.mark.parametrize(
    ("cmake", "ours"),
    [
        ("80", "8.0+PTX"),
        ("80-real;90a-real", "8.0;9.0a"),
        ("120f", "12.0f+PTX"),
        ("75 100f-real", "7.5+PTX;10.0f"),
    ],
)
def test_cmake_s_spelling(cmake: str, ours: str) -> None:
    assert gpu_targets.from_cmake(cmake, "x") == ours


@pytest.mark.parametrize(
    "text", ["native", "all", "all-major", "OFF", "8.0", "80-virtual", "80,90", "sm_80", "8", "80b"]
)
def test_lists_of_cmake_s_without_a_counterpart(text: str) -> None:
    with pytest.raises(ConfigurationError, match="CMAKE_CUDA_ARCHITECTURES"):
        gpu_targets.from_cmake(text, "CMAKE_CUDA_ARCHITECTURES")


TORCH, CMAKE, ROCM = "TORCH_CUDA_ARCH_LIST", "CMAKE_CUDA_ARCHITECTURES", "PYTORCH_ROCM_ARCH"


@pytest.mark.parametrize(
    ("device", "environ", "requested"),
    [
        ("cuda", {}, None),
        ("cuda", {TORCH: ""}, None),
        ("cuda", {TORCH: "8.0;9.0a"}, ("8.0;9.0a", TORCH)),
        ("cuda", {CMAKE: "80-real;90a"}, ("8.0;9.0a+PTX", CMAKE)),
        (
            "cuda",
            {"CMAKE_ARGS": "-DX=1 -DCMAKE_CUDA_ARCHITECTURES=86-real"},
            ("8.6", f"{CMAKE} in CMAKE_ARGS"),
        ),
        (
            "cuda",
            {"CMAKE_ARGS": "-D CMAKE_CUDA_ARCHITECTURES:STRING='80-real;90-real'"},
            ("8.0;9.0", f"{CMAKE} in CMAKE_ARGS"),
        ),
        # Both may be set if they agree. TORCH_CUDA_ARCH_LIST decides which entries keep PTX.
        ("cuda", {TORCH: "9.0a 8.0", CMAKE: "80;90a"}, ("9.0a 8.0", TORCH)),
        (
            "cuda",
            {TORCH: "8.0+PTX", CMAKE: "80-real", "CMAKE_ARGS": f"-D{CMAKE}=80"},
            ("8.0+PTX", TORCH),
        ),
        ("cuda", {ROCM: "gfx90a"}, None),
        ("rocm", {ROCM: "gfx90a", TORCH: "8.0", CMAKE: "90"}, ("gfx90a", ROCM)),
        ("rocm", {}, None),
        ("cpu", {TORCH: "8.0", CMAKE: "90", ROCM: "gfx90a"}, None),
    ],
)
def test_variables_that_choose_architectures(
    device: str, environ: Mapping[str, str], requested: tuple[str, str] | None
) -> None:
    assert requested_archs.requested(device, Settings.from_environ(environ)) == requested


@pytest.mark.parametrize(
    "environ",
    [
        {TORCH: "8.0", CMAKE: "90"},
        {TORCH: "9.0", CMAKE: "90a"},
        {TORCH: "8.0;9.0", CMAKE: "80"},
        {CMAKE: "80", "CMAKE_ARGS": "-DCMAKE_CUDA_ARCHITECTURES=90"},
    ],
)
def test_two_that_disagree_are_an_error(environ: Mapping[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="name different architectures"):
        requested_archs.requested("cuda", Settings.from_environ(environ))


@given(st.text(max_size=20) | st.text("0123456789af-;, realvitu", max_size=20))
def test_no_text_crashes_cmake_s_parser(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert cuda_archs.parse(gpu_targets.from_cmake(text, "x"), "x")


VERSIONS = [Version(text) for text in ("11.8", "12.0", "12.4", "12.8", "12.9", "13.0", "13.2")]


@pytest.mark.parametrize(("older", "newer"), [*itertools.pairwise(VERSIONS)])
def test_a_newer_toolkit_loses_nothing_of_the_default_list(older: Version, newer: Version) -> None:
    assert set(gpu_targets.default("cuda", older)) <= set(gpu_targets.default("cuda", newer))
