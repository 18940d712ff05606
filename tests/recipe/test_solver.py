# SPDX-License-Identifier: Apache-2.0
"""The build that a solver takes for each machine, from a channel of records without packages."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version as Release
from rattler import BuildString, GenericVirtualPackage, MatchSpec, PackageName, Version, solve
from rattler.exceptions import SolverError

from vllm_build.conda import recipe_outputs, variants
from vllm_build.conda.environments import solver
from vllm_build.digests import recipe_stamp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VARIANTS = ("cpu", "rocm", "cuda124", "cuda12", "cuda13")


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


def of_output(output: recipe_outputs.Output, toolkit: str | None) -> dict[str, Any]:
    """The record of a rendered output; compiler('cuda') adds cuda-version to its requirements."""
    exported = (
        [f"cuda-version >={toolkit},<{int(toolkit.split('.')[0]) + 1}"]
        if toolkit and not output.noarch
        else []
    )
    more: dict[str, object] = {"build_number": output.number, "subdir": output.subdir}
    more |= {"constrains": list(output.constrains)}
    more |= {"noarch": "python"} if output.noarch else {}
    more |= {"track_features": f"{output.name}-p-0"} if output.behind else {}
    return record(output.name, output.version, output.build, [*output.run, *exported]) | more


def meeting(spec: str) -> dict[str, Any]:
    """The record of the oldest release that a requirement permits."""
    name, _, releases = spec.partition(" ")
    oldest = re.search(r"[>=]=([0-9.]+)", releases)
    return record(name, oldest[1] if oldest else "1.0")


def rendered(root: Path, name: str, **more: str) -> tuple[recipe_outputs.Output, ...]:
    values = {**recipe_stamp.values(root), **more}
    return recipe_outputs.render(root, variants.load(root, name), values)


def own(root: Path) -> str:
    """The build of the newest CUDA kernels without those of the engine."""
    (found,) = (o for o in rendered(root, "cuda13", kernels="own") if o.name == "vllm-kernels")
    return found.build


@pytest.fixture
def channel(root: Path, tmp_path: Path) -> str:
    """All variants in one channel, with their oldest dependencies and a torch for CPUs alone."""
    cases = [*((name, "engine") for name in VARIANTS), ("cuda13", "own")]
    records = {
        (r["name"], r["build"], r["version"]): r
        for name, kernels in cases
        for output in rendered(root, name, kernels=kernels)
        for r in [of_output(output, variants.load(root, name).values.get("cuda_compiler_version"))]
    }
    named = [name for name, *_ in records]
    assert named.count("vllm-kernels") == len(cases)
    assert named.count("vllm") == 1, "one for all"
    # Built from another release of FlashAttention's sources for the newest toolkit; vllm's pin
    # excludes it.
    others = [
        record(
            "vllm-flash-attn", "0.1.0", "cuda130_abi3_k000000000000_h0000000_999", ["__cuda >=13"]
        )
        | {"build_number": 999}
    ]
    others += [record("python", "3.12.1"), record("libtorch", "2.13.0", "cpu_0")]
    others += [record("pytorch", "2.13.0", "cpu_0", ["libtorch 2.13.0"])]
    # The engine's other requirements do not depend on the kernels.
    (engine,) = (r for (name, *_), r in records.items() if name == "vllm")
    others += [
        meeting(spec)
        for spec in engine["depends"]
        if spec.split()[0] not in {*named, "python", "pytorch"}
    ]
    others += [record("rocm-core", release) for release in ("6.2.0", "7.2.4", "8.0.0")]
    others += [
        record("cuda-version", f"{major}.{minor}", constrains=[f"__cuda >={major}"])
        for major, minor in ((12, 4), (12, 9), (13, 0))
    ]
    for subdir in ("linux-64", "noarch"):
        packages = {
            f"{r['name']}-{r['version']}-{r['build']}.conda": r
            for r in [*records.values(), *others]
            if r["subdir"] == subdir
        }
        for file, entry in packages.items():
            entry |= {
                "sha256": hashlib.sha256(file.encode()).hexdigest(),
                "size": 1,
            }  # nothing is ever downloaded
        (tmp_path / subdir).mkdir()
        index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": packages}
        (tmp_path / subdir / "repodata.json").write_text(json.dumps(index), encoding="utf-8")
    return tmp_path.as_uri()


def solution(channel: str, specs: Sequence[str], cuda: str | None) -> Sequence[Any]:
    """The records that a solver takes on a machine with that driver."""
    facts = {
        "__unix": "0",
        "__linux": "6.1",
        "__glibc": "2.36",
        **({"__cuda": cuda} if cuda else {}),
    }
    virtual = [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString("0"))
        for name, version in facts.items()
    ]
    return asyncio.run(
        solve(
            sources=[channel], specs=[MatchSpec(spec) for spec in specs], virtual_packages=virtual
        )
    )


def names(channel: str, specs: Sequence[str]) -> set[str]:
    """The names of the packages that a solver takes on a machine with a new driver."""
    return {r.name.normalized for r in solution(channel, specs, "13.0")}


def taken(channel: str, specs: Sequence[str], cuda: str | None) -> str:
    """The accelerator of the kernels that a solver takes on a machine with that driver."""
    return accelerator(solution(channel, specs, cuda))


def accelerator(found: Sequence[Any]) -> str:
    """For all packages with libraries; only CUDA kernels bring FlashAttention."""
    builds = {
        r.name.normalized: str(r.build)
        for r in found
        if r.name.normalized in ("vllm-kernels", "vllm-flash-attn")
    }
    (answer,) = {build.split("_")[0] for build in builds.values()}
    assert ("vllm-flash-attn" in builds) is answer.startswith("cuda")
    assert "_k000000000000_" not in builds.get("vllm-flash-attn", "")
    return answer


@pytest.mark.parametrize(
    ("cuda", "expected"),
    [
        pytest.param(None, "cpu", id="no GPU"),
        pytest.param("11.8", "cpu", id="a driver older than any build"),
        pytest.param("12.0", "cuda129", id="the oldest driver of CUDA 12"),
        pytest.param("12.9", "cuda129", id="old driver"),
        pytest.param("13.0", "cuda130", id="new driver"),
        pytest.param("13.5", "cuda130", id="newer driver"),
        pytest.param("14.0", "cuda130", id="a driver that comes later"),
    ],
)
def test_the_build_fits_the_driver(channel: str, cuda: str | None, expected: str) -> None:
    assert taken(channel, ["vllm"], cuda) == expected


def test_the_engines_kernels_are_preferred_and_ours_can_be_had(root: Path, channel: str) -> None:
    every = ["vllm", "vllm-kernels=*=cuda130*"]
    assert "vllm-engine-kernels" in names(channel, every)
    ours = ["vllm", f"vllm-kernels=*={own(root)}"]
    assert {"vllm-kernels", "vllm-engine-kernels"} & names(channel, ours) == {"vllm-kernels"}


@pytest.mark.parametrize("ours", [None, "cpu_*", "rocm*"])
def test_an_op_is_defined_once(root: Path, channel: str, ours: str | None) -> None:
    specs = [f"vllm-kernels=*={ours or own(root)}", "vllm-engine-kernels"]
    with pytest.raises(SolverError, match="vllm-engine-kernels"):
        names(channel, specs)


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_rocm_is_chosen_by_name_alone(channel: str, cuda: str | None) -> None:
    """No virtual package tells of AMD GPUs; an NVIDIA GPU in the machine does not exclude one."""
    assert taken(channel, ["vllm", "vllm-kernels=*=rocm*"], cuda) == "rocm72"
    # An environment that has ROCm for other reasons does not change what a machine gets.
    assert taken(channel, ["vllm", "rocm-core=7.2"], cuda) == ("cuda130" if cuda else "cpu")


@pytest.mark.parametrize("release", ["6.2.0", "8.0.0"])
def test_rocm_kernels_do_not_go_with_every_release(channel: str, release: str) -> None:
    with pytest.raises(SolverError, match="rocm-core"):
        taken(channel, ["vllm-kernels=*=rocm*", f"rocm-core={release}"], None)


@pytest.mark.parametrize(
    ("override", "expected"), [("12.4", "cuda129"), ("13.0", "cuda130"), ("", "cpu")]
)
def test_a_login_node_says_which_driver_the_compute_nodes_have(
    channel: str, override: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This project's own environments are solved this way.
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", override)
    assert accelerator(solver.solve_specs(["vllm"], [channel])) == expected


@pytest.mark.parametrize(("driver", "expected"), [("12.4", "cuda129"), ("13.0", "cuda130")])
def test_a_driver_is_assumed_for_one_solution_alone(
    channel: str, driver: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "")
    assert solver.assumed_driver(Release(driver)) == driver
    assert accelerator(solver.solve_specs(["vllm"], [channel], driver=driver)) == expected
    assert os.environ["CONDA_OVERRIDE_CUDA"] == ""
    assert accelerator(solver.solve_specs(["vllm"], [channel])) == "cpu"


def test_no_driver_is_assumed_where_one_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.4")
    assert solver.assumed_driver(Release("13.0")) is None
    assert solver.assumed_driver(None) is None


@pytest.mark.parametrize(
    ("spec", "cuda", "expected"), [("*=cpu_*", "13.0", "cpu"), ("*=cuda129_*", "13.0", "cuda129")]
)
def test_a_user_may_ask_for_another(channel: str, spec: str, cuda: str, expected: str) -> None:
    assert taken(channel, ["vllm", f"vllm-kernels={spec}"], cuda) == expected


def test_a_toolkit_release_decides_as_well(channel: str) -> None:
    assert taken(channel, ["vllm", "vllm-kernels=*=cuda*", "cuda-version=12"], "13.0") == "cuda129"
    assert (
        taken(channel, ["vllm", "vllm-kernels=*=cuda*", "cuda-version=12.4"], "13.0") == "cuda124"
    )


def test_the_order_is_in_the_records_and_not_left_to_one_solver(root: Path) -> None:
    found = {}
    for name in VARIANTS:
        (found[name],) = (
            o
            for o in recipe_outputs.render(
                root, variants.load(root, name), recipe_stamp.values(root)
            )
            if o.name == "vllm-kernels"
        )
        assert found[name].build.endswith(f"_{found[name].number}")
    assert {name: output.behind for name, output in found.items()} == {
        name: name in ("cpu", "rocm") for name in VARIANTS
    }
    assert found["rocm"].number < found["cpu"].number
    assert found["cuda124"].number < found["cuda12"].number < found["cuda13"].number
