# SPDX-License-Identifier: Apache-2.0
"""What becomes of each output: reused, compiled, or a reason to stop.

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
    """What becomes of one output.

    Attributes:
        wanted: the output.
        action: REUSE or COMPILE.
        where: the kernels come from; empty when they are compiled.
        why: in words.
        offer: whose files are reused.
        record: that has passed all checks.
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
        expected="a build of this very tree, for this device, toolkit and architectures",
        remedy=f"set VLLM_TARGET_DEVICE if the device is not {machine.device}; unset "
        "VLLM_USE_PRECOMPILED to compile all, "
        "set VLLM_PRECOMPILED_PARTIAL=1 to compile what is missing, or publish a build of this "
        "tree (vllm-build publish)",
    )


def _decide(wanted: Wanted, sources: Sequence[Source], machine: Machine) -> Decision:
    """The first offer that fits.

    Raises:
        RefusedError: an offer is not sound; or none fits, with the reason against the first.
        FetchError: none fits, and a source could not be asked.
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
            # Another source may have it. If none has, this one might have had it.
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
        outputs: that this tree needs.
        sources: in the order in which they are asked.
        machine: that the kernels are for.
        partial: outputs that nothing fits are compiled, not refused. What is not sound is refused
            all the same.

    Raises:
        RefusedError: an output cannot be reused; the check that failed, what was found, and what to
            do.
        FetchError: a source could not be asked, and no other had the output.
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
