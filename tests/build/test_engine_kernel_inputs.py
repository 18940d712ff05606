# SPDX-License-Identifier: Apache-2.0
"""The engine's CUDA sources in a build folder: what programs write, and other CUTLASS releases."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.kernels.kernel_choice import Choice
from vllm_build.settings.build_settings import Settings
from vllm_build.sources import engine_kernels, folder_digest, third_party
from vllm_build.toolchain import third_party_fetch
from vllm_build.util import paths
from vllm_build.util.console import Console
from vllm_build.util.errors import ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from vllm_build.kernels.build_plan import Plan

ROOT = paths.source_root()


def checkout(folder: Path, version: str | None) -> Settings:
    """A tree with the folders of CUTLASS, and settings that choose it."""
    (folder / "include" / "cutlass").mkdir(parents=True)
    (folder / "tools" / "util").mkdir(parents=True)
    if version is not None:
        (folder / "include" / "cutlass" / "version.h").write_text(version, encoding="utf-8")
    return Settings.from_environ({"VLLM_CUTLASS_SRC_DIR": str(folder)})


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("#define CUTLASS_MAJOR 3\n#define CUTLASS_MINOR 9\n", "is CUTLASS 3.9"),
        ("#define CUTLASS_MAJOR 4\n#define CUTLASS_MINOR 2\n", "is CUTLASS 4.2"),
        ("#define CUTLASS_VERSION 9\n", "is CUTLASS of unknown release"),
        (None, "is CUTLASS of unknown release"),
    ],
)
def test_an_old_cutlass_is_refused(tmp_path: Path, version: str | None, said: str) -> None:
    settings = checkout(tmp_path / "cutlass", version)
    with pytest.raises(ConfigurationError, match=said) as caught:
        engine_kernels._cutlass(ROOT, settings)
    assert "CUTLASS 4.3 or newer" in str(caught.value.expected)


@pytest.mark.parametrize("version", ["4\n#define CUTLASS_MINOR 3", "5\n#define CUTLASS_MINOR 0"])
def test_a_newer_cutlass_is_used(tmp_path: Path, version: str) -> None:
    settings = checkout(tmp_path / "cutlass", f"#define CUTLASS_MAJOR {version}\n")
    assert engine_kernels._cutlass(ROOT, settings) == tmp_path / "cutlass"


def test_a_folder_without_cutlass_is_refused(tmp_path: Path) -> None:
    settings = Settings.from_environ({"VLLM_CUTLASS_SRC_DIR": str(tmp_path)})
    with pytest.raises(ConfigurationError, match="does not contain the sources of CUTLASS"):
        engine_kernels._cutlass(ROOT, settings)


def test_a_program_that_fails(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import no_such_module\n", encoding="utf-8")
    with pytest.raises(ToolchainError, match="no_such_module") as caught:
        engine_kernels._run("program.py", program, (), ())
    assert str(caught.value.remedy) == f"install jinja2 for {sys.executable}"


def plan(archs: str) -> Plan:
    return plan_resolver.resolve(
        kernels_table.load(ROOT),
        "cuda",
        toolkit_version=Version("13.0"),
        arch_list=archs,
        choice=Choice(provider="engine", kernel_set="full"),
    )


@pytest.fixture(scope="module")
def fetched() -> None:
    for name in (engine_kernels.NAME, engine_kernels.CUTLASS, engine_kernels.EXAMPLES):
        third_party_fetch.fetch(third_party.read(ROOT)[name], Console(quiet=True), os.environ)


@pytest.mark.slow
@pytest.mark.usefixtures("fetched")
def test_the_programs_write_the_same_files_each_time(tmp_path: Path) -> None:
    """Also in another folder, with another locale and another seed for hashes."""
    settings = Settings.from_environ({})
    made = {}
    before = folder_digest.digest_of(third_party.read(ROOT)[engine_kernels.NAME].folder)
    for name, seed in (("first", "1"), ("second", "2")):
        os.environ["PYTHONHASHSEED"] = seed
        try:
            found = engine_kernels.prepare(ROOT, settings, plan("9.0a"), tmp_path / name)
        finally:
            del os.environ["PYTHONHASHSEED"]
        copy = Path(found["ENGINE_KERNELS_SRC_DIR"])
        made[name] = folder_digest.digest_of(copy)
        written = {
            path.relative_to(copy).as_posix()
            for path in copy.rglob("*.cu")
            if re.search(r"/(sm[0-9]+_kernel_|generated/)", path.as_posix())
        }
        assert len([name for name in written if "/moe/" in name]) >= 14
        assert "csrc/quantization/machete/generated/machete_mm_impl_part8.cu" in written
    assert made["first"] == made["second"]
    source = third_party.read(ROOT)[engine_kernels.NAME].folder
    assert folder_digest.digest_of(source) == before, "a program wrote into the cache"


@pytest.mark.slow
@pytest.mark.usefixtures("fetched")
def test_the_architectures_decide_what_is_written(tmp_path: Path) -> None:
    turing = engine_kernels.prepare(ROOT, Settings.from_environ({}), plan("7.5"), tmp_path)
    marlin = Path(turing["ENGINE_KERNELS_SRC_DIR"], "csrc", "quantization", "marlin")
    names = {re.sub(r"_kernel_.*", "", path.name) for path in marlin.glob("sm*_kernel_*.cu")}
    assert names == {"sm75"}
