# SPDX-License-Identifier: Apache-2.0
"""Times whole builds of the CPU packages: cold, warm, no-op and after one edited file.

Each run is the command a user types, on a copy of the tree with an output folder and a compiler cache of its own; the toolchain channel is
the user's. The share of CPU time is CPU seconds of all child processes over wall seconds times cores: what is missing to 100 % is waiting.
``--toolchain`` begins with an empty cache and times the toolchain channel as well.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vllm_build import paths

IGNORED = shutil.ignore_patterns(".git", ".venv", "output", "build", "__pycache__", "*.so", "results")
EDITED = Path("csrc") / "activation" / "activation_cpu.cc"


@dataclass(frozen=True)
class Run:
    """One timed command: wall and CPU in seconds, share of the cores' time, wall relative to the cold build."""

    name: str
    wall: float
    cpu: float
    share: float
    to_cold: float
    stages: dict[str, float]


def timed(name: str, command: list[str], env: dict[str, str], cold: float | None) -> Run:
    """Run ``command``, which prints the JSON of ``vllm-build package``; a failure ends the benchmark with its output."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    stages = json.loads(done.stdout).get("seconds", {})
    return Run(name, round(wall, 2), round(cpu, 2), round(cpu / wall / (os.cpu_count() or 1), 3), round(wall / (cold or wall), 4), stages)


def measure(folder: Path, *, toolchain: bool) -> list[Run]:
    """All runs in order; ``folder`` receives the copy of the tree, its output and the compiler cache."""
    tree = folder / "tree"
    shutil.copytree(paths.source_root(), tree, ignore=IGNORED)
    env = {**os.environ, "CCACHE_DIR": str(folder / "ccache"), "PYTHONPATH": str(tree / "scripts")}
    vllm_build = [sys.executable, "-m", "vllm_build"]
    command = [*vllm_build, "package", "cpu", "--json", "--output", str(folder / "output")]
    runs = []
    if toolchain:
        env["VLLM_BUILD_CACHE"] = str(folder / "cache")
        runs.append(timed("toolchain, cold", [*vllm_build, "toolchain", "--json"], env, None))
    cold = timed("cold", command, env, None)
    runs.append(cold)
    shutil.rmtree(folder / "output")
    runs.append(timed("warm: compiler cache, no packages", command, env, cold.wall))
    runs.append(timed("no-op", command, env, cold.wall))
    with (tree / EDITED).open("a", encoding="utf-8") as source:
        source.write("\n#if HWY_ONCE\nnamespace {\n[[maybe_unused]] constexpr int kEdited = 1;\n}  // namespace\n#endif\n")
    runs.append(timed("one file edited", command, env, cold.wall))
    return runs


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toolchain", action="store_true", help="time the toolchain channel from an empty cache, too")
    parser.add_argument("--results", type=Path, default=paths.source_root() / "benchmarks" / "results" / "build.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vllm-bench-") as folder:
        runs = measure(Path(folder), toolchain=arguments.toolchain)
    print(f"{'run':36} {'wall s':>8} {'CPU s':>8} {'CPU share':>10} {'to cold':>8}   ({os.cpu_count()} cores)")
    for run in runs:
        print(f"{run.name:36} {run.wall:8.1f} {run.cpu:8.1f} {run.share:10.0%} {run.to_cold:8.3f}")
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(
        json.dumps({"cores": os.cpu_count(), "runs": [asdict(run) for run in runs]}, indent=2) + "\n", encoding="utf-8"
    )
    print(f"written to {arguments.results}")


if __name__ == "__main__":
    main()
