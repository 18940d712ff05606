# SPDX-License-Identifier: Apache-2.0
"""A request for the packages of one variant, and what follows from it: stamps, names, plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets
from vllm_build.conda import needed_builds, package_channel, recipe_outputs
from vllm_build.conda.environments import solver
from vllm_build.digests import recipe_stamp, tree_digests
from vllm_build.kernels import kernel_choice, kernels_table, plan_resolver
from vllm_build.packing import packer_version
from vllm_build.target import requested_archs
from vllm_build.toolchain import channel_build

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.conda.variants import Variant
    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings


@dataclass(frozen=True)
class Request:
    """The caller's choices.

    Attributes:
        root, variant: the source tree and the variant to build from it.
        channel: the name of the channel that feeds the build.
        output: the folder, itself a channel, for the packages.
        settings: the settings of the environment.
        reuse: channels that may already have the packages.
    """

    root: Path
    variant: Variant
    channel: str
    output: Path
    settings: Settings
    reuse: tuple[str, ...] = ()

    @cached_property
    def channel_urls(self) -> list[str]:
        """The channels to install from; the channel with the packages comes first."""
        return [self.output.as_uri(), package_channel.url(self.channel, self.root)]

    @cached_property
    def driver(self) -> str | None:
        """The CUDA release to solve for without a driver, see :func:`solver.assumed_driver`.

        Other accelerators have no virtual package for their driver.
        """
        if self.variant.accelerator != "cuda":
            return None
        return solver.assumed_driver(self.variant.toolkit_version)

    @property
    def constraints(self) -> list[str]:
        """Constraints on the requirements of the packages: the variant's interpreter.

        Otherwise an environment would have the newest one of the channel, which depends on what was
        built before.
        """
        return [f"python {self.variant.values['python']}.*"]

    @property
    def prefix(self) -> Path:
        """The clean prefix in which the packages are installed and run."""
        return self.output / f"env-{self.variant.name}"

    @property
    def unit_times(self) -> Path:
        """The compile times of each unit in the last build; no package contains them."""
        return self.output / ".state" / f"{self.variant.name}-units.jsonl"

    @property
    def state(self) -> Path:
        """The packages of the last complete run with their sha256, on which reuse is based."""
        return self.output / ".state" / f"{self.variant.name}.json"


def stamps(request: Request) -> dict[str, str]:
    """The recipe keys that the tree, the channel and the environment set.

    They take precedence over the values in files.
    """
    found = recipe_stamp.values(request.root)
    for key in [key for key in found if key.endswith("_recipe_digest")]:
        found[key] = packer_version.recipe_digest(found[key])
    # The hash in the package's name covers the keys of a variant, so other architectures or head
    # sizes give another package.
    device = request.variant.accelerator
    if device in gpu_targets.DEFAULTS and (
        asked := requested_archs.requested(device, request.settings)
    ):
        found[f"{device}_arch_list"] = ";".join(gpu_targets.parse(device, *asked))
    if device == "cuda":
        chosen = {
            "flash_attention_set": request.settings.flash_attention_set,
            "kernels": request.settings.kernels,
            "kernel_set": request.settings.kernel_set,
        }
        found |= {key: value for key, value in chosen.items() if value}
    if request.channel == package_channel.LOCAL:
        used = {
            "channel_digest": needed_builds.package_builds(request, noarch=False),
            "package_channel_digest": needed_builds.package_builds(request, noarch=True),
        }
        found |= {
            key: channel_build.channel_digest(request.root, builds)[: tree_digests.SHORT]
            for key, builds in used.items()
        }
    return found


def expected(request: Request) -> tuple[recipe_outputs.Output, ...]:
    """The packages that this tree gives for the variant.

    Everything that affects the content of a package changes its name.
    """
    return recipe_outputs.render(request.root, request.variant, stamps(request))


def planned(request: Request) -> Plan:
    """The plan of the kernels that the variant compiles.

    Raises:
        NothingToDoError: the variant's accelerator has no kernels.
        ConfigurationError, ToolchainError: as ``plan_resolver.resolve``.
    """
    variant = request.variant
    values = {**variant.values, **stamps(request)}
    choice = kernel_choice.Choice(
        values.get("flash_attention_set"),
        provider=values.get("kernels", kernel_choice.Choice.provider),
        kernel_set=values.get("kernel_set", kernel_choice.Choice.kernel_set),
    )
    return plan_resolver.resolve(
        kernels_table.load(request.root),
        variant.accelerator,
        toolkit_version=variant.toolkit_version,
        arch_list=values.get(f"{variant.accelerator}_arch_list"),
        arch_source=str(variant.path),
        choice=choice,
    )
