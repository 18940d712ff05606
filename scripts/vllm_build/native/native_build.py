# SPDX-License-Identifier: Apache-2.0
"""The steps of a native build after configuring: compile, check, install and record."""

from __future__ import annotations

import json
import sys
import sysconfig
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_build.checks import library_audit, link_check, op_check
from vllm_build.digests import tree_digests
from vllm_build.kernels import op_table
from vllm_build.native import (
    build_progress,
    cmake,
    cmake_configure,
    logged_process,
    private_build,
    unit_estimates,
    unit_times,
)
from vllm_build.native.build_configuration import ABI3
from vllm_build.project import build_info, distribution_version
from vllm_build.sources import engine_kernels
from vllm_build.target import torch_files
from vllm_build.util.errors import BuildError, ConfigurationError, IntegrityError
from vllm_build.util.files import sha256_of, write_text
from vllm_build.util.redaction import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vllm_build.digests.influence import Influence
    from vllm_build.native.build_configuration import Configuration
    from vllm_build.native.job_count import Jobs

_CHECKED = "checked.json"


def announced_digest(config: Configuration) -> dict[str, str]:
    """The kernel digest of each output of the plan, checked against ``VLLM_KERNEL_DIGEST``.

    Raises:
        ConfigurationError: the variable has one digest, but the plan several outputs.
        IntegrityError: the digest in the variable is another one.
    """
    components, announced = config.plan.components, config.settings.kernel_digest
    found = {
        component: tree_digests.kernel_digest(config.root, component) for component in components
    }
    if not announced:
        return found
    if len(components) > 1:
        raise ConfigurationError(
            f"VLLM_KERNEL_DIGEST announces one digest, but this build has {len(components)} "
            f"outputs: {', '.join(components)}",
            expected="one output, chosen by VLLM_COMPONENTS",
            remedy="unset VLLM_KERNEL_DIGEST, or set VLLM_COMPONENTS to one of them",
        )
    (value,) = found.values()
    if announced not in (value, value[: tree_digests.SHORT]):
        raise IntegrityError(
            f"the sources of {components[0]} have the digest {value[: tree_digests.SHORT]}, but "
            f"the caller announced {announced}",
            expected="a recipe/variants.yaml that matches the tree",
            remedy="vllm-build stamp",
        )
    return found


def compile_and_link(config: Configuration, jobs: Jobs) -> None:
    """Bring the configured folder up to date.

    Raises:
        BuildError: a unit does not compile or link.
        ResourceError: the disk is full.
    """
    verbose = config.settings.verbose
    command = [
        cmake.find_cmake(config.settings.search_path),
        "--build",
        str(config.folder),
        "--parallel",
        str(jobs.jobs),
        *(["--verbose"] if verbose else []),
    ]
    env = cmake_configure.environment(config, jobs)
    unit_times.begin(config.folder)
    found = unit_estimates.estimate(config.root, config.plan, jobs)
    progress = build_progress.Progress(found.units, jobs, config.folder / unit_times.RECORD)
    # A guess would say nothing.
    measured = 2 * found.guessed < len(found.units)
    if measured:
        say(unit_estimates.summary(found, jobs) + "\n")
    logged_process.run(
        command,
        cwd=config.folder,
        env=env,
        what="the build",
        log=config.folder / "build.log",
        verbose=verbose,
        annotate=progress.annotate if measured else str,
    )
    if units := unit_times.read(config.folder / unit_times.RECORD):
        say(unit_times.summary(units) + "\n")
        if config.settings.unit_times:
            unit_times.append(
                config.settings.unit_times, units, "+".join(config.plan.components) + "/"
            )


def _ops(config: Configuration, component: str | None = None) -> dict[str, tuple[str, ...]]:
    """Dispatch key → schemas that the libraries must register: those of a component, or all."""
    plan = config.plan
    if component is not None:
        kept = tuple(e for e in plan.extensions if e.component == component)
        plan = replace(plan, extensions=kept)
    ours = op_table.of_plan(op_table.load(config.root), plan)
    theirs = engine_kernels.ops(plan, config.folder / cmake_configure.INPUTS / engine_kernels.NAME)
    keys = dict.fromkeys((*ours, *theirs))
    return {key: (*ours.get(key, ()), *theirs.get(key, ())) for key in keys}


def check(config: Configuration) -> None:
    """Check the linked libraries: link, ABI and ops. Unchanged libraries are not checked again.

    Raises:
        BuildError: a library would not load on every supported machine, or registers wrong ops.
    """
    extensions = {
        config.folder / f"{extension.module}{config.suffix}": extension
        for extension in config.plan.extensions
    }
    linked = list(extensions)
    for path in linked:
        if not path.is_file():
            raise BuildError(
                f"the build did not create {path}",
                expected="one library per extension of the plan",
            )
    # The expected ops are an input of the checks, too.
    ops = _ops(config)
    facts = {
        "ops": {key: list(schemas) for key, schemas in ops.items()},
        "python": sys.version,
        "libraries": {p.name: sha256_of(p) for p in linked},
    }
    record, text = config.folder / _CHECKED, json.dumps(facts, indent=2, sort_keys=True) + "\n"
    if record.is_file() and record.read_text(encoding="utf-8") == text:
        return
    for path, extension in extensions.items():
        link_check.require(path, config.plan.device, torch=extension.torch)
    for finding in library_audit.where_installed(linked, abi3=config.abi == ABI3):
        say(f"{finding.library}: {finding.check}: {'good' if finding.good else 'BAD'}\n")
        if not finding.good:
            raise BuildError(
                f"{finding.library}: {finding.check}: {finding.text}",
                expected="a library for every supported Python and torch",
            )
    say(
        op_check.require(
            ops,
            [path for path in linked if extensions[path].torch],
            config.settings.inherited,
        )
        + "\n"
    )
    write_text(record, text)


def announced_influences(config: Configuration) -> tuple[Influence, ...]:
    """Find what makes this build private, and report it.

    Raises:
        ConfigurationError: a flag chooses an instruction set.
        IntegrityError: the locked sources were changed.
    """
    private_build.require_portable(config)
    found = private_build.influences(config)
    if found:
        say(
            f"private build because of {', '.join(map(str, found))}: stores and other trees accept "
            "it only if private builds are allowed explicitly\n"
        )
    return found


def install(
    config: Configuration,
    target: Path,
    digests: Mapping[str, str],
    influences: Sequence[Influence] = (),
) -> None:
    """Install every component of the plan below ``target`` and write its ``build_info``.

    Args:
        config: what was built.
        target: parent of the folder ``vllm``.
        digests: the kernel digest of each component.
        influences: what makes the build private.

    Raises:
        BuildError: CMake failed, or did not install a library of the plan.
    """
    for component in config.plan.components:
        command = [
            cmake.find_cmake(config.settings.search_path),
            "--install",
            str(config.folder),
            "--component",
            component,
            "--prefix",
            str(target),
        ]
        logged_process.run(
            command,
            cwd=config.folder,
            env=cmake_configure.environment(config),
            what=f"installing {component}",
            log=config.folder / "install.log",
            verbose=config.settings.verbose,
        )
        _record(config, component, target, digests[component], influences)


def _record(
    config: Configuration,
    component: str,
    target: Path,
    kernel_digest: str,
    influences: Sequence[Influence],
) -> None:
    built = []
    for extension in config.plan.extensions:
        if extension.component == component:
            path = target / extension.output_file(config.suffix)
            if not path.is_file():
                raise BuildError(
                    f"CMake did not install {path}", expected=f"the library of {extension.name}"
                )
            built.append(
                build_info.describe(
                    extension.name, path, target, tuple(k.name for k in extension.kernels)
                )
            )
    document = {
        "component": component,
        "version": distribution_version.full_version(
            config.root, config.settings, config.target.name, config.target.release
        ),
        "device": config.plan.device,
        "toolkit": config.plan.toolkit_version,
        "platform": sysconfig.get_platform(),
        "kernel_digest": kernel_digest,
        "build_digest": tree_digests.build_digest(
            kernel_digest, component, config.plan, config.abi, influences
        ),
        # The digest of a build without influences, and the influences: none if the tree describes
        # the build completely.
        "tree_digest": tree_digests.build_digest(kernel_digest, component, config.plan, config.abi),
        "private": [str(influence) for influence in influences],
        "torch_target": str(torch_files.MINIMUM),
        "torch_headers": torch_files.find().version,
        "python_abi": config.abi,
        "build_type": config.build_type,
        "compiler": build_info.compiler_of(config.folder),
        # The package's own test compares them with what its libraries register.
        "ops": {
            key: sorted({schema.partition("(")[0] for schema in schemas})
            for key, schemas in _ops(config, component).items()
        },
    }
    build_info.write(target / "vllm" / "_build_info" / f"{component}.json", document, tuple(built))
