# SPDX-License-Identifier: Apache-2.0
"""Packages that the channel's PyTorch for CPUs permits, according to its recipes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from rattler import MatchSpec, solve
from rattler.exceptions import SolverError
from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VERSION = "2.13.0"


def ours(root: Path, name: str) -> dict[str, Any]:
    """The record of one of our packages, without the other dependencies of PyTorch."""
    recipe = YAML(typ="safe").load(
        (root / "toolchain" / "recipes" / name / "recipe.yaml").read_text(encoding="utf-8")
    )

    def filled(texts: Sequence[str]) -> list[str]:
        return [text.replace("${{ version }}", VERSION) for text in texts]

    build = recipe["build"]["string"].partition("${{")[0] + "h0_0"
    depends = [
        text for text in filled(recipe["requirements"]["run"]) if text.startswith("libtorch ")
    ]
    return record(
        name, VERSION, build, depends, constrains=filled(recipe["requirements"]["run_constraints"])
    )


def record(
    name: str, version: str, build: str = "0", depends: Sequence[str] = (), **more: object
) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "depends": list(depends),
        "subdir": "linux-64",
        **more,
    }


@pytest.fixture
def channel(root: Path, tmp_path: Path) -> str:
    """Our packages, CUDA builds with and without a pin of libtorch's build, and companions."""
    packages = [
        ours(root, "libtorch"),
        ours(root, "pytorch"),
        record("libtorch", VERSION, "cuda130_h1_0"),
        record("pytorch", VERSION, "cuda130_exact_0", [f"libtorch {VERSION} cuda130_h1_0"]),
        record("pytorch", VERSION, "cuda130_careless_0", [f"libtorch {VERSION}"]),
        record("pytorch-gpu", VERSION, depends=["pytorch"]),
        record("vllm-kernels", "0.1.0", "cuda130_abi3_0", ["libtorch >=2.11"]),
        record("vllm-kernels", "0.1.0", "cpu_abi3_0", ["libtorch >=2.11"]),
        record("cuda-cudart", "13.0.96"),
    ]
    entries = {f"{r['name']}-{r['version']}-{r['build']}.conda": r for r in packages}
    for file, entry in entries.items():
        entry |= {"sha256": hashlib.sha256(file.encode()).hexdigest(), "size": 1}
    for subdir, content in (("linux-64", entries), ("noarch", {})):
        (tmp_path / subdir).mkdir()
        index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": content}
        (tmp_path / subdir / "repodata.json").write_text(json.dumps(index), encoding="utf-8")
    return tmp_path.as_uri()


def solved(channel: str, *specs: str) -> dict[str, str]:
    found = asyncio.run(
        solve(sources=[channel], specs=[MatchSpec(spec) for spec in specs], virtual_packages=[])
    )
    return {r.name.normalized: str(r.build) for r in found}


@pytest.mark.parametrize(
    "specs",
    [
        ("pytorch=*=cpu_pypi_*",),
        # Our kernels bring their own CUDA runtime and need none of torch's.
        ("pytorch=*=cpu_*", "vllm-kernels=*=cuda130_*"),
        # The stand-ins are in a separate folder, so the real library can be installed too.
        ("pytorch=*=cpu_*", "cuda-cudart"),
        ("pytorch", "libtorch=*=cpu_*"),
    ],
)
def test_goes_with(channel: str, specs: tuple[str, ...]) -> None:
    found = solved(channel, *specs)
    assert found["pytorch"].startswith("cpu_pypi_")
    assert found["libtorch"].startswith("cpu_pypi_")


@pytest.mark.parametrize(
    "specs",
    [
        ("libtorch=*=cpu_*", "pytorch=*=cuda130_*"),
        ("libtorch=*=cuda130_*", "pytorch=*=cpu_*"),
        ("pytorch=*=cpu_*", "pytorch-gpu"),
        ("libtorch=*=cpu_*", "pytorch-gpu"),
    ],
)
def test_does_not_go_with(channel: str, specs: tuple[str, ...]) -> None:
    with pytest.raises(SolverError):
        solved(channel, *specs)
