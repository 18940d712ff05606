# SPDX-License-Identifier: Apache-2.0
"""The ``cache-keys`` in pyproject.toml: uv rebuilds exactly when the wheel would change."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

import pytest
from front_end_runs import UV_PIP, copy_release, installed, run_module

from vllm_build.native import cmake_configure, private_build
from vllm_build.settings import build_settings
from vllm_build.util import toml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Runner = Callable[..., str]

#: Settings that change the speed, output or folders of a build, but not its result; settings of
#: conda packages; variables that conda-build and shells set.
NOT_OF_THE_WHEEL = {
    *(
        "MAX_JOBS",
        "CMAKE_BUILD_PARALLEL_LEVEL",
        "NVCC_THREADS",
        "VERBOSE",
        "VLLM_BUILD_ROOT",
        "VLLM_UNIT_TIMES",
        "CMAKE_GENERATOR",
        "VLLM_DISABLE_CCACHE",
        "VLLM_DISABLE_SCCACHE",
    ),
    *(f"CMAKE_{language}_COMPILER_LAUNCHER" for language in ("C", "CXX", "CUDA", "HIP")),
    *("CCACHE_DIR", "VLLM_BUILD_CACHE", "XDG_CACHE_HOME", "NETRC", "TMPDIR"),
    *("CHANNEL", "REUSE", "CONDA_OVERRIDE_CUDA"),
    *("PATH", "PREFIX", "BUILD_PREFIX", "VLLM_RECIPE_BUILD"),
}


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return functools.partial(run_module, tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy_release(tmp_path / "tree")


@pytest.fixture
def base(root: Path) -> str:
    return (root / "VERSION").read_text(encoding="utf-8").strip()


@pytest.mark.slow
def test_uv_builds_again_when_the_wheel_would_differ(
    tree: Path, tmp_path: Path, base: str, run: Runner
) -> None:
    """uv caches the wheels of folders, and by default compares only a few files at their root."""
    wanted = tmp_path / "requirements.txt"
    wanted.write_text(f"vllm @ {tree.as_uri()}\n", encoding="utf-8")
    run("-m", "venv", "--without-pip", "--system-site-packages", tmp_path / "env")
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # This test's environment has the build requirements.
    (site / "build-requirements.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages")), encoding="utf-8"
    )

    def builds(device: str = "empty", **variables: str) -> bool:
        return "Built vllm" in run(
            *UV_PIP, "--python", tmp_path / "env", "-r", wanted, device=device, **variables
        )

    assert builds()
    assert not builds(), "nothing has changed"
    # A file at the root, and files that patterns match. The next test checks the whole list.
    for name in ("VERSION", "csrc/kernels.toml", "vllm/envs.py"):
        with (tree / name).open("a", encoding="utf-8") as stream:
            stream.write("\n")
        assert builds(), name
        assert not builds()
    assert builds(device="tpu")
    assert installed(site)[0] == f"{base}+tpu"
    assert builds(device="tpu", CXXFLAGS="-g")
    assert not builds(device="tpu", CXXFLAGS="-g", MAX_JOBS="3"), (
        "MAX_JOBS does not affect the wheel"
    )


def test_every_setting_that_shapes_a_wheel_is_a_key(root: Path) -> None:
    keys = toml.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"][
        "cache-keys"
    ]
    named = {key["env"] for key in keys if "env" in key}
    table = {variable.name for variable in build_settings.variables()}
    assert named & NOT_OF_THE_WHEEL == set()
    assert table - NOT_OF_THE_WHEEL <= named, (
        "add it to cache-keys in pyproject.toml, or to NOT_OF_THE_WHEEL if no wheel depends on it"
    )
    assert {"CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_PREFIX_PATH"} <= named & set(
        cmake_configure._READ_ONCE
    )
    assert {*private_build._FLAGS, *private_build._COMPILERS, *private_build._PLACES} <= named
    for pattern in (key["file"] for key in keys if "file" in key):
        assert any(path.is_file() for path in root.glob(pattern)), f"{pattern} matches no file"
