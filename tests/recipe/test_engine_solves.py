# SPDX-License-Identifier: Apache-2.0
"""The engine's run requirements, solved from what the toolchain channel's tables say it makes.

The channel here has records and no packages. ``test_engine_wheels.py`` installs the real ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from rattler import BuildString, GenericVirtualPackage, MatchSpec, PackageName, Version, solve
from rattler.exceptions import SolverError
from ruamel.yaml import YAML

from vllm_build.conda import (
    needed_builds,
    package_channel,
    package_request,
    recipe_outputs,
    variants,
)
from vllm_build.digests import recipe_stamp
from vllm_build.settings.build_settings import Settings
from vllm_build.toolchain import toolchain_builds, toolchain_lock, wheel_table
from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

ROOT = paths.source_root()
BUILDS = toolchain_builds.load(ROOT)
LOCK = toolchain_lock.read(ROOT)
TABLE = wheel_table.read(ROOT)
ENGINE = {wheel.name for wheel in TABLE.wheels if wheel.on_request}
#: Recipes whose packages are for one interpreter, and require it.
FOR_INTERPRETERS = ("numpy", "pytorch", "python-gil")


def record(build: toolchain_builds.Build) -> dict[str, Any]:
    """The record of the package of a build; run requirements of recipes are left out."""
    files, name = LOCK.files.get(build.id, ()), build.makes[0]
    version = files[0].upstream_version if files else build.version
    depends, tag = list(build.run), ""
    series = build.python.removesuffix("t")
    if series:
        tag = f"cp{series.replace('.', '')}"
    if name in FOR_INTERPRETERS:
        depends = [f"python {series}.*", f"python_abi {series}.* *_{tag}"]
    return {
        "name": name,
        "version": series if name == "python_abi" else version,
        "build": f"0_{tag}",
        "build_number": 0,
        "depends": depends,
        "constrains": [f"python_abi {series}.* *_{tag}"] if name == "python" else [],
        "subdir": "linux-64",
        "sha256": hashlib.sha256(build.id.encode()).hexdigest(),
        "size": 1,
    }


def write_channel(folder: Path, builds: list[toolchain_builds.Build]) -> str:
    entries = {f"{r['name']}-{r['version']}-{r['build']}.conda": r for r in map(record, builds)}
    assert len(entries) == len(builds)
    for subdir, listed in (("linux-64", entries), ("noarch", {})):
        (folder / subdir).mkdir()
        index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": listed}
        (folder / subdir / "repodata.json").write_text(json.dumps(index), encoding="utf-8")
    return folder.as_uri()


def usable() -> list[toolchain_builds.Build]:
    """The builds for any interpreter with a GIL and for no toolkit."""
    return [
        build
        for build in BUILDS
        if not build.python.endswith("t") and "cuda_release" not in build.variant
    ]


def requirements() -> list[str]:
    """What ``vllm`` requires besides our kernels."""
    (output,) = (
        output
        for output in recipe_outputs.render(
            ROOT, variants.load(ROOT, "cpu"), recipe_stamp.values(ROOT)
        )
        if output.name == "vllm"
    )
    return [text for text in output.run if not text.startswith("vllm-kernels ")]


def solved(channel: str, specs: list[str]) -> dict[str, str]:
    """The version of each package."""
    virtual = [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString("0"))
        for name, version in (("__unix", "0"), ("__linux", "5.10"), ("__glibc", "2.36"))
    ]
    found = asyncio.run(
        solve(
            sources=[channel], specs=[MatchSpec(spec) for spec in specs], virtual_packages=virtual
        )
    )
    return {r.name.normalized: str(r.version) for r in found}


@pytest.mark.parametrize("python", TABLE.pythons)
def test_the_channel_alone_satisfies_the_engine(tmp_path: Path, python: str) -> None:
    found = solved(write_channel(tmp_path, usable()), [*requirements(), f"python {python}.*"])
    assert found["python"].startswith(f"{python}.")
    assert set(found) >= ENGINE, "each line of [engine] is in the environment"
    assert found["python_abi"] == python


def test_a_package_that_the_channel_lacks_is_noticed(tmp_path: Path) -> None:
    channel = write_channel(tmp_path, [build for build in usable() if build.id != "uvloop-3.13"])
    assert solved(channel, [*requirements(), "python 3.11.*"])
    with pytest.raises(SolverError, match="uvloop"):
        solved(channel, [*requirements(), "python 3.13.*"])


def chosen(name: str, tmp_path: Path, *, kernels_only: bool) -> set[str]:
    """The builds of the channel that a variant needs: for all its packages, or to compile."""
    request = package_request.Request(
        ROOT,
        variants.load(ROOT, name),
        package_channel.LOCAL,
        tmp_path,
        Settings.from_environ(os.environ),
    )
    ids = (
        needed_builds.package_builds(request, noarch=False)
        if kernels_only
        else needed_builds.toolchain_builds(request)
    )
    return {build.id for build in toolchain_builds.select(BUILDS, ids)}


@pytest.mark.parametrize("name", ["cpu", "cuda124", "cuda13", "rocm"])
def test_only_what_runs_the_engine_needs_its_packages(tmp_path: Path, name: str) -> None:
    engine = {
        target.id: target
        for wheel in TABLE.wheels
        if wheel.on_request
        for target in TABLE.targets(wheel)
    }
    compiled_with = chosen(name, tmp_path, kernels_only=True)
    assert {"gxx_linux-64", "cmake", "python-3.11"} <= compiled_with
    assert not compiled_with & set(engine), "compiling needs none, so none is downloaded"
    run_with = chosen(name, tmp_path, kernels_only=False)
    assert run_with & set(engine) == {
        target.id for target in engine.values() if target.series in ("", "3.11")
    }, "all of them, for the variant's interpreter alone"


def test_recipes_for_interpreters_are_those_that_require_one() -> None:
    """The records above say of recipes' packages what their recipes say."""
    for name in FOR_INTERPRETERS:
        recipe = YAML(typ="safe").load(
            (toolchain_builds.recipes_folder(ROOT) / name / "recipe.yaml").read_text("utf-8")
        )
        run = recipe["requirements"]["run"]
        assert any(text.startswith(("python ", "python_abi ")) for text in run), name
