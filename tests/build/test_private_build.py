# SPDX-License-Identifier: Apache-2.0
"""Flags and sources that the tree does not describe: they make a build private or are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reuse_files import DIGEST

from vllm_build.digests import influence, tree_digests
from vllm_build.kernels import kernel_choice, kernels_table, plan_resolver
from vllm_build.native import highway_lookup, private_build
from vllm_build.native.build_configuration import Configuration
from vllm_build.reuse import preparation
from vllm_build.reuse.records import fitness
from vllm_build.settings.build_settings import Settings
from vllm_build.sources import folder_digest, third_party
from vllm_build.target.device import Target
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def config(
    root: Path, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Configuration:
    """A build for CPUs with the locked Highway."""
    assert bare.is_dir()
    monkeypatch.setattr(
        highway_lookup, "find", lambda _: {"HIGHWAY_SRC_DIR": str(tmp_path / "highway")}
    )
    return Configuration.of(root, Settings(target_device="cpu", build_root=tmp_path / "build"))


def named(config: Configuration, **environ: str) -> list[str]:
    return [str(influence) for influence in private_build.influences(within(config, environ))]


def within(config: Configuration, environ: Mapping[str, str]) -> Configuration:
    """The same build in an environment."""
    return replace(config, settings=replace(config.settings, inherited=environ))


def arguments(config: Configuration, *words: str) -> Configuration:
    return replace(config, settings=replace(config.settings, cmake_args=words))


def build_digest(config: Configuration, **environ: str) -> str:
    return tree_digests.build_digest(
        DIGEST,
        "vllm-kernels",
        config.plan,
        config.abi,
        private_build.influences(within(config, environ)),
    )


def test_the_question_writes_nothing(
    root: Path, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Influences are computed before the build claims its folder.

    A file in the folder would count as a foreign one, and the build would fail.
    """
    assert bare.is_dir()
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    third_party.read(root)["highway"].folder.mkdir(parents=True)
    monkeypatch.setattr(third_party.Source, "cached", lambda source: source.folder)
    fetched = Configuration.of(root, Settings(target_device="cpu", build_root=tmp_path / "build"))
    assert "hwy" in fetched.plan.libraries
    assert private_build.influences(fetched) == ()
    assert not (tmp_path / "build").exists()
    fetched.prepare_folder()


def test_a_plain_build_is_not_private(config: Configuration) -> None:
    assert named(config) == []
    assert build_digest(config) == tree_digests.build_digest(
        DIGEST, "vllm-kernels", config.plan, config.abi
    )


@pytest.mark.parametrize("name", [*private_build._FLAGS, *private_build._PLACES])
def test_every_variable_that_reaches_a_compiler_counts(config: Configuration, name: str) -> None:
    assert named(config, **{name: "-O0"}) == [f"{name}=-O0"]
    digests = {
        build_digest(config),
        build_digest(config, **{name: "-O0"}),
        build_digest(config, **{name: "-O1"}),
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CC": "gcc-13", "CXX": "/usr/bin/g++"}, []),
        ({"CXX": "g++ -ffast-math"}, ["CXX=-ffast-math"]),
        ({"CXX": 'g++ "'}, ['CXX="']),
        ({"LDFLAGS": "-Wl,-rpath,/somewhere/lib"}, []),
        ({"LDFLAGS": "-Wl,-rpath,/somewhere/lib -L/somewhere/lib"}, ["LDFLAGS=-L/somewhere/lib"]),
        ({"NVCC_PREPEND_FLAGS": "-ccbin=/usr/bin/g++-13"}, []),
        ({"NVCC_PREPEND_FLAGS": "-ccbin g++-13 -lineinfo"}, ["NVCC_PREPEND_FLAGS=-lineinfo"]),
        ({"CFLAGS": "  ", "CPATH": ""}, []),
    ],
)
def test_compilers_and_run_paths_do_not_count(
    config: Configuration, environ: dict[str, str], expected: list[str]
) -> None:
    assert named(config, **environ) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            (
                "-DCMAKE_BUILD_TYPE=Release",
                "-DCMAKE_CXX_COMPILER=g++",
                "-DCMAKE_CUDA_COMPILER_LAUNCHER=ccache",
            ),
            [],
        ),
        (("-DCMAKE_CXX_FLAGS=-O0",), ["CMAKE_ARGS=-DCMAKE_CXX_FLAGS=-O0"]),
        (("-D", "CMAKE_CXX_FLAGS:STRING=-O0"), ["CMAKE_ARGS=-DCMAKE_CXX_FLAGS:STRING=-O0"]),
        (("--debug-find",), ["CMAKE_ARGS=--debug-find"]),
        (("-C", "cache.cmake"), ["CMAKE_ARGS=-C", "CMAKE_ARGS=cache.cmake"]),
    ],
)
def test_arguments_for_cmake(
    config: Configuration, words: tuple[str, ...], expected: list[str]
) -> None:
    assert named(arguments(config, *words)) == expected


def test_a_debug_build_is_private(config: Configuration) -> None:
    assert named(replace(config, build_type="Debug")) == ["CMAKE_BUILD_TYPE=Debug"]
    assert named(replace(config, build_type="RelWithDebInfo")) == []


def test_the_content_of_replaced_sources_counts(config: Configuration, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "hwy").mkdir(parents=True)
        (tmp_path / folder / "hwy" / "base.h").write_text("// upstream\n", encoding="utf-8")

    def mine(folder: str) -> Configuration:
        return replace(config, settings=replace(config.settings, highway_source=tmp_path / folder))

    assert named(mine("one")) == [f"HIGHWAY_SRC_DIR={tmp_path / 'one'}"]
    assert build_digest(mine("one")) == build_digest(mine("two")) != build_digest(config)
    (tmp_path / "two" / "hwy" / "base.h").write_text("// mine\n", encoding="utf-8")
    folder_digest.forget()  # as the next build does
    assert build_digest(mine("one")) != build_digest(mine("two"))
    by_argument = arguments(config, f"-DHIGHWAY_SRC_DIR={tmp_path / 'one'}")
    assert f"HIGHWAY_SRC_DIR={tmp_path / 'one'}" in named(by_argument)


def test_a_highway_that_is_not_the_locked_one(
    config: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "prefix" / "lib" / "cmake" / "hwy"
    installed.mkdir(parents=True)
    (tmp_path / "prefix" / "include" / "hwy").mkdir(parents=True)
    monkeypatch.setattr(highway_lookup, "find", lambda *_: {"hwy_DIR": str(installed)})
    assert named(config) == [f"hwy_DIR={tmp_path / 'prefix' / 'include' / 'hwy'}"]
    monkeypatch.setattr(highway_lookup, "find", lambda *_: {})
    assert named(config) == ["Highway=the one that CMake finds"]


def test_sources_of_cuda(root: Path, config: Configuration, tmp_path: Path) -> None:
    resolved = plan_resolver.resolve(
        kernels_table.load(root),
        "cuda",
        toolkit_version=fitness.Version("13.0"),
        arch_list="9.0a",
        choice=kernel_choice.Choice("check"),
    )
    for name in ("cutlass", "flash"):
        (tmp_path / name).mkdir()
    mine = replace(
        config,
        plan=resolved,
        settings=replace(
            config.settings,
            cutlass_source=tmp_path / "cutlass",
            flash_attention_source=tmp_path / "flash",
        ),
    )
    assert named(mine) == [
        f"VLLM_CUTLASS_SRC_DIR={tmp_path / 'cutlass'}",
        f"VLLM_FLASH_ATTN_SRC_DIR={tmp_path / 'flash'}",
    ]
    assert named(replace(mine, plan=config.plan)) == []


def test_flags_of_the_recipe_come_from_packages(config: Configuration) -> None:
    settings = replace(config.settings, recipe_build=True)
    inside = replace(
        config, settings=replace(settings, build_prefix=Path("/build"), host_prefix=Path("/host"))
    )
    assert named(inside, CXXFLAGS="-march=nocona -O2", CPATH="/x") == []
    assert named(replace(config, settings=settings), CXXFLAGS="-O2") == ["CXXFLAGS=-O2"], (
        "only a conda build has both prefixes"
    )


@pytest.mark.parametrize(
    "flag",
    [
        *(
            "-march=native",
            "-mcpu=native",
            "-march=x86-64-v3",
            "-march=haswell",
            "-mavx",
            "-mavx512f",
            "-mfma",
            "-mf16c",
        ),
        *(
            "-msse4.2",
            "-mssse3",
            "-mamx-tile",
            "-mbmi2",
            "-mpopcnt",
            "-Xcompiler=-march=native",
            "-Xcompiler -mavx2",
            "-xHost",
            "-axCORE-AVX2",
        ),
        *("-march=armv9-a", "-mcpu=neoverse-v2"),
    ],
)
@pytest.mark.parametrize(
    "place", ["CXXFLAGS", "CFLAGS", "CUDAFLAGS", "NVCC_APPEND_FLAGS", "CXX", "CMAKE_ARGS", "file"]
)
def test_flags_that_choose_an_instruction_set_are_refused(
    config: Configuration, tmp_path: Path, flag: str, place: str
) -> None:
    environ = {place: f"-O2 {flag} -g"}
    if place == "CXX":
        environ = {"CXX": f"g++ {flag}"}
    elif place == "CMAKE_ARGS":
        config, environ = arguments(config, f"-DCMAKE_CXX_FLAGS=-O2 {flag}"), {}
    elif place == "file":
        (tmp_path / "flags").write_text(f"-O2\n{flag}\n", encoding="utf-8")
        environ = {"CXXFLAGS": f"@{tmp_path / 'flags'}"}
    with pytest.raises(ConfigurationError, match="which chooses an instruction set") as caught:
        private_build.require_portable(within(config, environ))
    assert flag.rpartition("=")[2].split()[-1] in str(caught.value)


@pytest.mark.parametrize(
    "flags",
    [
        (
            "-march=nocona -mtune=haswell -ftree-vectorize -fPIC -fstack-protector-strong -fno-plt "
            "-O2 "
            "-isystem /p/include"
        ),
        "-march=x86-64 -m64 -mcmodel=medium -mno-omit-leaf-frame-pointer -msse2",
        (
            "-g -O2 -ffile-prefix-map=/build/x-march=native=. -fstack-protector-strong -Wformat "
            "-Werror=format-security"
        ),
        "-march=armv8-a -mbranch-protection=standard",
    ],
)
def test_flags_of_packagers_are_accepted(config: Configuration, flags: str) -> None:
    private_build.require_portable(within(config, {"CXXFLAGS": flags}))
    assert named(config, CXXFLAGS=flags) == [
        f"CXXFLAGS={flags}"[: 9 + influence._SHOWN] + ("…" if len(flags) > 120 else "")
    ]


def test_with_the_same_flags_a_store_is_asked_for_the_private_build(
    config: Configuration, root: Path
) -> None:
    target = Target("cpu", "why")
    (clean,) = preparation.find_wanted(root, preparation.make_plan(root, Settings(), target))
    assert not clean.tree_digest
    (same,) = preparation.find_wanted(root, config.plan, config)
    assert (same.digest, same.tree_digest) == (clean.digest, clean.digest)
    (private,) = preparation.find_wanted(root, config.plan, within(config, {"CXXFLAGS": "-O0"}))
    assert private.digest != clean.digest == private.tree_digest
