# SPDX-License-Identifier: Apache-2.0
"""Turns settings into checked files, for setup.py and for ``vllm-build reuse``."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.digests import tree_digests
from vllm_build.kernels import plan_resolver
from vllm_build.native import build_configuration, private_build
from vllm_build.native.build_configuration import Configuration
from vllm_build.reuse.foreign import foreign_reuse
from vllm_build.reuse.lookup import decisions, offers
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records import member_names
from vllm_build.reuse.records.fitness import Machine, Wanted
from vllm_build.target import device
from vllm_build.target.toolkits import toolkit_finder
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.reuse.foreign.foreign_reuse import ForeignReuse
    from vllm_build.reuse.lookup.decisions import Decision
    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.device import Target


def make_plan(root: Path, settings: Settings, target: Target) -> Plan:
    """The plan of what a build would compile; needs no compiler and no network.

    Raises:
        ConfigurationError: the toolkit's release is unknown, or as the plan.
        NothingToDoError: as the plan.
    """
    if target.name in toolkit_finder.FINDERS and target.release is None:
        raise ConfigurationError(
            f"the toolkit release for {target.name} is unknown, and kernels are built for a "
            "certain release",
            expected=f"a torch built for {target.name} in this environment, or the toolkit",
            remedy="install torch first and use pip install --no-build-isolation, or set "
            "VLLM_TARGET_DEVICE",
        )
    return build_configuration.plan_for(root, settings, target)


def find_wanted(root: Path, plan: Plan, config: Configuration | None = None) -> tuple[Wanted, ...]:
    """The outputs of a plan, with their digests in this tree.

    Args:
        root: of the source tree.
        plan: what a build would compile.
        config: configuration of a build in this environment, with its flags and sources; None
            unless private builds are accepted.
    """
    influences = private_build.influences(config) if config else ()
    abi = build_configuration.python_abi()
    suffix = f".{build_configuration.ABI3}.so" if abi == build_configuration.ABI3 else ".so"
    kernels = {output: tree_digests.kernel_digest(root, output) for output in plan.components}
    return tuple(
        Wanted(
            output,
            tree_digests.build_digest(kernel_digest, output, plan, abi, influences),
            kernel_digest,
            tuple(sorted(plan.output_files(output, suffix))),
            tree_digests.build_digest(kernel_digest, output, plan, abi) if config else "",
        )
        for output, kernel_digest in kernels.items()
    )


@dataclass(frozen=True)
class Reuse:
    """A reuse whose sources are open.

    Attributes:
        decisions: one for each output.
        context: of the reuse.
        report: text for the log, in addition to the decisions.
    """

    decisions: tuple[Decision, ...]
    context: Context
    report: str = ""

    @property
    def compiled(self) -> tuple[str, ...]:
        """The outputs that must be compiled."""
        return tuple(
            decision.wanted.output
            for decision in self.decisions
            if decision.action == decisions.COMPILE
        )

    @property
    def compiled_files(self) -> tuple[str, ...]:
        """Libraries and records of these outputs, as paths below the folder that holds ``vllm``."""
        left = [
            decision.wanted for decision in self.decisions if decision.action == decisions.COMPILE
        ]
        return tuple(
            name
            for wanted in left
            for name in (*wanted.libraries, member_names.record_name(wanted.output))
        )

    def fetch(self) -> dict[str, Path]:
        """Fetch every file of the reused outputs into the cache, and check it.

        Returns:
            Path relative to the folder that holds ``vllm`` -> file in the cache.

        Raises:
            FetchError: a file cannot be fetched. RefusedError: a file does not match its record.
            ResourceError: the disk is full.
        """
        files: dict[str, Path] = {}
        for decision in self.decisions:
            if decision.offer is not None and decision.record is not None:
                files.update(decision.offer.libraries(decision.record))
                files[member_names.record_name(decision.record.output)] = (
                    self.context.cache.add_bytes(decision.record.text)
                )
        return files


@contextmanager
def prepare(
    root: Path,
    settings: Settings,
    context: Context | None = None,
    outputs: Sequence[str] | None = None,
    target: Target | None = None,
) -> Iterator[Reuse | ForeignReuse]:
    """Decide which outputs are reused; their files can be fetched within the block.

    Args:
        root: of the source tree.
        settings: of the environment.
        context: cache, transport and progress; None means those of the settings.
        outputs: names of the outputs; None means all that the tree has for the device.
        target: target of the build; None resolves the device.

    Raises:
        RefusedError: an output cannot be reused, or an official wheel does not pass the audit.
        FetchError: a source could not be reached.
        ConfigurationError, NothingToDoError, ToolchainError: the settings, the device or the plan
            are invalid.
    """
    context = context or Context.of_settings(settings)
    target = target or device.resolve(settings)
    pure = target.name in plan_resolver.PURE_DEVICES
    plan = (
        None
        if pure
        else make_plan(
            root,
            foreign_reuse.with_every_output(settings) if settings.accepts_foreign else settings,
            target,
        )
    )
    private = (
        Configuration.for_target(root, settings, target, plan)
        if plan and settings.precompiled_private
        else None
    )
    needed = find_wanted(root, plan, private) if plan else ()
    if unknown := sorted(set(outputs or ()) - {w.output for w in needed}):
        raise ConfigurationError(
            f"device {target.name} has no output {', '.join(unknown)}",
            expected=" or ".join(w.output for w in needed) or "no output",
        )
    with ExitStack() as stack:
        stack.enter_context(context.cache.in_use())
        machine = Machine.here(target)
        if plan and settings.accepts_foreign:
            yield stack.enter_context(
                foreign_reuse.prepare(root, settings, context, plan, machine, needed)
            )
            return
        opened = offers.of_settings(context, settings) if needed else []
        for source in opened:
            stack.callback(source.close)
        chosen = [w for w in needed if outputs is None or w.output in outputs]
        yield Reuse(
            decisions.make(chosen, opened, machine, partial=settings.precompiled_partial), context
        )
