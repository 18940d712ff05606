# SPDX-License-Identifier: Apache-2.0
"""The main job: conda packages of one variant, built, tested, installed in a clean prefix and run there."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm_build.architectures import gpu_targets
from vllm_build.conda import (
    needed_builds,
    package_channel,
    recipe_outputs,
    reused_packages,
    variants,
)
from vllm_build.conda.environments import conda_environment, intact, prefixes
from vllm_build.digests import recipe_stamp, tree_digests
from vllm_build.kernels import kernel_choice, kernels_table, plan_resolver
from vllm_build.native import compiler_cache, unit_times
from vllm_build.native.build_configuration import ABI3
from vllm_build.packing import channel_index, finish, packer_version, recipe_builder
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.stores import trust
from vllm_build.sources import cutlass, third_party
from vllm_build.target import requested_archs
from vllm_build.toolchain import channel_build, channel_views, third_party_fetch
from vllm_build.util import locks, paths, removal
from vllm_build.util.errors import BuildError
from vllm_build.util.files import holds, read_text, sha256_of, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings
    from vllm_build.util.console import Console


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        root, variant: the source tree, and what is built from it.
        channel: the name of the one that feeds the build.
        output: the folder, itself a channel, that gets the packages.
        settings: of the environment.
        reuse: channels that may have the packages.
    """

    root: Path
    variant: variants.Variant
    channel: str
    output: Path
    settings: Settings
    reuse: tuple[str, ...] = ()

    @cached_property
    def channel_urls(self) -> list[str]:
        """The channels to install from: the packages' own first."""
        return [self.output.as_uri(), package_channel.url(self.channel, self.root)]

    @cached_property
    def driver(self) -> str | None:
        """The release of CUDA that environments are solved for where the machine has no driver, of :func:`environment.assumed_driver`."""
        return conda_environment.assumed_driver(self.variant.toolkit_version)

    @property
    def prefix(self) -> Path:
        """The clean prefix that the packages are installed into and run in."""
        return self.output / f"env-{self.variant.name}"

    @property
    def unit_times(self) -> Path:
        """What each compiled unit of the last build took: no part of any package."""
        return self.output / ".state" / f"{self.variant.name}-units.jsonl"

    @property
    def state(self) -> Path:
        """What the last complete run made, with sha256: the ground for reuse."""
        return self.output / ".state" / f"{self.variant.name}.json"


def stamps(request: Request) -> dict[str, str]:
    """The keys that the tree, the channel and the caller's environment give the recipe, over what the files say."""
    found = recipe_stamp.values(request.root)
    found["recipe_digest"] = packer_version.recipe_digest(found["recipe_digest"])
    if request.variant.accelerator == "cuda":
        # As a key of the variant a choice is in the package's hash: for other architectures or head
        # sizes it is another package.
        if asked := requested_archs.requested("cuda", request.settings):
            found["cuda_arch_list"] = ";".join(gpu_targets.parse("cuda", *asked))
        if request.settings.flash_attention_set:
            found["flash_attention_set"] = request.settings.flash_attention_set
    if request.channel == package_channel.LOCAL:
        chosen = {
            "channel_digest": needed_builds.toolchain_builds(request),
            "package_channel_digest": needed_builds.package_builds(request),
        }
        found |= {
            key: channel_build.channel_digest(request.root, builds)[: tree_digests.SHORT]
            for key, builds in chosen.items()
        }
    return found


def expected(request: Request) -> tuple[recipe_outputs.Output, ...]:
    """The packages that this tree gives for the variant; their names change with everything that shapes their content."""
    return recipe_outputs.render(request.root, request.variant, stamps(request))


def reusable(request: Request, outputs: tuple[recipe_outputs.Output, ...]) -> tuple[Path, ...]:
    """Packages that earlier runs left, complete and unchanged; a file of such a name with other bytes is no such package, and is removed.

    What an earlier run of the variant recorded counts, and for others the index of the channel: one
    ``vllm`` serves all variants.
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
    outputs: tuple[recipe_outputs.Output, ...],
    there: tuple[Path, ...],
    console: Console,
) -> tuple[Path, ...]:
    """Those of ``outputs`` that are there, and those that a channel of ``request.reuse`` has, put beside them.

    Raises:
        ConfigurationError, FetchError, RefusedError: as ``reused.take``.
    """
    names = {path.name for path in there}
    missing = [output for output in outputs if output.filename not in names]
    if not request.reuse or not missing:
        return there
    if request.settings.precompiled_key:
        raise trust.unsigned(", ".join(request.reuse), "a conda channel")
    resolved = planned(request)
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
    return (*there, *taken)


def _work(request: Request) -> tuple[Path, Path]:
    """The work folder of the variant, and the channel beside it with packages that are there already."""
    work = request.output / ".work" / request.variant.name
    return work, work.with_name(f"{work.name}-reused")


def claim_output(output: Path) -> None:
    """Make sure that the folder of packages is ours: packages and environments in it are replaced.

    Raises:
        ConfigurationError: it holds something else. ResourceError: the disk is full.
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


def _ccache(settings: Settings, console: Console) -> str:
    """The folder of the compiler cache; empty, which the recipe takes as "without", where it is disabled or cannot be written to."""
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
    """Run rattler-build in a work folder of its own and publish what passed its tests; nothing appears in the output before.

    Args:
        request: what was asked for.
        kept: packages that are there; they are neither compiled nor packed again, and serve the
            tests of the others.
        console: gets the log.

    Raises:
        BuildError: a step of the build or a package test failed; the work folder with the logs is
            kept.
    """
    work, beside = _work(request)
    # The staging cache is not keyed by the content of the sources: a kept one would give stale
    # binaries.
    removal.remove_tree(work, below=request.output)
    removal.remove_tree(beside, below=request.output)
    channel_index.publish(kept, beside)
    request.unit_times.unlink(missing_ok=True)
    # What was read and checked, every value quoted: the user's own file may hold more, in another
    # encoding.
    described = request.state.with_name(f"{request.variant.name}-variant.yaml")
    write_text(
        described,
        json.dumps({key: [value] for key, value in request.variant.values.items()}, indent=2)
        + "\n",
    )
    built = recipe_builder.build(
        request.root / "recipe" / "recipe.yaml",
        variant_files=[described],
        variants={key: [value] for key, value in stamps(request).items()},
        channels=[beside.as_uri(), package_channel.url(request.channel, request.root)],
        output_dir=work,
        env={
            "CCACHE_DIR": _ccache(request.settings, console),
            "MAX_JOBS": str(request.settings.jobs[0] or ""),
            "VLLM_BUILD_CACHE": str(paths.cache_root()),
            "VLLM_UNIT_TIMES": str(request.unit_times),
            **({"CONDA_OVERRIDE_CUDA": request.driver} if request.driver else {}),
        },
        inherited=request.settings.inherited,
        # The packages are compressed again when they are normalised; until then this is a temporary
        # file.
        package_format="conda:1",
        no_include_recipe=True,
        skip_existing="all",
        console=console,
    )
    if not built:
        raise BuildError(
            "rattler-build ended without a package", expected="the outputs of recipe/recipe.yaml"
        )
    finish.finish(built, work, request.root)
    published = channel_index.publish(built, request.output)
    for folder in (work, beside):
        removal.remove_tree(folder, below=request.output)
    return published


def _install(request: Request, outputs: tuple[recipe_outputs.Output, ...]) -> str:
    """Install exactly the packages of this build into the clean prefix; says whether the prefix was there already, and whole."""
    specs = [f"{output.name} =={output.version} {output.build}" for output in outputs]
    marker = request.state.with_name(f"env-{request.variant.name}.json")
    wanted = json.dumps({"specs": specs, "channels": request.channel_urls})
    how = "created"
    if request.prefix.is_dir() and not request.prefix.is_symlink() and holds(marker, wanted):
        damage = next(intact.damages(request.prefix, [output.name for output in outputs]), None)
        if damage is None:
            return "reused"
        how = f"created again, as it was damaged ({damage}):"
    marker.unlink(missing_ok=True)
    # The output folder is ours, and so is what lies at this name in it.
    conda_environment.create(
        request.prefix, specs, request.channel_urls, force=True, driver=request.driver
    )
    write_text(marker, wanted)
    return how


def _record(request: Request, outputs: tuple[recipe_outputs.Output, ...]) -> dict[str, str]:
    packages = {
        f"{o.subdir}/{o.filename}": sha256_of(request.output / o.subdir / o.filename)
        for o in outputs
    }
    write_text(request.state, json.dumps({"packages": packages}, indent=2) + "\n")
    return packages


def install_line(request: Request) -> str:
    """The command that installs the packages elsewhere."""
    channels = " ".join(f"-c {url}" for url in request.channel_urls)
    return f"conda install --override-channels {channels} vllm"


def planned(request: Request) -> Plan:
    """What the variant compiles.

    Raises:
        NothingToDoError: nothing, as no kernel is written for its accelerator.
        ConfigurationError, ToolchainError: as ``plan.resolve``.
    """
    variant = request.variant
    values = {**variant.values, **stamps(request)}
    choice = kernel_choice.Choice(values.get("flash_attention_set"))
    return plan_resolver.resolve(
        kernels_table.load(request.root),
        variant.accelerator,
        toolkit_version=variant.toolkit_version,
        arch_list=values.get("cuda_arch_list"),
        arch_source=str(variant.path),
        choice=choice,
    )


def fetch_sources(request: Request, console: Console) -> None:
    """Bring the locked third-party sources that the plan names into the cache: a build has no network.

    Raises:
        FetchError, IntegrityError: one cannot be had, or is not what was locked.
    """
    known, resolved = third_party.read(request.root), planned(request)
    for name in (
        *([cutlass.NAME] if cutlass.is_needed(resolved) else []),
        *resolved.third_party_sources,
    ):
        third_party_fetch.fetch(known[name], console, request.settings.inherited)


def package(request: Request, console: Console) -> dict[str, Any]:
    """Build (or reuse), install and run the packages of one variant; returns the facts for ``--json``.

    Raises:
        NothingToDoError: the variant compiles nothing; nothing was downloaded for it.
        BusyError: another build writes to the same output.
        BuildError, PackageTestError, ToolchainError: the stage that failed.
    """
    # No package may vanish from the channel between the solver's answer and the last installation.
    with channel_views.reading(request.channel_urls, console.info):
        return _package(request, console)


def _package(request: Request, console: Console) -> dict[str, Any]:
    prefixes.check(request.prefix)
    claim_output(request.output)
    with console.step("plan"):
        extensions = ", ".join(
            f"{e.name} ({len(e.kernels)} kernels)" for e in planned(request).extensions
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
                f"    no CUDA driver here: solving as for one of {request.driver} "
                "(CONDA_OVERRIDE_CUDA)"
            )
        outputs = expected(request)
        kept = take(request, outputs, reusable(request, outputs), console)
        for path in kept:
            console.info(f"    reused {path.name}: nothing that shapes it has changed")
        if len(kept) < len(outputs):
            fetch_sources(request, console)
            with console.step("build and test packages"):
                build(request, kept, console)
        packages = _record(request, outputs)
        with console.step("install in a clean prefix"):
            how = _install(request, outputs)
            console.info(f"    {how} {request.prefix}")
        with console.step("run"):
            test = ["python", str(request.root / "recipe" / "test_ops.py")]
            said = conda_environment.run_in(
                request.prefix, test, cwd=request.prefix, inherited=request.settings.inherited
            )
            console.info("    " + said.strip())
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
        "prefix": str(request.prefix),
        "install": install_line(request),
        "seconds": {title: round(seconds, 2) for title, seconds in console.seconds.items()},
        "cpu_count": os.cpu_count(),
    }
