# SPDX-License-Identifier: Apache-2.0
"""Times builds of the CPU packages and a developer's editable installs with pip.

Builds are timed cold, warm, without a change, and after one edited file. Each run is the command
that a user types, on a copy of the tree with its own output folder and compiler cache; the
toolchain channel is the user's. The share of CPU time is the CPU seconds of all child processes
divided by wall seconds times cores; the rest is waiting. ``--toolchain`` begins with an empty cache
and times the toolchain channel as well.

The installs run in an environment of the channel (compiler, CMake, torch) without a compiler cache.
The editable install of an empty package shows how long pip and setuptools take. A second install of
vllm should take less than 3 s more.
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
from typing import Any

from vllm_build.conda import package_channel
from vllm_build.conda.environments import conda_environment
from vllm_build.settings.build_settings import Settings
from vllm_build.util import paths

IGNORED = shutil.ignore_patterns(
    ".git", ".venv", "output", "build", "__pycache__", "*.so", "results"
)
EDITED = Path("csrc") / "activation" / "activation_cpu.cc"
ADDED = (
    "\n#if HWY_ONCE\nnamespace {\n[[maybe_unused]] constexpr int kEdited = 1;\n"
    "}  // namespace\n#endif\n"
)
#: Seconds that a second editable install may take beyond that of an empty package.
TARGET = 3.0


@dataclass(frozen=True)
class Run:
    """A timed command.

    ``wall`` and ``cpu`` are seconds, ``share`` is the share of the cores' time, and ``to_cold`` is
    the wall time relative to the cold build.
    """

    name: str
    wall: float
    cpu: float
    share: float
    to_cold: float
    stages: dict[str, float]


def timed(name: str, command: list[str], env: dict[str, str], cold: float | None) -> Run:
    """Run and time ``command``; a failure ends the benchmark with its output.

    With ``--json``, the command prints the document of ``vllm-build package``.
    """
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    stages = json.loads(done.stdout).get("seconds", {}) if "--json" in command else {}
    return Run(
        name,
        round(wall, 2),
        round(cpu, 2),
        round(cpu / wall / (os.cpu_count() or 1), 3),
        round(wall / (cold or wall), 4),
        stages,
    )


EMPTY = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "empty-package"
version = "1.0"
[tool.setuptools]
packages = ["empty_package"]
"""
DEVELOPER = [
    "python 3.11.*",
    "gxx_linux-64",
    "libhwy",
    "cmake",
    "ninja",
    "pytorch",
    "pip",
    "setuptools",
    "wheel",
    "packaging",
]
ACTIVATE = 'for f in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do . "$f"; done; exec "$@"'


def measure_editable(folder: Path) -> list[Run]:
    """Time editable installs: an empty package, vllm from nothing, again, after one edited file.

    Short installs are the best of 3.
    """
    prefix, tree, empty = folder / "env", folder / "editable", folder / "empty"
    conda_environment.create(
        prefix,
        DEVELOPER,
        [package_channel.url(package_channel.choose(None, Settings.from_environ(os.environ)))],
    )
    shutil.copytree(paths.source_root(), tree, ignore=IGNORED)
    (empty / "empty_package").mkdir(parents=True)
    (empty / "empty_package" / "__init__.py").touch()
    (empty / "pyproject.toml").write_text(EMPTY, encoding="utf-8")
    env = {
        **conda_environment.environ_of(prefix, os.environ),
        "VLLM_DISABLE_CCACHE": "1",
        "VLLM_DISABLE_SCCACHE": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }

    def install(name: str, source: Path, repeat: int = 1) -> Run:
        pip = [
            f"{prefix}/bin/python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--no-deps",
            "--no-build-isolation",
            "-e",
            str(source),
        ]
        command = ["bash", "-c", ACTIVATE, "pip", *pip]
        return min(
            (timed(name, command, env, None) for _ in range(repeat)), key=lambda run: run.wall
        )

    install("pip, the first time", empty)  # compiles pip's modules to bytecode
    runs = [
        install("editable: empty package", empty, 3),
        install("editable: first", tree),
        install("editable: again", tree, 3),
    ]
    with (tree / EDITED).open("a", encoding="utf-8") as source:
        source.write(ADDED)
    return [*runs, install("editable: one file edited", tree)]


def measure(folder: Path, *, toolchain: bool) -> list[Run]:
    """Time all builds in order.

    ``folder`` receives the copy of the tree, its output and the compiler cache.
    """
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
        source.write(ADDED)
    runs.append(timed("one file edited", command, env, cold.wall))
    return runs


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--toolchain",
        action="store_true",
        help="also time the toolchain channel, from an empty cache",
    )
    parser.add_argument("--only", choices=("packages", "editable"), help="time only these runs")
    parser.add_argument(
        "--results",
        type=Path,
        default=paths.source_root() / "benchmarks" / "results" / "build.json",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vllm-bench-") as folder:
        runs = (
            measure(Path(folder), toolchain=arguments.toolchain)
            if arguments.only != "editable"
            else []
        )
        editable = measure_editable(Path(folder)) if arguments.only != "packages" else []
    print(
        f"{'run':36} {'wall s':>8} {'CPU s':>8} {'CPU share':>10} {'to cold':>8}   "
        f"({os.cpu_count()} cores)"
    )
    for run in (*runs, *editable):
        print(f"{run.name:36} {run.wall:8.1f} {run.cpu:8.1f} {run.share:10.0%} {run.to_cold:8.3f}")
    document: dict[str, Any] = {
        "cores": os.cpu_count(),
        "runs": [asdict(run) for run in (*runs, *editable)],
    }
    if editable:
        walls = {run.name: run.wall for run in editable}
        beyond = walls["editable: again"] - walls["editable: empty package"]
        verdict = "less" if beyond < TARGET else "MORE"
        print(
            f"a second editable install takes {beyond:.2f} s beyond an empty package's ({verdict} "
            f"than {TARGET:.0f} s)"
        )
        document["editable_beyond_empty"] = round(beyond, 2)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"written to {arguments.results}")


if __name__ == "__main__":
    main()
