# SPDX-License-Identifier: Apache-2.0
"""The official CPU wheel with its requirements, in a virtual environment in the user's cache.

``official.txt`` pins the wheel and every requirement that serving text needs, each by sha256. The
environment has its own torch. Left out are torchvision, torchaudio and torchcodec: an index's
default builds of these are for CUDA and do not fit torch's CPU build.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kernels import official
from kernels.peers import Runner

from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError, ToolchainError
from vllm_build.util.files import write_text
from vllm_build.util.processes import pip_process

if TYPE_CHECKING:
    from vllm_build.util.console import Console

PINS = Path(__file__).resolve().with_name("official.txt")
#: The version of Python that the pinned torch is for.
PYTHON = "3.11"
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def _require_version(base: Runner) -> None:
    found = subprocess.run(
        [str(base.python), "-c", _VERSION],
        env=dict(base.env),
        capture_output=True,
        text=True,
        check=False,
    )
    if found.stdout.strip() != PYTHON:
        raise ConfigurationError(
            f"{base.python} is Python {found.stdout.strip() or 'of an unknown version'}",
            expected=f"Python {PYTHON}, which the pinned torch of {PINS.name} is for",
            remedy="give --python such an interpreter, or --peers ours transformers",
        )


def _install(python: Path) -> None:
    """Install the pins with the pip of this process.

    Raises:
        ToolchainError: pip fails.
    """
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(PINS)]
    try:
        env = pip_process.environment("install", os.environ)
    except pip_process.PipConfigurationError as error:
        raise ConfigurationError(f"pip cannot read its configuration: {error}") from error
    done = subprocess.run(
        [*command, *options], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise ToolchainError(
            f"pip cannot install {PINS.name}: {' '.join(words[-3:])[-400:] or 'it said nothing'}",
            expected=f"an index with {official.NAME} {official.VERSION} and with torch's CPU "
            "builds, whose versions end with +cpu",
            remedy="add one to pip's configuration (extra-index-url or find-links)",
        )


def runner(base: Runner, console: Console) -> Runner:
    """The interpreter of the environment; created if the cache does not have it.

    Args:
        base: an interpreter that the environment is made from, with its compiler.
        console: shows the step.

    Raises:
        VllmBuildError: the interpreter has another version, or pip or libnuma fail.
    """
    _require_version(base)
    digest = hashlib.sha256(PINS.read_bytes() + str(base.python).encode()).hexdigest()[:12]
    folder = paths.cache_root() / "benchmarks" / f"{official.NAME}-{official.VERSION}-venv"
    mark, python = folder / "complete", folder / "bin" / "python"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != digest:
        with console.step(f"environment with {official.NAME} {official.VERSION}"):
            made = subprocess.run(
                [str(base.python), "-m", "venv", "--clear", "--without-pip", str(folder)],
                env=dict(base.env),
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                raise ToolchainError(
                    f"{base.python} -m venv {folder} failed: {made.stderr.strip()[-300:]}"
                )
            _install(python)
            write_text(mark, digest)
    env = dict(base.env)
    if numa := official.libnuma():
        env["LD_LIBRARY_PATH"] = str(numa.parent)
    return Runner(python, env, base.conda)
