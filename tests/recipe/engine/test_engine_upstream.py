# SPDX-License-Identifier: Apache-2.0
"""Upstream's own tests of its ops for CPUs, over ours."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import engine_server
import engine_upstream
import full_suite
import pytest

from vllm_build.engine import engine_source
from vllm_build.toolchain import third_party_fetch
from vllm_build.toolchain.locked_files import Fetcher
from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.util.console import Console

pytestmark = [pytest.mark.slow, full_suite.full_only]


@pytest.fixture
def archive(root: Path, console: Console) -> Path:
    """The locked source distribution, verified; downloaded if the cache does not have it."""
    file = third_party_fetch._locked_file(engine_source.locked(root))
    fetcher = Fetcher(paths.cache_root(), console, os.environ)
    fetcher.ensure([file])
    return fetcher.store.path(file)


def test_every_test_for_cpus_runs_or_has_a_reason(archive: Path) -> None:
    assert engine_upstream.unexplained(archive) == []
    known = engine_upstream.candidates(archive)
    useless = [
        entry
        for entry in engine_upstream.NOT_RUN
        if not any(name == entry or name.startswith(entry) for name in known)
    ]
    assert not useless, "these are no tests for CPUs"
    assert not set(engine_upstream.RUN) & set(engine_upstream.NOT_RUN)


@pytest.mark.parametrize("file", engine_upstream.RUN)
def test_upstreams_tests_pass(archive: Path, compiling: Path, tmp_path: Path, file: str) -> None:
    folder, home = tmp_path / "upstream", tmp_path / "home"
    engine_upstream.extract(archive, folder)
    home.mkdir()
    left_out = [name for name in engine_upstream.LEFT_OUT if name.startswith(f"{file}::")]
    done = subprocess.run(
        [
            *(str(compiling / "bin" / "python"), "-P", "-m", "pytest", "-c", os.devnull),
            *("--rootdir", str(folder), "--confcutdir", str(folder), "-p", "no:cacheprovider"),
            *("-q", "-rs", "-o", "pythonpath=.", *(f"--deselect={name}" for name in left_out)),
            str(folder / file),
        ],
        cwd=folder,
        env=engine_server.environ(compiling, home, OMP_WAIT_POLICY="PASSIVE"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    last = done.stdout.strip().splitlines()[-1]
    print(f"{file}: {last}")
    assert done.returncode == 0, done.stdout[-8000:]
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|deselected)", last)}
    assert counts.get("passed", 0) > 0
    # Each exception still names a test.
    assert counts.get("deselected", 0) >= len(left_out)
