# SPDX-License-Identifier: Apache-2.0
"""Finds the builds of the toolchain channel that the packages of a variant need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.conda import recipe_outputs
from vllm_build.digests import recipe_stamp
from vllm_build.toolchain import toolchain_builds as sources
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from vllm_build.conda import variants
    from vllm_build.conda.package_request import Request

#: Key of a toolchain build -> the key of a variant file with the same meaning.
_CHOSEN_BY = {"python_version": "python", "cuda_release": "cuda_compiler_version"}


def _fits(build: sources.Build, variant: variants.Variant) -> bool:
    """Whether a toolchain build is for the interpreter and toolkit of ``variant``, or for all."""
    return all(
        build.variant.get(key) in (None, variant.values.get(chosen))
        for key, chosen in _CHOSEN_BY.items()
    )


def _builds_that_make(request: Request, names: frozenset[str]) -> list[str]:
    return [
        build.id
        for build in sources.load(request.root)
        if _fits(build, request.variant) and not names.isdisjoint(build.makes)
    ]


def toolchain_builds(request: Request) -> list[str]:
    """Ids of the toolchain builds that the recipes need to build, to install and to run.

    Packages for other interpreters and toolkits are left out.
    """
    return _builds_that_make(
        request,
        recipe_outputs.required_names(
            request.root, request.variant, recipe_stamp.values(request.root)
        ),
    )


def package_builds(request: Request, *, noarch: bool) -> list[str]:
    """Ids of the toolchain builds that determine the content of the noarch package or the others.

    Those of the noarch package are the same for all variants with the same Python.
    """
    return _builds_that_make(
        request,
        recipe_outputs.build_names(
            request.root, request.variant, recipe_stamp.values(request.root), noarch=noarch
        ),
    )


def require_toolchain(request: Request) -> None:
    """Refuse a variant whose toolkit or interpreter has no recipe in the local channel.

    A solver would only report a missing package.

    Raises:
        ToolchainError: there is no recipe.
    """
    every = sources.load(request.root)
    needed = recipe_outputs.required_names(
        request.root, request.variant, recipe_stamp.values(request.root)
    )
    # The interpreter comes first: without it, every package that is compiled for it is missing.
    for name in sorted(needed, key=lambda name: (name != "python", name)):
        made = [build for build in every if name in build.makes]
        if made and not any(_fits(build, request.variant) for build in made):
            (key,) = {key for build in made for key in _CHOSEN_BY if key in build.variant}
            chosen = _CHOSEN_BY[key]
            raise ToolchainError(
                f"the toolchain channel has no {name} for {chosen} "
                f"{request.variant.values[chosen]}",
                expected=f"{chosen} " + " or ".join(sorted(build.variant[key] for build in made)),
                remedy=f"change {request.variant.path}, or build against conda-forge: make package "
                f"VARIANT={request.variant.name} "
                "CHANNEL=conda-forge",
            )
