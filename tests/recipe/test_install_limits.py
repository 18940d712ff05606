# SPDX-License-Identifier: Apache-2.0
"""An installation that exhausts a resource fails with status 10 and leaves no files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conda_files import make_channel, make_package

from vllm_build.conda.environments import conda_environment
from vllm_build.util import failures
from vllm_build.util.errors import (
    ConfigurationError,
    IntegrityError,
    PackageTestError,
    ResourceError,
)

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """
import sys
from vllm_build import cli
from vllm_build.conda import package_channel
package_channel.url = lambda *_: "file://" + sys.argv[2]
_, prefix, folder = sys.argv
sys.exit(cli.main(["install", prefix, "foo", "--output", folder, "--channel", "conda-forge"]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A channel with a package of 300 files, one of them of 200 KB."""
    files = {f"share/{number}": "x" for number in range(300)} | {"large": "y" * 200_000}
    make_channel(tmp_path / "channel", make_package(tmp_path / "made", "foo", files))
    return tmp_path / "channel"


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("limit", ["-f 100", "-f 1", "-f 0", "-n 12"])
def test_limits(tmp_path: Path, root: Path, folder: Path, limit: str, *, warm: bool) -> None:
    # The limit would apply to coverage's file too.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    env = {**kept, "PYTHONPATH": str(root / "scripts"), "VLLM_BUILD_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", _PROGRAM]
    (tmp_path / "place").mkdir()
    if warm:
        assert (
            subprocess.run(
                [*command, str(tmp_path / "first"), str(folder)], env=env, check=False
            ).returncode
            == 0
        )
    limited = [
        "bash",
        "-c",
        f'ulimit {limit}; exec "$@"',
        "bash",
        *command,
        str(tmp_path / "place" / "env"),
        str(folder),
    ]
    done = subprocess.run(limited, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == ResourceError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.parametrize(
    "said",
    [
        "failed to open file `x`: Too many open files (os error 24)",
        "Caused by: failed to write to file `x`: File too large (os error 27)",
        "No space left on device",
        "memory allocation of 240 bytes failed\nmemory allocation of 1 bytes failed",
        "Traceback …\nMemoryError",
        "RuntimeError: can't start new thread",
        "ImportError: x.so: failed to map segment from shared object",
        "OS can't spawn worker thread: Resource temporarily unavailable (os error 11)",
    ],
)
def test_what_a_child_says_before_it_dies(tmp_path: Path, said: str) -> None:
    line = failures.exhausted("something before\n" + said)
    assert line is not None
    assert line in said
    for status in (1, 8, -signal.SIGABRT):
        error = conda_environment._failure(status, said, ["foo"], tmp_path)
        assert isinstance(error, ResourceError)
        assert line in error.message


def test_other_ends_of_a_child(tmp_path: Path) -> None:
    assert isinstance(
        conda_environment._failure(-signal.SIGKILL, "", ["foo"], tmp_path), ResourceError
    )
    assert isinstance(
        conda_environment._failure(-signal.SIGSEGV, "", ["foo"], tmp_path), PackageTestError
    )
    assert isinstance(
        conda_environment._failure(8, "no zip archive (os error 2)", ["foo"], tmp_path),
        PackageTestError,
    )
    said = '{"message": "m", "expected": null, "remedy": null}'
    assert isinstance(conda_environment._failure(2, said, ["foo"], tmp_path), ConfigurationError)
    assert isinstance(conda_environment._failure(6, said, ["foo"], tmp_path), IntegrityError)
