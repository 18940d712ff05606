# SPDX-License-Identifier: Apache-2.0
"""Facts about the device, its version and kernels, torch, and the toolkits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from vllm_build.doctor.fact import Fact, contradiction, missing, of_error
from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.project import distribution_version
from vllm_build.target import device, torch_files
from vllm_build.target.device import Target
from vllm_build.target.toolkits import toolkit_finder
from vllm_build.util.errors import NothingToDoError, VllmBuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.torch_flavour import TorchFlavour

_UNKNOWN = "unknown"


def _torch(torches: Sequence[TorchFlavour]) -> Iterator[Fact]:
    if not torches:
        yield Fact(
            "torch", "none in this environment; isolated builds and the recipe install their own"
        )
    for torch in torches:
        try:
            old = Version(torch.version) < torch_files.MINIMUM
        except InvalidVersion:
            old = False
        if old:
            yield contradiction(
                "torch", f"{torch} is too old", f"pip install 'torch>={torch_files.MINIMUM}'"
            )
        else:
            yield Fact("torch", str(torch))


def _toolkits(asked: Settings, target: Target) -> Iterator[Fact]:
    """One fact per toolkit; a broken toolkit of another device is no problem."""
    for name in toolkit_finder.FINDERS:
        try:
            found = (
                target.toolkit
                if name == target.name and target.toolkit
                else toolkit_finder.find(name, asked)
            )
            if found is None and name == target.name:
                toolkit_finder.require(name, asked)
        except VllmBuildError as error:
            if target.name in (name, _UNKNOWN):
                yield of_error(f"toolkit for {name}", error)
            else:
                yield Fact(f"toolkit for {name}", f"{error.message}; not needed for {target.name}")
            continue
        yield Fact(f"toolkit for {name}", str(found) if found else "none")


def _torch_and_toolkit(target: Target) -> Iterator[Fact]:
    """A problem if torch and the toolkit have different major versions.

    One process cannot use libraries of two major versions of CUDA or ROCm.
    """
    torch, found = target.torch, target.toolkit
    if (
        torch is None
        or found is None
        or torch.toolkit_version is None
        or torch.device != target.name
    ):
        return
    if torch.toolkit_version.major != found.version.major:
        yield contradiction(
            "torch and toolkit",
            f"{torch}, but the build would use {found}",
            f"install a toolkit of release {torch.toolkit_version.major}, or a torch built with "
            f"{found.version.major}",
        )


def _home_and_path(asked: Settings, target: Target) -> Iterator[Fact]:
    """A problem if a variable names another release than PATH: other tools may use the latter."""
    finder = toolkit_finder.FINDERS.get(target.name)
    if finder is None or target.toolkit is None:
        return
    homes: dict[str, Any] = {
        "cuda_home": None,
        "cuda_path": None,
        "rocm_home": None,
        "rocm_path": None,
        "sycl_home": None,
    }
    try:
        other = finder(replace(asked, **homes))
    except VllmBuildError:
        return
    if (
        other is not None
        and other.reason.endswith("on PATH")
        and other.version != target.toolkit.version
    ):
        yield contradiction(
            "toolkit and PATH",
            f"the build would use {target.toolkit}, but {other.reason} is {other.version}, which "
            "other tools may use",
            f"put {target.toolkit.compiler.parent} first on PATH, or unset the variable",
        )


def _plan(root: Path, asked: Settings, target: Target) -> Fact:
    if target.name in plan_resolver.PURE_DEVICES:
        return Fact("kernels", f"device {target.name} compiles nothing")
    try:
        chosen = plan_resolver.for_settings(
            kernels_table.load(root), target.name, target.release, asked
        )
    except NothingToDoError as error:
        return missing(
            "kernels",
            error.message,
            error.remedy
            if error.remedy != error.usual_remedy
            else "choose another VLLM_TARGET_DEVICE",
        )
    except VllmBuildError as error:
        return of_error("kernels", error)
    count = sum(len(extension.kernels) for extension in chosen.extensions)
    return Fact(
        "kernels", f"{count} in {', '.join(extension.name for extension in chosen.extensions)}"
    )


def _version(root: Path, asked: Settings, target: Target) -> Fact:
    try:
        return Fact(
            "version", distribution_version.full_version(root, asked, target.name, target.release)
        )
    except VllmBuildError as error:
        return of_error("version", error)


def examine(root: Path, asked: Settings) -> tuple[Target, list[Fact]]:
    """The target of a build and facts about it; ``unknown`` if the device cannot be resolved."""
    torches = torch_files.installed()
    try:
        target = device.resolve(asked, torches=torches)
    except VllmBuildError as error:
        target = Target(asked.target_device or _UNKNOWN, "")
        facts = [of_error("device", error), *_torch(torches)]
        return Target(_UNKNOWN, ""), [*facts, *_toolkits(asked, target)]
    facts = [
        Fact("device", f"{target.name}: {target.reason}"),
        *_torch(torches),
        *_toolkits(asked, target),
        *_torch_and_toolkit(target),
    ]
    facts += _home_and_path(asked, target)
    return target, [*facts, _version(root, asked, target), _plan(root, asked, target)]
