# SPDX-License-Identifier: Apache-2.0
"""The build front ends pip, build and uv, with a tree, a source distribution and an index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from vllm_build.native import cmake_configure, private_build
from vllm_build.settings import build_settings
from vllm_build.util import paths, toml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Runner = Callable[..., str]

NOT_IN_A_CLONE = (
    ".git",
    ".venv",
    "output",
    "build",
    "dist",
    "tests",
    "__pycache__",
    "*.so",
    "*.egg-info",
    "_version.py",
    "_build_info",
    ".*_cache",
)
UV = ("-m", "uv")
#: uv takes the build requirements from the interpreter that it installs for; this test's has them.
UV_PIP = (*UV, "pip", "install", "--no-build-isolation", "--no-deps", "--offline")
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
    """Runs a module of this interpreter, without this machine's configuration.

    Fails the test if the module fails.
    """

    def call(*words: object, device: str = "empty", **variables: str) -> str:
        kept = {
            name: os.environ[name]
            for name in ("PATH", "LANG", "COVERAGE_PROCESS_CONFIG")
            if name in os.environ
        }
        env = {
            **kept,
            "HOME": str(tmp_path / "home"),
            "VLLM_TARGET_DEVICE": device,
            "PIP_CONFIG_FILE": os.devnull,
            **variables,
        }
        env |= {"UV_CACHE_DIR": str(tmp_path / "uv"), "UV_NO_CONFIG": "1"}
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}"
        return done.stdout

    return call


@pytest.fixture
def tree(tmp_path: Path, root: Path) -> Path:
    """The tree as in a tarball: without git, and without the metadata of a source distribution."""
    return shutil.copytree(
        root, tmp_path / "tree", ignore=shutil.ignore_patterns(*NOT_IN_A_CLONE), symlinks=True
    )


@pytest.fixture
def base(root: Path) -> str:
    return (root / "VERSION").read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution that ``build`` made, in a folder that is used as an index."""
    folder = tmp_path_factory.mktemp("sdist")
    tree = shutil.copytree(
        paths.source_root(),
        folder / "tree",
        ignore=shutil.ignore_patterns(*NOT_IN_A_CLONE),
        symlinks=True,
    )
    command = [
        sys.executable,
        "-m",
        "build",
        "--sdist",
        "--no-isolation",
        "--outdir",
        str(folder / "index"),
        str(tree),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = (folder / "index").glob("*.tar.gz")
    return archive


def unpacked(sdist: Path, into: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(into, filter="data")
    return into / sdist.name.removesuffix(".tar.gz")


def installed(site: Path) -> tuple[str, str]:
    """The version in the metadata, and the version that the package reports."""
    (info,) = site.glob("vllm-*.dist-info")
    said = re.search(
        r'__version__ = "(.*)"', (site / "vllm" / "_version.py").read_text(encoding="utf-8")
    )
    assert said is not None
    return info.name.removeprefix("vllm-").removesuffix(".dist-info"), said[1]


FROM_INDEX: Mapping[str, tuple[str, ...]] = {
    "pip": (
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--no-binary=vllm",
    ),
    "uv": (*UV_PIP, "--no-index", "--no-binary=vllm"),
}


@pytest.mark.parametrize(("front_end", "device"), [("pip", "tpu"), ("uv", "empty")])
def test_a_source_distribution_installs_by_name(
    sdist: Path, tmp_path: Path, base: str, run: Runner, front_end: str, device: str
) -> None:
    """pip refuses an "inconsistent version: expected '0.1.0', but metadata has '0.1.0+empty'"."""
    run(
        *FROM_INDEX[front_end],
        "--find-links",
        sdist.parent,
        "--target",
        tmp_path / "site",
        "vllm",
        device=device,
    )
    assert installed(tmp_path / "site") == (base, base)


def test_a_source_distribution_of_a_chosen_version(tree: Path, tmp_path: Path, run: Runner) -> None:
    """The wheel has the version that was chosen for the source distribution.

    The machine that builds the wheel knows this version only from the unpacked files.
    """
    run(
        "-m",
        "build",
        "--sdist",
        "--no-isolation",
        "--outdir",
        tmp_path / "index",
        tree,
        VLLM_VERSION_OVERRIDE="7.1rc2",
    )
    run(
        *FROM_INDEX["pip"],
        "--find-links",
        tmp_path / "index",
        "--target",
        tmp_path / "site",
        "--pre",
        "vllm",
    )
    assert installed(tmp_path / "site") == ("7.1rc2", "7.1rc2")


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "build", "--no-isolation", "--outdir"),
        (*UV, "build", "--no-build-isolation", "--offline", "--out-dir"),
    ],
    ids=["build", "uv"],
)
def test_the_wheel_of_build_comes_from_its_source_distribution(
    tree: Path, tmp_path: Path, base: str, run: Runner, command: tuple[str, ...]
) -> None:
    """``uv build`` fails (status 2) if the wheel and the source distribution differ in version."""
    run(*command, tmp_path / "dist", tree)
    assert sorted(path.name for path in (tmp_path / "dist").glob("vllm-*")) == [
        f"vllm-{base}-py3-none-any.whl",
        f"vllm-{base}.tar.gz",
    ]


@pytest.mark.parametrize(
    ("variables", "suffix"),
    [({}, ""), ({"VLLM_VERSION_SUFFIX": "1"}, "+empty")],
)
def test_versions_of_an_unpacked_source_distribution(
    sdist: Path, tmp_path: Path, base: str, run: Runner, variables: dict[str, str], suffix: str
) -> None:
    folder = unpacked(sdist, tmp_path)
    run(
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "-w",
        tmp_path / "w",
        folder,
        **variables,
    )
    assert (tmp_path / "w" / f"vllm-{base}{suffix}-py3-none-any.whl").is_file()


def test_a_source_distribution_in_a_repository_is_a_clone(
    sdist: Path, tmp_path: Path, base: str, run: Runner
) -> None:
    """A committed source distribution is a source tree, whose wheels have a suffix."""
    folder = unpacked(sdist, tmp_path)
    (folder / ".git").mkdir()
    run("-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", tmp_path / "v", folder)
    assert (tmp_path / "v" / f"vllm-{base}+empty-py3-none-any.whl").is_file()


HOOKS = """
import pathlib, sys
sys.path.insert(0, "scripts")
from vllm_build import backend
kind, out = sys.argv[1], pathlib.Path(sys.argv[2])
metadata, wheels = out / "metadata", out / "wheels"
for folder in (metadata, wheels):
    folder.mkdir(parents=True)
prepared = getattr(backend, "prepare_metadata_for_build_" + kind)(str(metadata))
wheel = getattr(backend, "build_" + kind)(str(wheels), None, str(metadata / prepared))
import zipfile
with zipfile.ZipFile(wheels / wheel) as archive:
    names = [name for name in archive.namelist() if ".dist-info/" in name]
    built = {name.partition("/")[2]: archive.read(name) for name in names}
for file in (metadata / prepared).rglob("*"):
    name = file.relative_to(metadata / prepared).as_posix()
    if file.is_file() and name in built:
        assert built[name] == file.read_bytes(), name
print("consistent:", prepared, wheel)
"""


@pytest.mark.parametrize(
    ("kind", "origin", "variables"),
    [
        ("wheel", "tree", {"VLLM_VERSION_OVERRIDE": "1.0RC3"}),
        ("wheel", "sdist", {}),
        ("editable", "sdist", {"VLLM_VERSION_SUFFIX": "1"}),
    ],
)
def test_both_hooks_give_the_same_metadata(
    sdist: Path,
    tree: Path,
    tmp_path: Path,
    run: Runner,
    kind: str,
    origin: str,
    variables: dict[str, str],
) -> None:
    folder = tree if origin == "tree" else unpacked(sdist, tmp_path)
    said = run(
        "-c", f"import os; os.chdir({str(folder)!r})\n{HOOKS}", kind, tmp_path / "out", **variables
    )
    assert "consistent: vllm-" in said


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
