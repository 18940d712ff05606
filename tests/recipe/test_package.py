# SPDX-License-Identifier: Apache-2.0
"""Decisions before a build of packages: the toolchain, the architectures, and what to build."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from vllm_build.conda import (
    needed_builds,
    package_channel,
    package_job,
    package_request,
    recipe_outputs,
    variants,
)
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.settings.build_settings import Settings
from vllm_build.toolchain import toolchain_builds
from vllm_build.util.errors import ConfigurationError, NothingToDoError, ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.util.console import Console


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_CUDA_ARCH_LIST", "CMAKE_CUDA_ARCHITECTURES", "CMAKE_ARGS"):
        monkeypatch.delenv(name, raising=False)


def request_for(root: Path, name: str, output: Path) -> package_request.Request:
    return package_request.Request(
        root,
        variants.load(root, name),
        package_channel.LOCAL,
        output,
        Settings.from_environ(os.environ),
    )


def edited(root: Path, folder: Path, old: str, new: str) -> str:
    """A variant file like cuda13 with one value changed."""
    path = folder / "mine.yaml"
    text = (root / "variants" / "cuda13.yaml").read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return str(path)


def test_a_key_asks_for_signatures_that_channels_do_not_have(
    root: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PRECOMPILED_KEY", "public.pem")
    request = package_request.Request(
        root,
        variants.load(root, "cpu"),
        package_channel.LOCAL,
        tmp_path,
        Settings.from_environ(os.environ),
        ("https://example.invalid/channel",),
    )
    output = recipe_outputs.Output("vllm", "0.1.0", "h0_0", noarch=True, run=())
    with pytest.raises(RefusedError, match="a conda channel is not signed"):
        package_job.take(request, (output,), (), console)
    assert package_job.take(request, (), (), console) == ()


def test_the_cpu_needs_no_part_of_a_toolkit(root: Path, tmp_path: Path) -> None:
    ids = needed_builds.toolchain_builds(request_for(root, "cpu", tmp_path))
    assert {"gxx_linux-64", "python-3.11", "pytorch-3.11"} <= set(ids)
    closure = toolchain_builds.select(toolchain_builds.load(root), ids)
    assert not [build.id for build in closure if "cuda" in build.id or build.id.startswith("rocm")]


def test_packages_that_are_only_run_with_do_not_rename_the_kernels(
    root: Path, tmp_path: Path
) -> None:
    request = request_for(root, "cpu", tmp_path)
    run_only = {"certifi", "transformers"} & set(needed_builds.toolchain_builds(request))
    assert {"certifi", "transformers"} <= run_only
    for noarch in (False, True):
        assert run_only.isdisjoint(needed_builds.package_builds(request, noarch=noarch))
    assert "gxx_linux-64" in needed_builds.package_builds(request, noarch=False)
    assert "gxx_linux-64" not in needed_builds.package_builds(request, noarch=True)


@pytest.mark.parametrize(("name", "release"), [("cuda124", "12.4"), ("cuda13", "13.0")])
def test_a_cuda_variant_needs_the_toolkit_of_its_release_alone(
    root: Path, tmp_path: Path, name: str, release: str
) -> None:
    ids = needed_builds.toolchain_builds(request_for(root, name, tmp_path))
    assert {f"cuda-nvcc-{release}", f"cuda-version-{release}", "gxx_linux-64"} <= set(ids)
    releases = {
        build.variant.get("cuda_release")
        for build in toolchain_builds.select(toolchain_builds.load(root), ids)
    } - {None}
    assert releases == {release}
    needed_builds.require_toolchain(request_for(root, name, tmp_path))


def test_the_rocm_build_needs_no_cuda_driver_and_is_chosen_by_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "")
    request = request_for(root, "rocm", tmp_path)
    assert request.driver is None
    assert package_job.install_line(request).endswith(' vllm "vllm-kernels=*=rocm*"')
    assert request_for(root, "cuda13", tmp_path).driver == "13.0"
    assert package_job.install_line(request_for(root, "cpu", tmp_path)).endswith(" vllm")


def test_nothing_to_compile_is_said_before_anything_is_downloaded(
    root: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ensure(*_: object) -> None:
        raise AssertionError("the toolchain was asked for")

    monkeypatch.setattr(package_job.channel_build, "ensure", ensure)
    # The device ``empty`` never has kernels.
    variant = variants.load(root, "cpu")
    with pytest.raises(NothingToDoError, match="empty"):
        package_job.package(
            package_request.Request(
                root,
                variants.Variant("none", variant.path, {**variant.values, "accelerator": "empty"}),
                "local",
                tmp_path,
                Settings.from_environ(os.environ),
            ),
            console,
        )


def test_a_toolkit_that_no_recipe_makes_is_named_with_those_that_there_are(
    root: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ToolchainError, match=r"no cuda-nvcc_linux-64 for cuda_compiler_version 12\.9"
    ) as caught:
        needed_builds.require_toolchain(request_for(root, "cuda12", tmp_path))
    assert caught.value.expected == "cuda_compiler_version 12.4 or 13.0"
    assert "CHANNEL=conda-forge" in (caught.value.remedy or "")
    with pytest.raises(ToolchainError, match=r"no python for python 3\.12"):
        needed_builds.require_toolchain(
            request_for(root, edited(root, tmp_path, '"3.11"', '"3.12"'), tmp_path)
        )
    needed_builds.require_toolchain(request_for(root, "cpu", tmp_path))


def test_the_variable_narrows_the_architectures_and_changes_the_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, cpu = request_for(root, "cuda13", tmp_path), request_for(root, "cpu", tmp_path)
    before, usual = package_request.expected(request), package_request.expected(cpu)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0a 8.0")
    request, cpu = request_for(root, "cuda13", tmp_path), request_for(root, "cpu", tmp_path)
    assert package_request.stamps(request)["cuda_arch_list"] == "8.0;9.0a"
    after = package_request.expected(request)
    assert {o.name for o in before if o not in after} == {
        "vllm-engine-kernels",
        "vllm-kernels",
        "vllm-flash-attn",
        "vllm-flashmla",
    }
    assert package_request.expected(cpu) == usual
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0z")
    with pytest.raises(ConfigurationError, match="TORCH_CUDA_ARCH_LIST"):
        package_request.stamps(request_for(root, "cuda13", tmp_path))


def test_a_malformed_list_of_a_variant_file_names_the_file(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"mine\.yaml: '9\.0z' is not a GPU architecture"):
        package_request.planned(request_for(root, edited(root, tmp_path, "9.0a", "9.0z"), tmp_path))


def test_the_locked_sources_that_are_compiled_are_fetched(
    root: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(
        package_job.third_party_fetch, "fetch", lambda source, *_: fetched.append(source.name)
    )
    package_job.fetch_sources(request_for(root, "cpu", tmp_path), console)
    assert fetched == ["vllm"]
    fetched.clear()
    package_job.fetch_sources(request_for(root, "cuda13", tmp_path), console)
    engine = ["cutlass-examples", "engine-cutlass", "engine-kernels"]
    assert sorted(fetched) == ["cutlass", *engine, "flash-attention", "vllm"]
    fetched.clear()
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    package_job.fetch_sources(request_for(root, "cuda13", tmp_path), console)
    assert sorted(fetched) == ["engine-cutlass", "engine-kernels", "vllm"]
    fetched.clear()
    monkeypatch.setenv("VLLM_KERNELS", "own")
    package_job.fetch_sources(request_for(root, "cuda13", tmp_path), console)
    assert fetched == ["vllm"], "nothing is written with it for 7.5"
