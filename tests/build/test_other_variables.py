# SPDX-License-Identifier: Apache-2.0
"""Variables of other builds, misspelt variables, and reads of variables outside the table."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING

import pytest

from vllm_build.settings import build_settings, other_variables, settings_page

if TYPE_CHECKING:
    from pathlib import Path

IGNORED = [name for row in other_variables.IGNORED for name in row.names]
#: Variables that say where this process runs, not what is built.
AMBIENT = {"HOME", "NETRC", "PATH", "PYTHONPATH"}
#: Read where they are handed on to the tool that they are for.
HANDED_ON = {
    "CC",
    "CXX",
    "CUDAHOSTCXX",
    "HIPCXX",
    "HIPFLAGS",
    "LDFLAGS",
    "CMAKE_PREFIX_PATH",
    "NVCC_APPEND_FLAGS",
    "NVCC_CCBIN",
    "CCACHE_BASEDIR",
    "CCACHE_DIR",
    "CCACHE_DISABLE",
    "CCACHE_READONLY",
    "CONDA_BUILD",
}
#: Variables that the engine reads when it runs.
ENGINE = [
    *(
        "VLLM_USE_V1",
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_CPU_ISA",
        "VLLM_ATTENTION_BACKEND",
        "VLLM_CACHE_ROOT",
    ),
    *(
        "VLLM_CONFIG_ROOT",
        "VLLM_LOGGING_LEVEL",
        "VLLM_USE_TRITON_FLASH_ATTN",
        "VLLM_USE_MODELSCOPE",
        "VLLM_HOST_IP",
        "VLLM_PORT",
    ),
    *(
        "VLLM_WORKER_MULTIPROC_METHOD",
        "VLLM_ROCM_USE_AITER",
        "VLLM_USE_DEEP_GEMM",
        "VLLM_FLASH_ATTN_VERSION",
        "VLLM_TRACE_FUNCTION",
    ),
    *(
        "VLLM_SKIP_P2P_CHECK",
        "VLLM_DISABLED_KERNELS",
        "VLLM_DISABLE_COMPILE_CACHE",
        "VLLM_MAIN_PROCESS",
        "VLLM_PLUGINS",
        "VLLM_API_KEY",
        "VLLM_SLEEP_MEM_CHUNK_SIZE",
    ),
]


@pytest.mark.parametrize("name", IGNORED)
def test_a_variable_that_does_nothing_is_named(name: str) -> None:
    value = {"MAKEFLAGS": "s -j8", "GNUMAKEFLAGS": "-j8", "USE_NINJA": "0"}.get(name, "1")
    (said,) = other_variables.ignored({name: value})
    assert said.startswith(f"{name} has no effect here: ")
    assert not list(other_variables.ignored({name: "  "}))


@pytest.mark.parametrize("flags", ["s", "", "w -- VARIANT=cpu", "rs -- VARIANT=j8"])
def test_make_s_own_flags_are_not_worth_a_word(flags: str) -> None:
    assert not list(other_variables.ignored({"MAKEFLAGS": flags}))


def test_only_what_matters_for_the_device() -> None:
    environ = {
        "CUDACXX": "/x/nvcc",
        "HIP_PATH": "/x",
        "VLLM_CPU_AVX512BF16": "1",
        "VLLM_DOCKER_BUILD_CONTEXT": "1",
    }
    named = {
        device: [said.split(" ", 1)[0] for said in other_variables.ignored(environ, device)]
        for device in ("cuda", "rocm", "cpu")
    }
    assert named == {
        "cuda": ["VLLM_DOCKER_BUILD_CONTEXT", "CUDACXX"],
        "rocm": ["VLLM_DOCKER_BUILD_CONTEXT", "HIP_PATH"],
        "cpu": ["VLLM_DOCKER_BUILD_CONTEXT", "VLLM_CPU_AVX512BF16"],
    }


def test_none_is_both_read_and_ignored() -> None:
    assert not set(IGNORED) & {variable.name for variable in build_settings.variables()}
    assert len(IGNORED) == len(set(IGNORED))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VLLM_TARGET_DEVCE", "VLLM_TARGET_DEVICE"),
        ("VLLM_TARGET_DEVICES", "VLLM_TARGET_DEVICE"),
        ("VLLM_USE_PRECOMPILE", "VLLM_USE_PRECOMPILED"),
        ("VLLM_DISABLE_SCACHE", "VLLM_DISABLE_SCCACHE"),
        ("VLLM_PRECOMPILED_STORE", "VLLM_PRECOMPILED_STORES"),
    ],
)
def test_a_slip_is_answered_with_the_name(name: str, meant: str) -> None:
    (said,) = other_variables.misspelt({name: "cpu"})
    assert said == f"{name} is not a variable of this build; did you mean {meant}?"


@pytest.mark.parametrize(
    "name", [*ENGINE, *IGNORED, *(variable.name for variable in build_settings.variables())]
)
def test_names_that_are_no_slip(name: str) -> None:
    assert not list(other_variables.misspelt({name: "1"}))


def test_each_warning_comes_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(other_variables, "_said", set())
    monkeypatch.delenv("CONDA_BUILD", raising=False)
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_COMMIT", "nightly")
    monkeypatch.setenv("VLLM_TARGET_DEVCE", "cpu")
    other_variables.warn(os.environ, "cpu")
    said = capsys.readouterr().err
    assert said.count("warning: VLLM_PRECOMPILED_WHEEL_COMMIT has no effect here") == 1
    assert "did you mean VLLM_TARGET_DEVICE?" in said
    other_variables.warn(os.environ)
    assert not capsys.readouterr().err


def test_nothing_is_said_of_a_recipe_s_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(other_variables, "_said", set())
    monkeypatch.setenv("CONDA_BUILD", "1")
    monkeypatch.setenv("CUDAARCHS", "all")
    other_variables.warn(os.environ, "cuda")
    assert not capsys.readouterr().err


def test_what_packages_do_not_take_is_named() -> None:
    environ = {
        "MAX_JOBS": "2",
        "CHANNEL": "local",
        "VLLM_TARGET_DEVICE": "cuda",
        "CMAKE_ARGS": "-DX=1",
        "CUDA_HOME": " ",
    }
    (said,) = other_variables.not_for_packages(environ)
    assert said.endswith(": CMAKE_ARGS, VLLM_TARGET_DEVICE")
    assert not list(other_variables.not_for_packages({"MAX_JOBS": "2"}))
    archs = {"TORCH_CUDA_ARCH_LIST": "9.0a", "PYTORCH_ROCM_ARCH": "gfx90a"}
    assert not list(other_variables.not_for_packages(archs))


def test_every_variable_of_the_recipe_is_one_that_packages_take(root: Path) -> None:
    names = {variable.name for variable in build_settings.variables()}
    assert names >= other_variables.TAKEN_BY_PACKAGES
    recipes = sorted((root / "recipe").glob("*/recipe.yaml"))
    assert len(recipes) == 5
    for recipe in recipes:
        text = recipe.read_text(encoding="utf-8")
        for name in names - other_variables.TAKEN_BY_PACKAGES:
            assert f'env.get("{name}"' not in text, name


def test_the_page_has_every_row() -> None:
    page = settings_page.page()
    for name in IGNORED:
        assert f"`{name}`" in page
    for names in other_variables.HONOURED:
        assert names in page


def _reads(path: Path) -> set[str]:
    """Names of variables that a module reads from ``os.environ``, as written in its source."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("get", "getenv", "setdefault")
            and node.args
        ):
            where, key = ast.unparse(node.func.value), node.args[0]
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            where, key = ast.unparse(node.value), node.slice
        else:
            continue
        if (
            where.rpartition(".")[2] in ("environ", "inherited", "env", "os")
            and isinstance(key, ast.Constant)
            and isinstance(key.value, str)
        ):
            found.add(key.value)
    return found


def test_no_variable_is_read_that_is_not_in_the_table(root: Path) -> None:
    known = {variable.name for variable in build_settings.variables()} | AMBIENT | HANDED_ON
    library = sorted((root / "scripts" / "vllm_build").rglob("*.py"))
    outside = {f"{path.name}: {name}" for path in library for name in _reads(path) - known}
    assert not outside
    assert "MAX_JOBS" not in {name for path in library for name in _reads(path)}, (
        "Settings reads it"
    )
