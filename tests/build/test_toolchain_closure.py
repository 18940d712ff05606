# SPDX-License-Identifier: Apache-2.0
"""The channel must be complete: it has everything that its packages require."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from vllm_build.toolchain import toolchain_builds
from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

BUILDS = {build.id: build for build in toolchain_builds.load(paths.source_root())}


def requirements(node: object) -> set[str]:
    """All names in ``requirements: run`` of a recipe's outputs, including conditional ones."""
    if isinstance(node, str):
        sibling = re.search(r'pin_subpackage\("([^"]+)"', node)
        return {sibling[1] if sibling else node.split(" ", 1)[0]}
    if isinstance(node, dict):
        return set().union(*(requirements(value) for key, value in node.items() if key != "if"))
    return (
        set().union(*(requirements(value) for value in node or []))
        if isinstance(node, list)
        else set()
    )


def run_names(recipe: Path) -> set[str]:
    document = YAML(typ="safe", pure=True).load(recipe.read_text(encoding="utf-8"))
    parts = [document, *document.get("outputs", [])]
    return set().union(
        *(requirements(part.get("requirements", {}).get("run", [])) for part in parts)
    )


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_requirements_of_a_package_are_built_with_it(name: str) -> None:
    build = BUILDS[name]
    closure = {b.id for b in toolchain_builds.select(BUILDS.values(), [name])}
    python = build.variant.get("python_version")
    for required in (
        {entry.split(" ")[0] for entry in build.run} if build.wheel else run_names(build.recipe)
    ):
        makers = {i for i, other in BUILDS.items() if required in other.makes}
        if required.startswith("__"):
            continue  # a virtual package: a property of the machine
        if required in {"python", "python_abi"} and python is None:
            continue  # noarch: every interpreter of the channel is suitable, and users choose one
        assert makers, f"{name} requires {required}, which no recipe makes"
        found = makers & closure
        assert found, f"{name} requires {required}: add one of {sorted(makers)} to its needs"
        release = build.variant.get("cuda_release")
        if release is not None:
            others = {BUILDS[i].variant.get("cuda_release", release) for i in found}
            assert others == {release}, (
                f"{name} is of CUDA {release}, and needs {required} of another release"
            )


@pytest.mark.parametrize(
    "name", sorted(name for name, build in BUILDS.items() if build.wheel is None)
)
def test_a_recipe_makes_the_packages_that_its_sources_list(name: str) -> None:
    document = YAML(typ="safe", pure=True).load(BUILDS[name].recipe.read_text(encoding="utf-8"))
    made = [part["package"]["name"] for part in document.get("outputs", [document])]
    assert sorted(made) == sorted(BUILDS[name].makes)
