# SPDX-License-Identifier: Apache-2.0
"""A run of the benchmark, on a CPU or a GPU.

The child processes take turns over the cases, and the table is printed as it grows.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kernels import report

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kernels.cases import Case
    from kernels.gpu_machine import GpuMachine
    from kernels.machine import Machine
    from kernels.peers import Peer

#: Number of cases after which the machine's limits are measured again.
CASES = 100


def measure(case: Case, peers: Sequence[Peer], rounds: int, seconds: float) -> report.Result:
    """Prepare a case in all processes, then let them take turns."""
    result, ready, sums = report.Result(case), [], {}
    for peer in peers:
        answer = peer.prepare(case)
        kind = next((kind for kind in report.FINDINGS if kind in answer), None)
        if kind:
            text = answer[kind]
            result.findings[peer.name] = (kind, text if isinstance(text, str) else "")
        else:
            ready.append(peer)
            sums[peer.name] = answer["checksum"]
            if answer.pop("host_bound", False):
                result.host_bound.append(peer.name)
            result.facts = answer
    if len(set(sums.values())) > 1:
        raise SystemExit(f"{case.op} {case.label}: the processes have different inputs: {sums}")
    for turn in range(rounds):
        for peer in (*ready[turn % len(ready) :], *ready[: turn % len(ready)]) if ready else ():
            # Threads of the previous process spin for a moment before they sleep.
            time.sleep(0.002)
            answer = peer.ask({"do": "time", "seconds": seconds})
            if "ns" in answer:
                result.times.setdefault(peer.name, []).append(answer["ns"])
                result.spread.setdefault(peer.name, []).append(answer["spread"])
                result.best[peer.name] = min(
                    answer["best"], result.best.get(peer.name, answer["best"])
                )
            else:
                result.findings[peer.name] = ("failed", str(answer.get("failed")))
    return result


def run(
    wanted: Sequence[Case],
    peers: Sequence[Peer],
    compiled: Collection[Case],
    limits: Machine | GpuMachine,
    *,
    rounds: int,
    seconds: float,
) -> list[report.Result]:
    """Measure cases and print the table; torch.compile only runs the cases in ``compiled``."""
    results: list[report.Result] = []
    op = ""
    for number, case in enumerate(wanted):
        if number % CASES == 0:
            limits.measure()
        if case.op != op:
            op = case.op
            print(f"\n{op}\n{report.HEADER}")
        part = [peer for peer in peers if peer.name != "compile" or case in compiled]
        results.append(measure(case, part, rounds, seconds))
        print(report.line(results[-1], limits.limits), flush=True)
    limits.measure()
    return results


def conclude(results: Sequence[report.Result], peers: Sequence[Peer]) -> list[str]:
    """Print the summary; return the problems of our kernels."""
    for peer in peers:
        print(f"{peer.name}: {', '.join(f'{key} {value}' for key, value in peer.facts.items())}")
    for line in (*report.totals(results), *report.absent(results), *report.oddities(results)):
        print(line)
    wrong = report.problems(results)
    for line in wrong:
        print(f"OURS: {line}")
    return wrong
