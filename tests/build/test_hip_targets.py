# SPDX-License-Identifier: Apache-2.0
"""A HIP compiler that cannot compile for an architecture of the plan is refused before CMake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.native import hip_targets
from vllm_build.settings.build_settings import Settings
from vllm_build.target.toolkits import toolkit_finder, toolkit_search
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("bare")

#: Answers as clang does: it knows some processors, and has device libraries for fewer. It records
#: its arguments.
CLANG = """#!/bin/sh
echo "$@" >> {here}/asked
case " $* " in
*" -print-targets "*) echo amdgcn; exit 0 ;;
*gfx950*) echo 'clang++: error: unsupported HIP gpu architecture: gfx950' >&2; exit 1 ;;
*gfx1201*) echo 'clang version 19.0.0
clang++: error: cannot find ROCm device library for gfx1201; provide its path' >&2; exit 1 ;;
esac
"""


@pytest.fixture
def rocm(tmp_path: Path) -> Path:
    program(tmp_path / "rocm/llvm/bin/clang++", CLANG.format(here=tmp_path))
    (tmp_path / "rocm" / ".info").mkdir()
    (tmp_path / "rocm" / ".info" / "version").write_text("7.2.0", encoding="utf-8")
    return tmp_path / "rocm"


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def require(rocm: Path, archs: str, **variables: Any) -> None:
    settings = Settings(rocm_home=rocm, **variables)
    table = kernels_table.load(paths.source_root())
    plan = plan_resolver.resolve(table, "rocm", toolkit_version=Version("7.2"), arch_list=archs)
    toolkit = toolkit_finder.find_rocm(settings)
    assert toolkit is not None
    hip_targets.require(plan, toolkit, settings)


def test_a_compiler_with_every_device_library(rocm: Path, tmp_path: Path) -> None:
    require(rocm, "gfx90a gfx942", inherited={"HIPFLAGS": "-O1 --rocm-device-lib-path=/x"})
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()[1:]
    for arch, line in zip(("gfx90a", "gfx942"), asked, strict=True):
        assert f"--rocm-path={rocm} -O1 --rocm-device-lib-path=/x --offload-arch={arch} " in line


@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        ("gfx950", "unsupported HIP gpu architecture: gfx950"),
        ("gfx1201", "cannot find ROCm device library for gfx1201; provide its path"),
    ],
)
def test_an_architecture_that_the_compiler_lacks(rocm: Path, arch: str, reason: str) -> None:
    with pytest.raises(ToolchainError) as caught:
        require(rocm, f"gfx90a {arch}")
    assert caught.value.message == f"{rocm}/llvm/bin/clang++ does not compile for {arch}: {reason}"
    assert caught.value.expected == (
        f"some of gfx90a, gfx942, gfx1030, gfx1100, for which it compiles with {rocm}"
    )
    assert "PYTORCH_ROCM_ARCH" in (caught.value.remedy or "")


def test_several_architectures_give_one_error(rocm: Path) -> None:
    with pytest.raises(ToolchainError, match=r"does not compile for gfx950, gfx1201: unsupported"):
        require(rocm, "gfx950 gfx1201")


@pytest.mark.parametrize(
    "variables",
    [{"inherited": {"HIPCXX": "{} -m64"}}, {"cmake_args": ("-DCMAKE_HIP_COMPILER={};-m64",)}],
    ids=["HIPCXX", "CMAKE_ARGS"],
)
def test_a_chosen_compiler_that_is_not_for_amd_gpus(
    rocm: Path, tmp_path: Path, variables: Any
) -> None:
    text = "#!/bin/sh\necho \"g++: error: unrecognized option '$2'\" >&2; exit 1\n"
    path = program(tmp_path / "g++", text)
    (name,) = variables
    given = variables[name]
    chosen: Any = (
        {key: value.format(path) for key, value in given.items()}
        if isinstance(given, dict)
        else tuple(value.format(path) for value in given)
    )
    with pytest.raises(
        ToolchainError, match=r"g\+\+ does not compile for gfx90a: unrecog"
    ) as caught:
        require(rocm, "gfx90a", **{name: chosen})
    assert "--rocm-path" in caught.value.message
    assert "a clang for AMD GPUs" in (caught.value.expected or "")
    assert "HIPCXX" in (caught.value.remedy or "")


def test_a_chosen_compiler_that_does_not_exist(rocm: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="it cannot be run: No such file"):
        require(rocm, "gfx90a", inherited={"HIPCXX": str(tmp_path / "none")})


@pytest.mark.parametrize("name", ["HIPCXX", "HIPFLAGS"])
def test_a_variable_that_is_no_command_line(rocm: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        require(rocm, "gfx90a", inherited={name: "'-O1"})
    assert caught.value.message.startswith(f'{name}: "\'-O1" cannot be split into words: ')


def test_a_compiler_that_does_not_answer(
    rocm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolkit_search, "TIMEOUT", 0.2)
    path = program(tmp_path / "slow", "#!/bin/sh\nwhile :; do :; done\n")
    with pytest.raises(ToolchainError, match=r"no answer within 0.2 s"):
        require(rocm, "gfx90a", inherited={"HIPCXX": str(path)})
