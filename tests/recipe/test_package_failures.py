# SPDX-License-Identifier: Apache-2.0
"""Builds of the CPU packages that are refused, interrupted or fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from command_runs import HEARING
from full_suite import full_only
from package_runs import (  # noqa: F401 -- fixtures
    ROOT,
    Done,
    build,
    built_fixture,
    environ,
    output_fixture,
    vllm_build,
)
from trees import copy_tree

from vllm_build.conda import package_job
from vllm_build.packing import channel_index
from vllm_build.util import locks
from vllm_build.util.errors import BusyError

pytestmark = pytest.mark.slow


def test_second_build_at_the_same_time_is_refused(built: Done, output: Path) -> None:
    from vllm_build.util.locks import exclusive

    assert built.result["packages"]
    with exclusive(output, "the output folder"):
        done = vllm_build(ROOT, "package", "cpu", "--output", str(output))
    assert done.returncode == 9, done.stderr
    assert "another process" in done.stderr


def test_compiler_missing_from_the_channel_is_said(built: Done, tmp_path: Path) -> None:
    assert built.result["packages"]
    tree = copy_tree(tmp_path / "tree")
    variant = tree / "variants" / "cpu.yaml"
    variant.write_text(
        variant.read_text(encoding="utf-8").replace('- "12"', '- "99"'), encoding="utf-8"
    )
    done = vllm_build(tree, "package", "cpu", "--output", str(tmp_path / "output"))
    assert done.returncode == 4, done.stderr[-3000:]
    assert "linux-64 99" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "output").glob("*/*.conda"))


@pytest.mark.parametrize(
    "number",
    [
        *(signal.SIGINT, signal.SIGKILL),
        *(pytest.param(number, marks=full_only) for number in (signal.SIGTERM, signal.SIGHUP)),
    ],
    ids=lambda number: number.name,
)
def test_a_signal_ends_all_processes_and_keeps_what_was_built(
    built: Done, tmp_path: Path, number: signal.Signals
) -> None:
    tree, output = copy_tree(tmp_path / "tree"), tmp_path / "output"
    package_job.claim_output(output)
    kept = channel_index.publish([Path(built.kernels)], output)
    # A pipe without a writer: the compiler waits for it until the signal.
    os.mkfifo(tmp_path / "never.h")
    with (tree / "csrc" / "norm" / "norm_cpu.cc").open("a", encoding="utf-8") as stream:
        stream.write(f'\n#include "{tmp_path / "never.h"}"\n')
    command = [
        *HEARING,
        sys.executable,
        "-u",
        "-m",
        "vllm_build",
        "package",
        "cpu",
        "--output",
        str(output),
    ]
    with subprocess.Popen(
        command,
        cwd=tree,
        env=environ(tree),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if (
                "x86_64-conda-linux-gnu-g++: " in line
            ):  # the build script runs and has found its compiler
                process.send_signal(number)
                break
        rest = process.stderr.read()
    assert "Traceback" not in rest
    assert sorted(output.glob("*/*.conda")) == kept
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        # The folder remains locked while a process may still write to it.
        deadline = time.monotonic() + 60
        while left(output):
            assert is_locked(output) or not left(output), (
                "a process that may write to a folder that is not locked"
            )
            assert time.monotonic() < deadline
    else:
        assert process.returncode == 128 + number, rest
        assert f"interrupted by {number.name}" in rest
        assert not left(output)


def is_locked(folder: Path) -> bool:
    try:
        with locks.exclusive(folder, "the output folder"):
            return False
    except BusyError:
        return True


def left(output: Path) -> list[psutil.Process]:
    """Processes that have the folder in their command line."""
    return [
        p
        for p in psutil.process_iter(["cmdline"])
        if any(str(output) in word for word in p.info["cmdline"] or [])
    ]


def test_failed_compile_shows_the_error_and_where_the_log_is(built: Done, tmp_path: Path) -> None:
    assert built.result["packages"]
    tree = copy_tree(tmp_path / "tree")
    with (tree / "csrc" / "norm" / "norm_cpu.cc").open("a", encoding="utf-8") as stream:
        stream.write("\n#error deliberately broken\n")
    done = vllm_build(tree, "package", "cpu", "--output", str(tmp_path / "output"))
    assert done.returncode == 7, done.stderr[-3000:]
    message = done.stderr[done.stderr.rindex("error: building") :]
    assert "deliberately broken" in message
    assert "conda_build.log" in message
    assert "Traceback" not in message
