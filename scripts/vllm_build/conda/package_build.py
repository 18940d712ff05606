# SPDX-License-Identifier: Apache-2.0
"""Runs rattler-build over the recipes, and publishes the packages in the output folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vllm_build.conda import package_channel, package_request
from vllm_build.digests import digest_rules
from vllm_build.native import compiler_cache
from vllm_build.packing import channel_index, finish, recipe_builder
from vllm_build.util import paths, removal
from vllm_build.util.errors import BuildError
from vllm_build.util.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.conda.package_request import Request
    from vllm_build.settings.build_settings import Settings
    from vllm_build.util.console import Console


def _work(request: Request) -> tuple[Path, Path]:
    """The variant's work folder, and the channel next to it for packages that exist already."""
    work = request.output / ".work" / request.variant.name
    return work, work.with_name(f"{work.name}-reused")


def _ccache(settings: Settings, console: Console) -> str:
    """The folder of the compiler cache; empty if the cache is disabled or not writable.

    The build script compiles without a cache if the folder is empty.
    """
    if settings.disable_ccache:
        return ""
    folder = paths.ccache_dir()
    why = compiler_cache.why_not_writable(folder)
    if why is None:
        return str(folder)
    console.warn(
        f"compiling without a compiler cache: {why}; set CCACHE_DIR to another folder, or "
        "VLLM_DISABLE_CCACHE=1"
    )
    return ""


def build(request: Request, kept: tuple[Path, ...], console: Console) -> list[Path]:
    """Run rattler-build in a work folder and publish the packages that pass their tests.

    Nothing appears in the output before that.

    Args:
        request: the caller's choices.
        kept: existing packages. They are not rebuilt, and tests of other packages install them.
        console: gets the log.

    Raises:
        BuildError: a build step or a package test failed; the work folder with the logs is kept.
    """
    work, reused = _work(request)
    removal.remove_tree(work, below=request.output)
    removal.remove_tree(reused, below=request.output)
    channel_index.publish(kept, reused)
    request.unit_times.unlink(missing_ok=True)
    # The values that were read and checked, all quoted. The user's file may contain other keys and
    # have another encoding.
    described = request.state.with_name(f"{request.variant.name}-variant.yaml")
    write_text(
        described,
        json.dumps({key: [value] for key, value in request.variant.values.items()}, indent=2)
        + "\n",
    )
    built = recipe_builder.build(
        request.root / digest_rules.RECIPES,
        variant_files=[described],
        variants={key: [value] for key, value in package_request.stamps(request).items()},
        channels=[reused.as_uri(), package_channel.url(request.channel, request.root)],
        output_dir=work,
        env={
            "CCACHE_DIR": _ccache(request.settings, console),
            "MAX_JOBS": str(request.settings.jobs[0] or ""),
            "VLLM_BUILD_CACHE": str(paths.cache_root()),
            "VLLM_UNIT_TIMES": str(request.unit_times),
            **({"CONDA_OVERRIDE_CUDA": request.driver} if request.driver else {}),
        },
        inherited=request.settings.inherited,
        # Normalising compresses the packages again, so speed matters here and size does not.
        package_format="conda:1",
        no_include_recipe=True,
        skip_existing="all",
        console=console,
    )
    if not built:
        raise BuildError(
            "rattler-build ended without a package", expected="the packages of recipe/"
        )
    finish.finish(built, work, request.root)
    published = channel_index.publish(built, request.output)
    for folder in (work, reused):
        removal.remove_tree(folder, below=request.output)
    return published
