# SPDX-License-Identifier: Apache-2.0
"""Times the CPU kernels op by op: ours, the official wheel's, torch eager and torch.compile.

The table also shows how far our kernels are from the machine's limits.

Each implementation runs in its own process, because two libraries with the same ops cannot share
one. All get the same seeded inputs. Results are compared with PyTorch's first; a different result
is reported and not timed. The processes then take turns, one sample after the other, for several
rounds. A ratio is the median over the rounds of two consecutive times, so other work on the machine
affects both.

Data of 8 MiB or more, weights and caches come from different memory at each call, as in the layers
of a model. Smaller data stays in the caches, where the previous layer would have left it. Calls are
made from Python, so a few microseconds of each time are the call itself.

torch.compile needs about ten seconds to compile a shape, so it only runs the shapes of a quick run.
With ``--compile-all`` it runs all shapes.

``--check`` compares the ratios with those of an earlier run on the same kind of CPU, which
``--write-baseline`` keeps in ``benchmarks/baseline``.

Without ``--python``, the packages that ``make package`` has built are installed into an environment
below the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels import (
    baseline,
    cases,
    machine,
    official,
    packages,
    pages,
    plot,
    quiet,
    report,
    session,
)
from kernels.peers import NAMES, Peer, Runner

from vllm_build.commands import package_options
from vllm_build.util import paths
from vllm_build.util.console import Console
from vllm_build.util.errors import ConfigurationError, PackageTestError, VllmBuildError
from vllm_build.util.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = paths.source_root()
DOCS, PLOT = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks-kernels.svg"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few shapes, few rounds: minutes instead of half an hour",
    )
    parser.add_argument(
        "--only", metavar="OP", nargs="+", default=[], help="ops, by their names in torch.ops"
    )
    parser.add_argument(
        "--peers",
        metavar="PEER",
        nargs="+",
        choices=NAMES,
        default=list(NAMES),
        help=f"any of {', '.join(NAMES)}",
    )
    parser.add_argument(
        "--compile-all", action="store_true", help="torch.compile at every shape: an hour more"
    )
    parser.add_argument(
        "--python",
        type=Path,
        help="an interpreter with vllm and torch, instead of the packages of the output folder",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="turns of every process; default: 7, quick: 3; 0 compares results only",
    )
    parser.add_argument("--seconds", type=float, default=0.03, help="shortest time of a turn")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results" / "kernels.json"
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help=f"write the summary into {DOCS.name} and draw {PLOT.name}",
    )
    parser.add_argument(
        "--isa",
        choices=official.ISAS,
        help="run ours with this instruction set of VLLM_CPU_ISA, and the others within it",
    )
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument(
        "--check",
        action="store_true",
        help="name the cases that are slower than in the baseline of this CPU by more than the "
        "noise; the exit status is then 1",
    )
    compared.add_argument(
        "--write-baseline", action="store_true", help="keep the ratios as this CPU's baseline"
    )
    package_options.add_channel(parser)
    return parser.parse_args()


def make_peers(
    names: Sequence[str], runner: Runner, console: Console, isa: str | None = None
) -> list[Peer]:
    """Start the processes; skip those that cannot run, with a warning."""
    peers = []
    for name in dict.fromkeys(("ours", *names)):
        peer = Peer(name, runner)
        if name == "official":
            try:
                peer.libraries = [official.library(console, isa)]
                numa = official.libnuma()
            except VllmBuildError as error:
                console.warn(f"without the official wheel: {error.message}")
                continue
            if numa:
                peer.runner = Runner(
                    runner.python, {**runner.env, "VLLM_BENCH_LIBNUMA": str(numa)}, runner.conda
                )
        peer.start()
        if "failed" in peer.facts:
            console.warn(f"without {name}: {peer.facts['failed']}")
            peer.stop()
            if name == "ours":
                raise PackageTestError(
                    f"{runner.python} has no vllm with kernels: {peer.facts['failed']}",
                    remedy="make package VARIANT=cpu",
                )
            continue
        if name == "official" and not peer.facts["torch"].startswith(official.TORCH):
            console.warn(
                f"the official wheel {official.VERSION} is built for torch {official.TORCH}x, but "
                f"this is {peer.facts['torch']}"
            )
        peers.append(peer)
    return peers


def conclude(results: list[report.Result], peers: list[Peer], limits: machine.Machine) -> list[str]:
    """Print the summary; return the problems of our kernels."""
    found = limits.limits
    print()
    if limits.problem:
        print(f"the machine's limits are unknown: {limits.problem}")
    else:
        print(
            f"this machine: reading {found.read / 1e9:.1f} GB/s, copying {found.copy / 1e9:.1f}, "
            f"bypassing the caches {found.streaming_copy / 1e9:.1f}, "
            f"{found.flops / 1e9:.0f} GFLOP/s of float32 multiply-adds, "
            f"{found.bf16 / 1e9:.0f} of bfloat16, {found.int8 / 1e9:.0f} GOP/s of int8, "
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
    return session.conclude(results, peers)


def document(
    results: list[report.Result], peers: list[Peer], limits: machine.Machine
) -> dict[str, Any]:
    """The results as a JSON document."""
    return {
        "machine": machine.description(),
        "limits": asdict(limits.limits),
        "limits_unknown": limits.problem,
        "peers": {peer.name: peer.facts for peer in peers},
        "cases": [result.document(limits.limits) for result in results],
    }


def write_docs(results: list[report.Result], limits: machine.Machine, isa: str | None) -> None:
    """Replace the summary between its marks in the documentation and draw the plot.

    Raises:
        PackageTestError: the page has no marks.
    """
    options = f"--isa {isa}" if isa else ""
    picture_path = PLOT.with_stem(f"{PLOT.stem}-{isa}") if isa else PLOT
    about, found = machine.description(), limits.limits
    facts = (
        f"{about['cpu']}, {about['cores']} cores: reading {found.read / 1e9:.1f} GB/s, "
        f"copying {found.copy / 1e9:.1f} GB/s "
        f"(bypassing the caches {found.streaming_copy / 1e9:.1f}), "
        f"{found.flops / 1e9:.0f} GFLOP/s of float32 multiply-adds, "
        f"{found.bf16 / 1e9:.0f} of bfloat16, {found.int8 / 1e9:.0f} GOP/s of int8."
    )
    lines = "\n".join(f"- {line}" for line in report.totals(results))
    columns = (
        "The other implementation's time divided by ours: the geometric mean over shapes and "
        "dtypes, in parentheses the smallest ratio."
    )
    picture = f"![Time relative to ours, by op]({picture_path.name})"
    pages.replace(
        DOCS,
        "bench_kernels",
        [facts, lines, picture, columns, report.summary(results, limits.limits)],
        options,
    )
    write_text(
        picture_path,
        plot.svg(results, f"{about['cpu']}, {about['cores']} cores; one dot per shape and dtype"),
    )


def confirmed_losses(
    results: Sequence[report.Result],
    before: baseline.Ratios,
    peers: Sequence[Peer],
    *,
    rounds: int,
    seconds: float,
) -> list[baseline.Loss]:
    """The cases that are slower than in the baseline, measured twice as long once more."""
    suspects = dict.fromkeys(loss.case for loss in baseline.losses(results, before))
    compared = [peer for peer in peers if peer.name in ("ours", *baseline.PEERS)]
    again = [session.measure(case, compared, 2 * rounds, seconds) for case in suspects]
    return baseline.losses(again, before)


def runner_of(options: argparse.Namespace, console: Console) -> Runner:
    """The interpreter of the run, and its environment."""
    more = {
        "TORCHINDUCTOR_CACHE_DIR": str(paths.cache_root() / "benchmarks" / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        **(
            {"VLLM_CPU_ISA": options.isa, **official.ISAS[options.isa].environment()}
            if options.isa
            else {}
        ),
    }
    if options.python:
        return Runner(options.python.absolute(), {**os.environ, **more}, conda=False)
    found = packages.environment(options, console)
    return Runner(found.python, {**found.env, **more}, found.conda)


def check_options(options: argparse.Namespace) -> None:
    """Refuse options that exclude each other, and a busy machine if the figures are kept.

    Raises:
        ConfigurationError: a baseline of some cases. ResourceError: other programs compute.
    """
    if options.write_baseline and (options.quick or options.only):
        raise ConfigurationError(
            "--write-baseline with --quick or --only", expected="a baseline of all cases"
        )
    if options.docs or options.check or options.write_baseline:
        quiet.require_quiet(quiet.busy_share())


def keep(
    options: argparse.Namespace,
    results: list[report.Result],
    limits: machine.Machine,
    kept: Path,
) -> None:
    """Write what ``--docs`` and ``--write-baseline`` ask for.

    Raises:
        ResourceError: the rounds differ too much.
        PackageTestError: the page has no marks.
    """
    if options.docs or options.write_baseline:
        quiet.require_steady(results)
    if options.docs:
        write_docs(results, limits, options.isa)
    if options.write_baseline:
        baseline.write(kept, baseline.document(results, machine.description()))
        print(f"written to {kept}")


def main() -> int:
    """Run the benchmark.

    The exit status is 1 if one of our ops is missing, fails, or computes a wrong result, or if
    ``--check`` finds a loss.
    """
    options, console = arguments(), Console()
    kept = baseline.FOLDER / baseline.name_of(machine.description(), options.isa or "")
    try:
        wanted = cases.select(options.only, quick=options.quick)
        before = baseline.read(kept) if options.check else {}
        check_options(options)
        runner = runner_of(options, console)
        peers = make_peers(options.peers, runner, console, options.isa)
    except (VllmBuildError, ValueError) as error:
        console.error(str(error))
        return getattr(error, "exit_code", 2)
    limits = machine.Machine(
        runner,
        int(peers[0].facts["threads"]),
        official.ISAS[options.isa].flags if options.isa else (),
    )
    rounds = options.rounds if options.rounds is not None else 3 if options.quick else 7
    compiled = wanted if options.compile_all else cases.select(options.only, quick=True)
    how: dict[str, Any] = {"rounds": rounds, "seconds": options.seconds}
    try:
        results = session.run(wanted, peers, compiled, limits, **how)
        losses = confirmed_losses(results, before, peers, **how)
    finally:
        for peer in peers:
            peer.stop()
    wrong = conclude(results, peers, limits)
    for loss in losses:
        print(f"SLOWER: {loss}")
    write_text(options.results, json.dumps(document(results, peers, limits), indent=1) + "\n")
    print(f"written to {options.results}")
    try:
        keep(options, results, limits, kept)
    except VllmBuildError as error:
        console.error(str(error))
        return error.exit_code
    return 1 if wrong or losses else 0


if __name__ == "__main__":
    sys.exit(main())
