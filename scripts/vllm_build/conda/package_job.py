# SPDX-License-Identifier: Apache-2.0
"""The main job: builds the conda packages of a variant, and tests, installs and runs them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vllm_build.conda import (
    engine_demo,
    needed_builds,
    package_build,
    package_channel,
    package_request,
    reused_packages,
)
from vllm_build.conda.environments import conda_environment, intact, prefixes
from vllm_build.digests import tree_digests
from vllm_build.engine import engine_source
from vllm_build.native import unit_times
from vllm_build.native.build_configuration import ABI3
from vllm_build.packing import channel_index
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.stores import trust
from vllm_build.sources import plan_inputs, third_party
from vllm_build.toolchain import channel_build, channel_views, third_party_fetch
from vllm_build.util import locks, removal
from vllm_build.util.files import holds, read_text, sha256_of, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.conda.package_request import Request
    from vllm_build.conda.recipe_outputs import Output
    from vllm_build.util.console import Console


def reusable(request: Request, outputs: tuple[Output, ...]) -> tuple[Path, ...]:
    """The packages of earlier runs that are complete and unchanged.

    The sha256 comes from the record of the variant's last run. For other packages it comes from the
    channel's index, because all variants share one ``vllm``. A file with an expected name and
    another sha256 is removed.
    """
    try:
        recorded: dict[str, str] = json.loads(read_text(request.state))["packages"]
    except (OSError, ValueError, KeyError):
        recorded = {}
    indexed = channel_index.indexed(request.output)
    found = []
    for output in outputs:
        name = f"{output.subdir}/{output.filename}"
        path = request.output / name
        if not path.is_file():
            continue
        if sha256_of(path) == recorded.get(name, indexed.get(name)):
            found.append(path)
        else:
            path.unlink()
    return tuple(found)


def take(
    request: Request,
    outputs: tuple[Output, ...],
    present: tuple[Path, ...],
    console: Console,
) -> tuple[Path, ...]:
    """Copy missing packages from the channels of ``request.reuse`` into the output.

    Args:
        request: the caller's choices.
        outputs: the packages of this tree.
        present: those of them that are in the output already.
        console: gets the progress.

    Returns:
        ``present`` and the copies.

    Raises:
        ConfigurationError, FetchError, RefusedError: as ``reused_packages.take``.
    """
    names = {path.name for path in present}
    missing = [output for output in outputs if output.filename not in names]
    if not request.reuse or not missing:
        return present
    if request.settings.precompiled_key:
        raise trust.unsigned(", ".join(request.reuse), "a conda channel")
    resolved = package_request.planned(request)
    digests = {
        component: tree_digests.build_digest(
            tree_digests.kernel_digest(request.root, component), component, resolved, ABI3
        )
        for component in resolved.components
    }
    with console.step("take packages from other channels"), console.transfer("packages") as counter:
        taken = reused_packages.take(
            Context.of_settings(request.settings, counter.advance),
            request.reuse,
            missing,
            digests,
            request.output,
        )
        for path, where in taken.items():
            console.info(f"    {path.name} from {where}")
    return (*present, *taken)


def claim_output(output: Path) -> None:
    """Claim the folder for packages, because packages and environments in it get replaced.

    Raises:
        ConfigurationError: it contains files of other programs. ResourceError: the disk is full.
    """
    names = (
        *channel_index.SUBDIRS,
        ".lock",
        ".state",
        ".test",
        ".tmp",
        ".work",
        ".env-*.vllm-build*",
        "env-*",
    )
    removal.claim(output, "the output folder (--output)", names, (".state",))


def _install(request: Request, outputs: tuple[Output, ...]) -> str:
    """Install exactly the packages of this build into the clean prefix.

    Returns:
        What was done, for the log: ``created``, ``reused``, or why the prefix was created again.
    """
    specs = [f"{output.name} =={output.version} {output.build}" for output in outputs]
    marker = request.state.with_name(f"env-{request.variant.name}.json")
    asked = {"channels": request.channel_urls, "constraints": request.constraints}
    wanted = json.dumps({"specs": specs, **asked})
    how = "created"
    if request.prefix.is_dir() and not request.prefix.is_symlink() and holds(marker, wanted):
        damage = next(intact.damages(request.prefix, [output.name for output in outputs]), None)
        if damage is None:
            return "reused"
        how = f"created again, as it was damaged ({damage}):"
    marker.unlink(missing_ok=True)
    # The output folder is ours, so a folder of this name in it is ours too.
    conda_environment.create(
        request.prefix,
        specs,
        request.channel_urls,
        force=True,
        driver=request.driver,
        constraints=request.constraints,
    )
    write_text(marker, wanted)
    return how


def _record(request: Request, outputs: tuple[Output, ...]) -> dict[str, str]:
    packages = {
        f"{o.subdir}/{o.filename}": sha256_of(request.output / o.subdir / o.filename)
        for o in outputs
    }
    write_text(request.state, json.dumps({"packages": packages}, indent=2) + "\n")
    return packages


def install_line(request: Request) -> str:
    """The command that installs the packages on another machine."""
    channels = " ".join(f"-c {url}" for url in request.channel_urls)
    # No solver chooses ROCm by itself: no virtual package says that a machine has an AMD GPU.
    chosen = ' "vllm-kernels=*=rocm*"' if request.variant.accelerator == "rocm" else ""
    return f"conda install --override-channels {channels} vllm{chosen}"


def fetch_sources(request: Request, console: Console) -> None:
    """Fetch the locked sources of the engine and the plan into the cache; a build has no network.

    Raises:
        FetchError: a source cannot be fetched. IntegrityError: it differs from the lock.
    """
    known, resolved = third_party.read(request.root), package_request.planned(request)
    for name in (engine_source.NAME, *plan_inputs.needed(resolved)):
        third_party_fetch.fetch(known[name], console, request.settings.inherited)


def package(
    request: Request, console: Console, *, install: bool = True, demonstrate: bool = True
) -> dict[str, Any]:
    """Build or reuse, install and run the packages of one variant.

    Args:
        request: the caller's choices.
        console: gets the progress.
        install: install the packages into the variant's prefix, and run them there.
        demonstrate: then generate and serve with a small model.

    Returns:
        The facts for ``--json``; ``prefix`` and ``engine`` are None without an installation.

    Raises:
        NothingToDoError: the variant compiles nothing; nothing was downloaded.
        BusyError: another build writes to the same output.
        BuildError, PackageTestError, ToolchainError: the stage that failed.
    """
    # Packages must stay in the channel from the solver's answer to the last installation.
    with channel_views.reading(request.channel_urls, console.info):
        return _package(request, console, install=install, demonstrate=demonstrate)


def _package(
    request: Request, console: Console, *, install: bool, demonstrate: bool
) -> dict[str, Any]:
    prefixes.check(request.prefix)
    claim_output(request.output)
    with console.step("plan"):
        extensions = ", ".join(
            f"{e.name} ({len(e.kernels)} kernels)"
            for e in package_request.planned(request).extensions
        )
        console.info(f"    {request.variant.accelerator}: {extensions}")
    if request.channel == package_channel.LOCAL:
        needed_builds.require_toolchain(request)
        with console.step("toolchain channel"):
            report = channel_build.ensure(
                request.root,
                console,
                needed_builds.toolchain_builds(request),
                inherited=request.settings.inherited,
            )
            console.info(
                f"    {report.built} built, {len(report.outcomes) - report.built} reused in "
                f"{report.path}"
            )
    with locks.exclusive(request.output, "the output folder"):
        if request.driver:
            console.info(
                f"    no CUDA driver here: solving for a driver of CUDA {request.driver} "
                "(CONDA_OVERRIDE_CUDA)"
            )
        outputs = package_request.expected(request)
        kept = take(request, outputs, reusable(request, outputs), console)
        for path in kept:
            console.info(f"    reused {path.name}: its inputs have not changed")
        if len(kept) < len(outputs):
            fetch_sources(request, console)
            with console.step("build and test packages"):
                package_build.build(request, kept, console)
        packages = _record(request, outputs)
        engine = None
        if install:
            with console.step("install in a clean prefix"):
                how = _install(request, outputs)
                console.info(f"    {how} {request.prefix}")
            fresh = how != "reused"
            engine = engine_demo.run(request, console, fresh=fresh, demonstrate=demonstrate)
    return {
        "variant": request.variant.name,
        "channel": request.channel,
        "reused": len(kept) == len(outputs),
        "reused_packages": [path.name for path in kept],
        "units": [asdict(unit) for unit in unit_times.read(request.unit_times)],
        "packages": [
            {"path": str(request.output / name), "sha256": value}
            for name, value in packages.items()
        ],
        "prefix": str(request.prefix) if install else None,
        "engine": engine,
        "install": install_line(request),
        "serve": engine_demo.SERVE_LINE,
        "seconds": {title: round(seconds, 2) for title, seconds in console.seconds.items()},
        "cpu_count": os.cpu_count(),
    }
