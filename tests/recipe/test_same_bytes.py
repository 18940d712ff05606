# SPDX-License-Identifier: Apache-2.0
"""The same inputs give the same bytes, even with another checkout, cache, umask, locale and time.

By default, only our packages are built a second time, with the toolchain of the first cache. ``make
test-full`` builds everything twice, starting without any cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from full_suite import FULL
from package_runs import built_fixture  # noqa: F401 -- a fixture
from trees import copy_tree, misses

from vllm_build.toolchain import channel_records, channel_views, toolchain_builds, toolchain_lock
from vllm_build.util import paths
from vllm_build.util.files import sha256_of

pytestmark = pytest.mark.slow
ROOT = paths.source_root()
#: Packages that ``make test-full`` must have built: static C++ with messages that name files, byte
#: code and scripts, a wheel for one interpreter, a wheel for all.
AGAIN = ("libhwy", "python-3.11", "numpy-3.11", "filelock")


@dataclass(frozen=True)
class Place:
    """A checkout with a cache and an output folder, and the circumstances in which it is built."""

    tree: Path
    cache: Path
    output: Path
    circumstances: dict[str, str]
    umask: int

    def build(self) -> tuple[dict[str, str], str]:
        """Run ``vllm-build package cpu``, which installs nothing.

        Returns:
            The sha256 of all packages, and the log.
        """
        kept = {
            key: value
            for key in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")
            if (value := os.environ.get(key))
        }
        kept |= {
            key: value
            for key, value in os.environ.items()
            if key.startswith("PIP_") or key.endswith("_proxy")
        }
        env = {
            **kept,
            "PYTHONPATH": str(self.tree / "scripts"),
            "VLLM_BUILD_CACHE": str(self.cache),
            **self.circumstances,
        }
        command = [
            sys.executable,
            "-m",
            "vllm_build",
            "package",
            "cpu",
            "--json",
            "--build-only",
            "--output",
            str(self.output),
        ]
        done = subprocess.run(
            command,
            cwd=self.tree,
            env=env,
            umask=self.umask,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-6000:]
        return hashes(json.loads(done.stdout), self.cache), done.stderr


def hashes(result: dict[str, Any], cache: Path) -> dict[str, str]:
    """The sha256 of the packages of a run, and of all packages of the toolchain."""
    ours = {Path(entry["path"]).name: entry["sha256"] for entry in result["packages"]}
    pool = cache / "channel" / "pool"
    return ours | {path.name: sha256_of(path) for path in pool.glob("*/*.conda")}


def link(source: str | Path, target: str | Path) -> None:
    """Link the file under another name, or copy it to another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def share_downloads(source: Path, target: Path) -> None:
    """Take over verified downloads."""
    target.mkdir(parents=True)
    for name in ("downloads", "sources"):
        if (source / name).is_dir():
            shutil.copytree(
                source / name,
                target / name,
                copy_function=link,
                ignore=shutil.ignore_patterns(".lock"),
            )


def seed(source: Path, target: Path) -> None:
    """Copy the toolchain's packages for this tree to another cache."""
    digests = channel_views.digests_of(ROOT, toolchain_builds.load(ROOT), toolchain_lock.read(ROOT))
    for name, digest in digests.items():
        record = channel_records.read_record(source / "channel" / "pool", name, digest)
        if record is None:
            continue
        for package in record.packages:
            path = target / "channel" / "pool" / package
            path.parent.mkdir(parents=True, exist_ok=True)
            link(source / "channel" / "pool" / package, path)
        channel_records.write_record(target / "channel" / "pool", record)


def test_another_checkout_and_another_cache_give_the_same_bytes(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cache = paths.cache_root()
    if FULL:
        share_downloads(cache, tmp_path / "c")
        circumstances = {"SOURCE_DATE_EPOCH": "1700000000"}
        first = Place(
            copy_tree(tmp_path / "t"), tmp_path / "c", tmp_path / "o", circumstances, 0o022
        )
        before, _ = first.build()
    else:
        before = hashes(request.getfixturevalue("built").result, cache)
    other = {
        "SOURCE_DATE_EPOCH": "1600000000",
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "C.UTF-8",
        "LANG": "tr_TR.UTF-8",
        "MAX_JOBS": "1",
    }
    place = tmp_path / "elsewhere" / "and-with-a-longer-name"
    share_downloads(cache, place / "cache")
    if not FULL:
        seed(cache, place / "cache")
        # The compiler's results come from its cache, and are linked again.
        other["CCACHE_DIR"] = str(paths.ccache_dir())
    second = Place(copy_tree(place / "tree"), place / "cache", place / "output", other, 0o077)
    after, said = second.build()
    if not FULL:
        assert misses(said) == 0, said[-4000:]
    assert ("==> build libhwy for the toolchain channel" in said) is FULL
    for name in AGAIN if FULL else ():
        assert f"==> build {name} for the toolchain channel" in said
    assert {name: sha256 for name, sha256 in after.items() if before.get(name) != sha256} == {}
    kinds = {name.partition("-")[0] for name in after}
    assert {"vllm", "libhwy", "python", "numpy", "filelock"} <= kinds
