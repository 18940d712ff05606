# SPDX-License-Identifier: Apache-2.0
"""A plan as text: a table per library, a line per reason to leave kernels out, and a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets
from vllm_build.kernels.build_plan import (
    BUILT,
    NO_ARCH,
    NO_SOURCE,
    NOT_CHOSEN,
    OLD_TOOLKIT,
    WRONG_DEVICE,
)
from vllm_build.util import text_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vllm_build.kernels.build_plan import Decision, Plan, PlannedExtension

#: States of kernels that are left out, in the order of their reasons in the text.
_STATES = (WRONG_DEVICE, NOT_CHOSEN, OLD_TOOLKIT, NO_ARCH, NO_SOURCE)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else 'libraries' if noun == 'library' else noun + 's'}"


def _sources(decision: Decision) -> list[str]:
    kernel = decision.kernel
    return [
        *kernel.sources,
        *(f"{kernel.third_party}: {source}" for source in kernel.third_party_sources),
    ]


def _groups(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Key -> its values; both keep their order."""
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def title(plan: Plan) -> str:
    """One line that says what the plan is for."""
    toolkit = (
        f", {gpu_targets.TOOLKITS[plan.device]} {plan.toolkit_version or 'of unknown version'}"
        if plan.targets
        else ""
    )
    wanted = f", architectures {' '.join(plan.targets)}" if plan.targets else ""
    return f"kernels for {plan.device}{toolkit}{wanted}"


def _unserved(decisions: Sequence[Decision], width: int) -> Iterator[str]:
    """One note per reason, with the targets and the kernels that it concerns."""
    by_kernel = ((d, _groups((u.reason, u.target) for u in d.unserved)) for d in decisions)
    notes = _groups(
        (f"not for {' '.join(targets)}: {why}", d.kernel.name)
        for d, whys in by_kernel
        for why, targets in whys.items()
    )
    for note, kernels in notes.items():
        yield from text_table.hang(text_table.INDENT, f"{note} ({', '.join(kernels)})", width)


def _built(
    extension: PlannedExtension, decisions: Sequence[Decision], width: int, *, verbose: bool
) -> Iterator[str]:
    """One library: a table of its kernels, then the targets that some of them do not serve."""
    units = sum(len(_sources(decision)) for decision in decisions)
    own = f", and {len(extension.sources)} of its own" if extension.sources else ""
    heading = (
        f"{extension.name} ({extension.component}), {_count(len(decisions), 'kernel')}, "
        f"{_count(units, 'unit')}{own}"
    )
    yield from text_table.hang(f"{BUILT}: ", heading, width)
    archs = any(decision.archs for decision in decisions)
    columns = ["kernel", "units", "memory", *(["architectures"] if archs else [])]
    rows = []
    for decision in decisions:
        kernel = decision.kernel
        row = [kernel.name, str(len(_sources(decision))), kernel.memory]
        rows.append([*row, *([" ".join(decision.archs) or "-"] if archs else [])])
    yield from text_table.layout(columns, rows, width)
    yield from _unserved(decisions, width)
    if verbose:
        own_sources = (
            [(f"{extension.name} itself", list(extension.sources))] if extension.sources else []
        )
        yield from _listed(
            [*own_sources, *((d.kernel.name, _sources(d)) for d in decisions)], width
        )
    yield ""


def _listed(groups: Iterable[tuple[str, list[str]]], width: int) -> Iterator[str]:
    for name, sources in groups:
        yield f"{text_table.INDENT}sources of {name}:"
        for source in sources:
            yield from text_table.hang(text_table.INDENT * 2, source, width)


def _left_out(decisions: Sequence[Decision], width: int, *, verbose: bool) -> Iterator[str]:
    """Kernels that are left out, one line per reason.

    ``verbose`` also names the kernels for other devices, and lists the sources of the rest.
    """
    if not decisions:
        return
    yield f"left out: {_count(len(decisions), 'kernel')}"
    for state in _STATES:
        group = [decision for decision in decisions if decision.state == state]
        for reason in dict.fromkeys(decision.reason for decision in group):
            same = [decision for decision in group if decision.reason == reason]
            counts = (
                f"{_count(len(same), 'kernel')}, "
                f"{_count(sum(len(_sources(d)) for d in same), 'unit')}"
            )
            yield from text_table.hang(
                f"{text_table.INDENT}{state}: ", f"{reason} ({counts})", width
            )
            if state != WRONG_DEVICE or verbose:
                for extension, names in _groups(
                    (d.kernel.extension, d.kernel.name) for d in same
                ).items():
                    yield from text_table.hang(
                        f"{text_table.INDENT * 2}{extension}: ", ", ".join(names), width
                    )
            if state != WRONG_DEVICE and verbose:
                yield from _listed(((d.kernel.name, _sources(d)) for d in same), width)
    yield ""


def _summary(plan: Plan) -> str:
    built = [decision for decision in plan.decisions if decision.state == BUILT]
    units = sum(len(_sources(d)) for d in built) + sum(
        len(extension.sources) for extension in plan.extensions
    )
    heavy = len(plan.heavy_sources)
    left = len(plan.decisions) - len(built)
    libraries = _count(len(plan.extensions), "library")
    return (
        f"{_count(len(built), 'kernel')} in {libraries}: {_count(units, 'unit')} to compile, "
        f"{heavy} of them heavy; {_count(left, 'kernel')} left out"
    )


def lines(plan: Plan, width: int, *, verbose: bool) -> list[str]:
    """The text below :func:`title`, wrapped to ``width``; ``verbose`` adds the sources."""
    found = [""]
    for extension in plan.extensions:
        of_it = [
            d for d in plan.decisions if d.state == BUILT and d.kernel.extension == extension.name
        ]
        found += _built(extension, of_it, width, verbose=verbose)
    left = [decision for decision in plan.decisions if decision.state != BUILT]
    return [
        *found,
        *_left_out(left, width, verbose=verbose),
        *text_table.wrap(_summary(plan), width),
    ]
