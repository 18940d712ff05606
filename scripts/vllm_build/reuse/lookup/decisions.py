# SPDX-License-Identifier: Apache-2.0
"""Decides for each output whether it is reused or compiled, or why the build must stop.

Nothing is written outside the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.reuse.records import fitness
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm_build.reuse.lookup.offers import Offer, Source
    from vllm_build.reuse.records.fitness import Machine, Wanted
    from vllm_build.reuse.records.output_record import Record

REUSE, COMPILE = "reuse", "compile"


@dataclass(frozen=True)
class Decision:
    """The decision for one output.

    Attributes:
        wanted: the output.
        action: REUSE or COMPILE.
        where: location of the reused kernels; empty if the output is compiled.
        why: the reason, for a log.
        offer: has the reused files; None if the output is compiled.
        record: of the offer; it has passed all checks.
    """

    wanted: Wanted
    action: str
    where: str
    why: str
    offer: Offer | None = None
    record: Record | None = None


def _not_found(wanted: Wanted, sources: Sequence[Source], machine: Machine) -> RefusedError:
    target = f"{machine.device} {machine.toolkit}" if machine.toolkit else machine.device
    return RefusedError(
        "digest",
        ", ".join(source.where for source in sources),
        f"no build of {wanted.output} for {target} with the build digest {wanted.digest}",
        expected="a build of exactly this tree, for this device, toolkit and architectures",
        remedy=f"set VLLM_TARGET_DEVICE if the device is not {machine.device}; unset "
        "VLLM_USE_PRECOMPILED to compile everything, set VLLM_PRECOMPILED_PARTIAL=1 to compile "
        "what is missing, or publish a build of this tree (vllm-build publish)",
    )


def _decide(wanted: Wanted, sources: Sequence[Source], machine: Machine) -> Decision:
    """Choose the first offer that fits.

    Raises:
        RefusedError: an offer failed a check of its integrity; or no offer fits, with the reason
            against the first.
        FetchError: no offer fits, and a source could not be reached.
    """
    reasons: list[RefusedError | FetchError] = []
    for source in sources:
        try:
            offer = source.find(wanted, machine)
            if offer is None:
                continue
            record = offer.record()
            fitness.require(record, wanted, machine, offer.where)
        except FetchError as error:
            # Another source may have the output. If none has, this error comes first, because the
            # unreachable source might have it.
            reasons.insert(0, error)
            continue
        except RefusedError as error:
            if not error.unfit:
                raise
            reasons.append(error)
            continue
        offer.announce(record)
        return Decision(
            wanted, REUSE, offer.where, f"its build digest is {wanted.digest[:12]}", offer, record
        )
    raise reasons[0] if reasons else _not_found(wanted, sources, machine)


def make(
    outputs: Sequence[Wanted], sources: Sequence[Source], machine: Machine, *, partial: bool
) -> tuple[Decision, ...]:
    """Decide for each output.

    Args:
        outputs: the outputs that this tree needs.
        sources: in the order in which they are searched.
        machine: the machine that the kernels are for.
        partial: compile an output if no offer fits, instead of raising an error. An offer that
            fails a check of its integrity is an error anyway.

    Raises:
        RefusedError: an output cannot be reused.
        FetchError: a source could not be reached, and no other has the output.
    """
    decisions = []
    for wanted in outputs:
        try:
            decisions.append(_decide(wanted, sources, machine))
        except RefusedError as error:
            if not (partial and error.unfit):
                raise
            decisions.append(Decision(wanted, COMPILE, "", error.message))
    return tuple(decisions)
