# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 3: versions. The tables have one row per row of the contract."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build import cli
from vllm_build.project import distribution_version
from vllm_build.settings.build_settings import Settings
from vllm_build.settings.choices import DEVICES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ON: dict[str, Any] = {"use_precompiled": True}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "VERSION").write_text("1.2.3\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("device", "release", "variables", "expected"),
    [
        # cuda: all digits of major and minor
        ("cuda", "12.9", {}, "1.2.3+cu129"),
        ("cuda", "12.9.1", {}, "1.2.3+cu129"),
        ("cuda", "12.10", {}, "1.2.3+cu1210"),
        ("cuda", "11.8", {}, "1.2.3+cu118"),
        # cuda: none when it equals VLLM_MAIN_CUDA_VERSION, which is 13.0 by default
        ("cuda", "13.0", {}, "1.2.3"),
        ("cuda", "13.0.2", {}, "1.2.3"),
        ("cuda", "13.1", {}, "1.2.3+cu131"),
        ("cuda", "12.9", {"main_cuda_version": Version("12.9")}, "1.2.3"),
        ("cuda", "12.9", {"main_cuda_version": Version("12.9.1")}, "1.2.3"),
        ("cuda", "13.0", {"main_cuda_version": Version("12.9")}, "1.2.3+cu130"),
        # cuda: the toolkit is unknown, as for metadata without a toolkit
        ("cuda", None, {}, "1.2.3"),
        # cuda, precompiled
        ("cuda", "12.9", ON, "1.2.3+precompiled"),
        ("cuda", "13.0", ON, "1.2.3+precompiled"),
        ("cuda", "12.9", {"precompiled_location": "some.whl"}, "1.2.3+precompiled"),
        ("cuda", "12.9", {**ON, "skip_precompiled_version_suffix": True}, "1.2.3+cu129"),
        ("cuda", "13.0", {**ON, "skip_precompiled_version_suffix": True}, "1.2.3"),
        ("cuda", "12.9", {"skip_precompiled_version_suffix": True}, "1.2.3+cu129"),
        # only cuda has the suffix precompiled
        ("cpu", None, ON, "1.2.3+cpu"),
        ("rocm", "6.4.1", ON, "1.2.3+rocm64"),
        # rocm
        ("rocm", "6.4.1", {}, "1.2.3+rocm64"),
        ("rocm", "7.10", {}, "1.2.3+rocm710"),
        ("rocm", "13.0", {}, "1.2.3+rocm130"),
        ("rocm", None, {}, "1.2.3+rocm"),
        # the others: their name, regardless of the toolkit
        ("cpu", None, {}, "1.2.3+cpu"),
        ("cpu", "13.0", {}, "1.2.3+cpu"),
        ("tpu", None, {}, "1.2.3+tpu"),
        ("xpu", None, {}, "1.2.3+xpu"),
        ("xpu", "2025.1", {}, "1.2.3+xpu"),
        ("empty", None, {}, "1.2.3+empty"),
    ],
)
def test_suffix(
    tree: Path, device: str, release: str | None, variables: dict[str, Any], expected: str
) -> None:
    found = distribution_version.full_version(
        tree, Settings(**variables), device, Version(release) if release else None
    )
    assert found == expected


@pytest.mark.parametrize(
    ("base", "variables", "expected"),
    [
        # VLLM_VERSION_OVERRIDE comes first, verbatim
        ("1.2.3", {"version_override": "9.9RC1"}, "9.9RC1"),
        ("1.2.3", {"version_override": "9.9+x", "skip_version_suffix": True}, "9.9+x"),
        ("1.2.3", {"version_override": "9.9", **ON}, "9.9"),
        # then the base version, unchanged with VLLM_SKIP_VERSION_SUFFIX
        ("1.2.3", {"skip_version_suffix": True}, "1.2.3"),
        ("1.2.3", {"skip_version_suffix": True, **ON}, "1.2.3"),
        ("1.2.3+local", {"skip_version_suffix": True}, "1.2.3+local"),
        # the separator is `+` if the base has no local part, else `.`
        ("1.2.3", {}, "1.2.3+cu129"),
        ("1.2.3.dev4", {}, "1.2.3.dev4+cu129"),
        ("1.2.3.dev4+g123abc", {}, "1.2.3.dev4+g123abc.cu129"),
        ("1.2.3+local", ON, "1.2.3+local.precompiled"),
    ],
)
def test_order_and_separator(
    tree: Path, base: str, variables: dict[str, Any], expected: str
) -> None:
    (tree / "VERSION").write_text(base, encoding="utf-8")
    assert (
        distribution_version.full_version(tree, Settings(**variables), "cuda", Version("12.9"))
        == expected
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variables", [{}, ON])
def test_sdist_never_has_a_suffix(tree: Path, device: str, variables: dict[str, Any]) -> None:
    assert (
        distribution_version.full_version(
            tree, Settings(**variables), device, Version("12.9"), sdist=True
        )
        == "1.2.3"
    )
    assert (
        distribution_version.full_version(
            tree, Settings(version_override="7", **variables), device, sdist=True
        )
        == "7"
    )


@pytest.mark.usefixtures("bare")
def test_rocm_release_from_torch_when_there_is_no_toolkit(
    bare: Path, tree: Path, torch: Callable[..., Path]
) -> None:
    torch(bare, "2.11.0+rocm6.4", hip="6.4.43484-123956094", rocm="6.4.2")
    assert distribution_version.of_tree(tree, Settings()) == "1.2.3+rocm64"


@pytest.mark.usefixtures("bare")
def test_rocm_toolkit_comes_before_torch(
    bare: Path, tree: Path, torch: Callable[..., Path], hipcc: Callable[..., Path]
) -> None:
    torch(bare, "2.11.0+rocm6.4", hip="6.4.43484")
    hipcc(tree / "rocm", "7.1.0")
    assert distribution_version.of_tree(tree, Settings(rocm_home=tree / "rocm")) == "1.2.3+rocm71"


@pytest.mark.parametrize(
    "settings",
    [
        Settings(version_override="1.2.3"),
        Settings(skip_version_suffix=True),
        Settings(target_device="cpu", skip_version_suffix=True),
    ],
)
def test_device_is_not_looked_for_where_it_makes_no_difference(
    tree: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("looked for a device")

    monkeypatch.setattr(distribution_version.device, "resolve", refuse)
    assert distribution_version.of_tree(tree, settings) == "1.2.3"
    assert distribution_version.of_tree(tree, Settings(), sdist=True) == "1.2.3"


# vllm/_version.py has the full version in the spelling of the metadata.


@given(
    st.tuples(st.integers(0, 99), st.integers(0, 99)),
    st.sampled_from(["", "a1", "RC2", ".dev3", ".post4", "-1"]),
    st.sampled_from(["", "+cu129", "+Local_x.7", "+cpu"]),
)
def test_version_file_equals_metadata(
    tmp_path_factory: pytest.TempPathFactory, numbers: tuple[int, int], stage: str, local: str
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    text = f"{numbers[0]}.{numbers[1]}{stage}{local}"
    distribution_version.write_version_file(folder, text)
    namespace: dict[str, Any] = {}
    exec((folder / "vllm" / "_version.py").read_text(encoding="utf-8"), namespace)  # noqa: S102 - the file under test, written a line above
    assert namespace["__version__"] == str(Version(text))


# `vllm-build version [--device D] [--toolkit-version V] [--base B] [--sdist]` prints a version.


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        (["--device", "cuda", "--toolkit-version", "12.9", "--base", "1.0"], {}, "1.0+cu129"),
        (["--device", "CUDA", "--toolkit-version", "12.10", "--base", "1.0+x"], {}, "1.0+x.cu1210"),
        (["--device", "cuda", "--toolkit-version", "13.0", "--base", "1.0"], {}, "1.0"),
        (
            ["--device", "cuda", "--toolkit-version", "13.0", "--base", "1.0"],
            {"VLLM_MAIN_CUDA_VERSION": "12.9"},
            "1.0+cu130",
        ),
        (
            ["--device", "cuda", "--toolkit-version", "12.9", "--base", "1.0"],
            {"VLLM_USE_PRECOMPILED": "1"},
            "1.0+precompiled",
        ),
        (["--device", "rocm", "--toolkit-version", "6.4.1", "--base", "1.0"], {}, "1.0+rocm64"),
        (["--device", "rocm", "--base", "1.0"], {}, "1.0+rocm"),
        (["--device", "cuda", "--base", "1.0"], {}, "1.0"),
        (["--base", "1.0"], {}, "1.0+cpu"),
        (["--base", "1.0"], {"VLLM_TARGET_DEVICE": "xpu"}, "1.0+xpu"),
        (["--base", "1.0", "--device", "tpu"], {"VLLM_TARGET_DEVICE": "xpu"}, "1.0+tpu"),
        (["--base", "1.0", "--sdist"], {"VLLM_TARGET_DEVICE": "xpu"}, "1.0"),
        (["--base", "1.0"], {"VLLM_VERSION_OVERRIDE": "7.7"}, "7.7"),
        (["--base", "1.0"], {"VLLM_SKIP_VERSION_SUFFIX": "1"}, "1.0"),
        (["--base", "1.0"], {"VLLM_SKIP_VERSION_SUFFIX": ""}, "1.0+cpu"),
    ],
)
def test_command(
    arguments: list[str],
    environ: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["version", *arguments]) == 0
    assert capsys.readouterr().out == expected + "\n"
    assert cli.main(["version", "--json", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == expected


@pytest.mark.usefixtures("bare")
def test_command_takes_the_release_of_torch(
    bare: Path, torch: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    torch(bare, "2.11.0+cu126", cuda="12.6")
    assert cli.main(["version", "--base", "1.0"]) == 0
    assert capsys.readouterr().out == "1.0+cu126\n"
    assert cli.main(["version", "--base", "1.0", "--device", "cuda"]) == 0
    assert capsys.readouterr().out == "1.0+cu126\n"
    assert cli.main(["version", "--base", "1.0", "--toolkit-version", "12.9"]) == 0
    assert capsys.readouterr().out == "1.0+cu129\n"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--device", "gpu"], "--device"),
        (["--device", ""], "--device"),
        (["--device", "cuda", "--toolkit-version", "x"], "--toolkit-version"),
        (["--device", "cuda", "--toolkit-version", "-1"], "--toolkit-version"),
        (["--device", "cpu", "--base", "one"], "base"),
        (["--device", "cpu", "--base", ""], "base"),
    ],
)
def test_command_names_what_is_malformed(
    arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["version", *arguments]) == 2
    assert name in capsys.readouterr().err
