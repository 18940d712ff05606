# SPDX-License-Identifier: Apache-2.0
"""The build front ends pip, build and uv, with a tree, a source distribution and an index."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from front_end_runs import UV, UV_PIP, copy_release, installed, run_module

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Runner = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return functools.partial(run_module, tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy_release(tmp_path / "tree")


@pytest.fixture
def base(root: Path) -> str:
    return (root / "VERSION").read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution that ``build`` made, in a folder that is used as an index."""
    folder = tmp_path_factory.mktemp("sdist")
    tree = copy_release(folder / "tree")
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
    into.mkdir(exist_ok=True)
    # tarfile has no filters before 3.11.4, and warns without them since 3.12.
    subprocess.run(["tar", "-xf", str(sdist), "-C", str(into)], check=True)
    return into / sdist.name.removesuffix(".tar.gz")


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
