# SPDX-License-Identifier: Apache-2.0
"""Times the GPU kernels op by op: ours, the official wheel's, and torch eager (SDPA for attention).

The table also shows how far our kernels are from the limits of the card.

The method is that of ``bench_kernels.py``, with the same parts: a process for each implementation,
the same seeded inputs, results compared with PyTorch's before they are timed, turns, medians. There
are two differences. A time is measured between two events on the GPU's stream around many calls.
The calls are queued behind a kernel that only waits, so the time of Python is not included. The
limits are the rates of torch's copy and matrix products on this card, measured in the same run.
Data of 8 MiB or more, weights and caches come from different memory at each call, four times the
size of the L2 cache in total; smaller data stays in the cache. "±" is half the width of the middle
half of the samples; it is shown if it exceeds 1 %.

``--dry-run`` needs no GPU: it creates each case's inputs with small sizes on the CPU and compares
the calls with the schemas of the libraries, ours and the official ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kernels import cases, gpu_cases, gpu_machine, official_gpu, report, session
from kernels.peers import NAMES, Peer, Runner

from vllm_build.util import paths
from vllm_build.util.console import Console
from vllm_build.util.errors import (
    ConfigurationError,
    PackageTestError,
    ToolchainError,
    VllmBuildError,
)
from vllm_build.util.files import write_text

ROOT = paths.source_root()
PEERS = ("official", "eager")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="an interpreter with torch for CUDA 13 and the kernels",
    )
    parser.add_argument("--quick", action="store_true", help="few shapes, few rounds: minutes")
    parser.add_argument(
        "--only", metavar="OP", nargs="+", default=[], help="ops, by their names in the table"
    )
    parser.add_argument(
        "--peers",
        metavar="PEER",
        nargs="+",
        choices=NAMES,
        default=list(PEERS),
        help=f"any of {', '.join(NAMES)}",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only compare the calls with the libraries' schemas; needs no GPU",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="turns of every process; default: 7, quick: 3; 0 compares results only",
    )
    parser.add_argument("--seconds", type=float, default=0.05, help="shortest time of a turn")
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "benchmarks" / "results" / "gpu.json",
        help="JSON file; the summary is written next to it",
    )
    return parser.parse_args()


def runner_of(options: argparse.Namespace) -> Runner:
    """The interpreter for the child processes.

    Raises:
        ConfigurationError: there is no such program.
    """
    found = shutil.which(options.python)
    if found is None:
        raise ConfigurationError(
            f"{options.python} is not a program",
            expected="a Python interpreter that has torch",
            remedy="--python PATH",
        )
    env = {**os.environ, **({"VLLM_BENCH_FIT": "1"} if options.dry_run else {})}
    return Runner(Path(found).absolute(), env, conda=False)


def make_peers(options: argparse.Namespace, runner: Runner, console: Console) -> list[Peer]:
    """Start the processes; skip those that cannot run, with a warning.

    Raises:
        ToolchainError: this machine or interpreter has no GPU.
        PackageTestError: the interpreter does not have our kernels.
    """
    peers: list[Peer] = []
    for name in dict.fromkeys(("ours", *options.peers)):
        peer = Peer(name, runner, device="cuda")
        if name == "official":
            try:
                peer.libraries = official_gpu.libraries(frozenset(official_gpu.MEMBERS), console)
            except VllmBuildError as error:
                console.warn(f"without the official wheel: {error.message}")
                continue
        peer.start()
        if failed := peer.facts.get("failed"):
            peer.stop()
            if name == "ours":
                raise _cannot_run(str(failed), runner)
            console.warn(f"without {name}: {failed}")
            continue
        peers.append(peer)
    return peers


def _cannot_run(failed: str, runner: Runner) -> VllmBuildError:
    """The error for what is missing: torch, a GPU, or the kernels."""
    if "No module named 'torch'" in failed:
        return ToolchainError(
            f"{runner.python} has no torch",
            expected="torch for CUDA 13",
            remedy="select another interpreter with PYTHON=…",
        )
    if failed.startswith("RuntimeError: torch "):
        return ToolchainError(
            failed.removeprefix("RuntimeError: "),
            expected="an NVIDIA GPU that torch sees",
            remedy="run it on a machine with a GPU, or use --dry-run, which needs none",
        )
    return PackageTestError(
        f"{runner.python} has no vllm with kernels for CUDA: {failed}",
        expected="the packages or a wheel of this tree",
        remedy="install them; CONTRIBUTING.md describes how",
    )


def dry_run(wanted: list[cases.Case], peers: list[Peer]) -> list[str]:
    """Print which library accepts which call.

    Returns:
        The mismatches: calls that our library or PyTorch refuses, or that the official one does.
    """
    wrong: list[str] = []
    print(f"{'':62} " + " ".join(f"{peer.name:>12}" for peer in peers))
    for case in dict.fromkeys(gpu_cases.tiny(case) for case in wanted):
        cells = []
        for peer in peers:
            answer = peer.prepare(case, "fit")
            if "fits" in answer or "skipped" in answer:
                cells.append(
                    {"the schema": "fits", "runs": "runs"}.get(answer.get("fits", ""), "-")
                )
                continue
            cells.append("absent" if "missing" in answer else "refused")
            if "missing" not in answer or (peer.name == "ours" and not case.optional):
                wrong.append(
                    f"{peer.name}, {case.op} {case.label}: {answer.get('failed', 'absent')}"
                )
        print(
            f"{case.op:36} {case.label:25} " + " ".join(f"{cell:>12}" for cell in cells), flush=True
        )
    for line in wrong:
        print(line)
    return wrong


def document(
    results: list[report.Result], peers: list[Peer], limits: gpu_machine.GpuMachine
) -> dict[str, Any]:
    """The results as a JSON document."""
    return {
        "limits": asdict(limits.limits),
        "limits_unknown": limits.problem,
        "states": limits.states,
        "peers": {peer.name: peer.facts for peer in peers},
        "cases": [result.document(limits.limits) for result in results],
    }


def time_ops(options: argparse.Namespace, wanted: list[cases.Case], peers: list[Peer]) -> list[str]:
    """Measure, print and write the results; return the problems of our kernels."""
    limits = gpu_machine.GpuMachine(peers[0])
    rounds = options.rounds if options.rounds is not None else 3 if options.quick else 7
    compiled = cases.select(options.only, quick=True, ops=gpu_cases.OPS)
    results = session.run(wanted, peers, compiled, limits, rounds=rounds, seconds=options.seconds)
    print(f"\n{limits.line()}\n{limits.clocks()}")
    wrong = session.conclude(results, peers)
    write_text(options.results, json.dumps(document(results, peers, limits), indent=1) + "\n")
    summary = options.results.with_suffix(".md")
    lines = [
        f"{peers[0].facts['gpu']}, {limits.line()}",
        *report.totals(results),
        report.summary(results, limits.limits),
    ]
    write_text(summary, "\n\n".join(lines) + "\n")
    print(f"written to {options.results} and {summary.name}")
    return wrong


def main() -> int:
    """Run the benchmark.

    The exit status is 1 if one of our ops is missing, fails, or computes a wrong result.
    """
    options, console = arguments(), Console()
    peers: list[Peer] = []
    try:
        wanted = cases.select(options.only, quick=options.quick, ops=gpu_cases.OPS)
        peers = make_peers(options, runner_of(options), console)
        wrong = dry_run(wanted, peers) if options.dry_run else time_ops(options, wanted, peers)
    except (VllmBuildError, ValueError) as error:
        console.error(str(error))
        return getattr(error, "exit_code", 2)
    finally:
        for peer in peers:
            peer.stop()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
