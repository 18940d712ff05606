# SPDX-License-Identifier: Apache-2.0
"""A run of the benchmark: groups of cases, peers that take turns, and the growing table."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.peers import Peer, Runner

from engines import report
from engines.cases import CONTEXT, MODELS, fitting
from engines.record import Record, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engines.cases import Case

FOLDER = Path(__file__).resolve().parent
#: Tokens that an engine takes at most in a step.
STEP = 4096
#: The share of the available memory that a group of peers may need.
SHARE = 0.9


def available_gib(meminfo: Path = Path("/proc/meminfo")) -> float:
    """The memory that new processes can use, in GiB."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    return int(found[1]) / (1 << 20) if found else 0.0


@dataclass
class Options:
    """How cases are measured.

    Attributes:
        runners: by peer, the interpreter of its process.
        rounds: turns of each peer.
        new: tokens that each request generates.
        logs: the folder for the messages of the peers.
        available: reads the memory in GiB that is available.
    """

    runners: Mapping[str, Runner]
    rounds: int
    new: int
    logs: Path
    available: Callable[[], float] = available_gib

    @property
    def peers(self) -> list[str]:
        """The names of the peers."""
        return list(self.runners)


def rotate(peers: Sequence[Peer], turn: int) -> list[Peer]:
    """The peers in the order of a round: each round begins with the next one."""
    place = turn % len(peers) if peers else 0
    return [*peers[place:], *peers[:place]]


def make_peers(options: Options, cases: Sequence[Case], folder: Path) -> list[Peer]:
    """The processes for cases of the same group, not started yet."""
    case = cases[0]
    cache = max(case.cache_gib(options.new) for case in cases)
    settings = {
        "folder": str(folder),
        "dtype": case.dtype,
        "mode": case.mode,
        "vocabulary": MODELS[case.model].vocabulary,
        "length": min(CONTEXT, max(case.prompt for case in cases) + options.new + 64),
        "batch": max(1, *(case.batch for case in cases)),
        "step": STEP,
    }
    options.logs.mkdir(parents=True, exist_ok=True)
    peers = []
    for name, runner in options.runners.items():
        env = {**runner.env, "VLLM_CPU_KVCACHE_SPACE": str(cache)}
        peers.append(
            Peer(
                name,
                Runner(runner.python, env, runner.conda),
                module="peer.child",
                arguments=[json.dumps(settings)],
                folder=FOLDER,
                log=options.logs / f"{name}.log",
            )
        )
    return peers


def measure_start(case: Case, peers: Sequence[Peer], rounds: int) -> Result:
    """Start and stop the peers in turn."""
    result = Result(case)
    for turn in range(rounds):
        for peer in rotate(peers, turn):
            if peer.name in result.findings:
                continue
            peer.start()
            if "failed" in peer.facts:
                result.findings[peer.name] = ("failed", str(peer.facts["failed"]))
            else:
                result.samples.setdefault(peer.name, []).append(peer.facts["sample"])
            peer.stop()
    return result


def measure(case: Case, peers: Sequence[Peer], options: Options) -> Result:
    """Let the peers take turns with the same prompts; a round has prompts of its own."""
    result = Result(case)
    for turn in range(options.rounds):
        for peer in rotate(peers, turn):
            if peer.name in result.findings:
                continue
            request = {
                "batch": case.batch,
                "prompt": case.prompt,
                "new": options.new,
                "seed": turn,
            }
            # Threads of the previous process spin for a moment before they sleep.
            time.sleep(0.05)
            answer = peer.ask(request)
            if "failed" in answer:
                result.samples.pop(peer.name, None)
                result.findings[peer.name] = ("failed", str(answer["failed"]))
            else:
                result.samples.setdefault(peer.name, []).append(answer)
    return result


def _run_group(
    cases: Sequence[Case], options: Options, record: Record, folder: Path
) -> list[Result]:
    """Measure cases of the same group; the processes live as long as the group."""
    fits, large = fitting(cases, options.peers, options.new, SHARE * options.available())
    results = []
    for case in large:
        text = (
            f"does not fit into the {options.available():.1f} GiB that are available; fewer "
            "--peers at once need less"
        )
        results.append(Result(case, findings=dict.fromkeys(options.peers, ("skipped", text))))
        record.add(results[-1])
    if not fits:
        return results
    peers = make_peers(options, fits, folder)
    try:
        for case in fits:
            found = (
                measure_start(case, peers, options.rounds)
                if case.starts
                else measure(case, peers, options)
            )
            results.append(found)
            record.about.setdefault("peers", {}).update(
                (peer.name, {key: peer.facts[key] for key in peer.facts if key != "sample"})
                for peer in peers
            )
            record.add(found)
            print(report.line(found, options.peers), flush=True)
    finally:
        for peer in peers:
            peer.stop()
    return results


def run(
    wanted: Sequence[Case],
    options: Options,
    record: Record,
    models: Callable[[str], Path],
) -> None:
    """Measure the cases that the record lacks.

    Args:
        wanted: the cases.
        options: how they are measured.
        record: receives each result at once.
        models: returns the folder with a model, which it makes when it is needed.
    """
    print(report.header(options.peers))
    for (model, *_), group in groupby(wanted, key=lambda case: case.group):
        cases = list(group)
        left = [case for case in cases if not record.has(case, options.peers, options.rounds)]
        for case in cases:
            if case not in left:
                print(report.line(record.results[case.key], options.peers), flush=True)
        if left:
            _run_group(left, options, record, models(model))
