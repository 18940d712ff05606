# SPDX-License-Identifier: Apache-2.0
"""Runs of ``vllm-build package cpu``, the command that users type.

A test module imports the fixtures; their names there have no suffix ``_fixture``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from vllm_build.conda import package_channel, package_checks, package_request, variants
from vllm_build.settings.build_settings import Settings
from vllm_build.util import locks, paths
from vllm_build.util.console import Console

ROOT = paths.source_root()
#: ``make package`` writes here too, and the tests reuse its packages.
OUTPUT = ROOT / "output"


@dataclass(frozen=True)
class Done:
    """One run of ``vllm-build package cpu``."""

    result: dict[str, Any]
    log: str

    @property
    def kernels(self) -> str:
        (path,) = (
            p["path"]
            for p in self.result["packages"]
            if Path(p["path"]).name.startswith("vllm-kernels-")
        )
        return str(path)


def vllm_build(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vllm_build", *arguments]
    return subprocess.run(
        command, cwd=tree, env=environ(tree), capture_output=True, text=True, check=False
    )


def environ(tree: Path) -> dict[str, str]:
    kept = (
        "PATH",
        "HOME",
        "CCACHE_DIR",
        "VLLM_BUILD_CACHE",
        "XDG_CACHE_HOME",
        "MAX_JOBS",
        "COVERAGE_PROCESS_CONFIG",
    )
    return {
        **{key: value for key in kept if (value := os.environ.get(key))},
        "PYTHONPATH": str(tree / "scripts"),
    }


def build(tree: Path, output: Path, *options: str) -> Done:
    done = vllm_build(tree, "package", "cpu", "--json", "--output", str(output), *options)
    assert done.returncode == 0, done.stderr[-6000:]
    return Done(json.loads(done.stdout), done.stderr)


@pytest.fixture(scope="session", name="output")
def output_fixture() -> Path:
    return OUTPUT


@pytest.fixture(scope="session", name="built")
def built_fixture(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The packages of this tree, built once for all modules and all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"
    folder.mkdir(exist_ok=True)
    kept = folder / "done.json"
    with locks.waiting(folder / "lock"):
        if not kept.exists():
            kept.write_text(json.dumps(asdict(build(ROOT, OUTPUT))), encoding="utf-8")
    return Done(**json.loads(kept.read_text(encoding="utf-8")))


@pytest.fixture(scope="session", name="request_")
def request_fixture(output: Path, built: Done) -> package_request.Request:
    """The request for the packages, with everything that their checks need in the channel."""
    assert built.result["packages"]
    settings = Settings.from_environ(os.environ)
    request = package_request.Request(
        ROOT, variants.load(ROOT, "cpu"), package_channel.choose(None, settings), output, settings
    )
    package_checks.prepare(request, Console())
    return request


@pytest.fixture(scope="session", name="loud")
def loud_fixture() -> Console:
    """A console that writes to stderr."""
    return Console()
