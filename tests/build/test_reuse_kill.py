# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at random moments: the next run completes, and no half-written file is ever used."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import LIBRARIES, RECORD, Build, elf
from reuse_keys import signer
from reuse_server import Server, serving

from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.stores import store_check, store_publish

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Kills in each test that reuses kernels. The tests that publish have half as many.
KILLS = 17
SIZE = 120_000


@dataclass
class Zygote:
    """Starts workers, and kills them or waits for their end."""

    process: subprocess.Popen[str]

    def run(self, job: dict[str, Any], kill_after: float | None = None) -> int:
        """The exit status of a worker; negative if a signal with that number killed it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({**job, "kill_after": kill_after}) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def zygote(root: Path, tmp_path: Path) -> Iterator[Zygote]:
    path = os.pathsep.join([str(root / "scripts"), str(root / "tests" / "support")])
    env = {**os.environ, "PYTHONPATH": path, "VLLM_BUILD_CACHE": str(tmp_path / "user-cache")}
    command = [sys.executable, str(root / "tests" / "support" / "reuse_child.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        yield Zygote(process)
        assert process.stdin is not None
        process.stdin.close()


def builds() -> list[Build]:
    """Two builds that differ in every file."""
    return [
        Build(
            {name: elf(10 * number + n, SIZE) for n, name in enumerate(LIBRARIES)},
            {"build_digest": f"{number:064x}"},
        )
        for number in (1, 2)
    ]


def check_cache(cache: Path) -> None:
    for path in (cache / "blobs").rglob("*"):
        if path.is_file():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def check_tree(tree: Path, known: list[Build]) -> None:
    """Require that all libraries are complete and of one build, and that a record lists them."""
    libraries = {name: (tree / name).read_bytes() for name in LIBRARIES if (tree / name).exists()}
    owners = [
        build
        for build in known
        if all(build.libraries[name] == data for name, data in libraries.items())
    ]
    assert owners
    if (tree / RECORD).exists():
        (owner,) = [build for build in known if build.record() == (tree / RECORD).read_bytes()]
        assert libraries == owner.libraries


def killed_runs(
    zygote: Zygote, jobs: list[dict[str, Any]], kills: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Run the jobs in turn, killing each at a random moment, until ``kills`` runs were killed.

    After every fifth run, the job runs again and must succeed. The job is yielded after each run,
    with ``whole`` set if it succeeded.
    """
    begin = time.monotonic()
    assert zygote.run(jobs[0]) == 0
    longest, choose, killed, number = time.monotonic() - begin, random.Random(seed), 0, 0  # noqa: S311 - no secret
    while killed < kills:
        number += 1
        job = jobs[number % len(jobs)]
        begin = time.monotonic()
        if zygote.run(job, kill_after=choose.uniform(0, longest)) == -signal.SIGKILL:
            killed += 1
        else:
            # It ended before the kill, so it was faster than the first run.
            longest = min(longest, time.monotonic() - begin)
        yield job
        if number % 5 == 0:
            assert zygote.run(job) == 0
            yield {**job, "whole": True}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Server, list[dict[str, Any]], Path]]:
    """A slow server with a wheel of each build, jobs that reuse them, and the tree."""
    tree = tmp_path / "tree"
    (tmp_path / "scratch").mkdir()
    with serving() as server:
        jobs = []
        for number, build in enumerate(builds()):
            wheel = build.wheel(tmp_path / f"wheel-{number}")
            server.files[f"/{number}/{wheel.name}"] = wheel.read_bytes()
            common = {
                "work": "reuse",
                "tree": str(tree),
                "cache": str(tmp_path / "cache"),
                "scratch": str(tmp_path / "scratch"),
            }
            jobs.append(
                {
                    **common,
                    "location": f"{server.url}/{number}/{wheel.name}",
                    "digest": build.facts["build_digest"],
                }
            )
        server.rate = 4e6
        yield server, jobs, tree


def whole_build(job: dict[str, Any]) -> list[Build]:
    """The builds that the tree may have after a run."""
    return [
        build
        for build in builds()
        if not job.get("whole") or build.facts["build_digest"] == job["digest"]
    ]


def test_fetch_and_extract(
    zygote: Zygote, served: tuple[Server, list[dict[str, Any]], Path], tmp_path: Path
) -> None:
    _, jobs, tree = served
    resumed = 0
    for job in killed_runs(zygote, jobs, KILLS, seed=1):
        check_cache(tmp_path / "cache")
        check_tree(tree, whole_build(job))
        assert not job.get("whole") or (tree / RECORD).exists()
        # Remove the blobs, so that each run has something to fetch; parts of downloads stay.
        for path in (tmp_path / "cache" / "blobs").rglob("*"):
            if path.is_file():
                path.unlink()
        resumed += any((tmp_path / "cache" / "parts").iterdir())
    assert resumed, "some downloads resumed where a killed process had stopped"


def test_placing(
    zygote: Zygote, served: tuple[Server, list[dict[str, Any]], Path], tmp_path: Path
) -> None:
    """With all files in the cache, a kill can only interrupt the replacement in the tree."""
    _, jobs, tree = served
    assert zygote.run(jobs[1]) == 0
    for job in killed_runs(zygote, jobs, KILLS, seed=2):
        check_tree(tree, whole_build(job))
        if job.get("whole"):
            assert sorted(path.name for path in (tree / "vllm").iterdir()) == [
                "_C.abi3.so",
                "_build_info",
                "_moe_C.abi3.so",
            ]
    check_cache(tmp_path / "cache")


@pytest.mark.parametrize("kind", ["folder", "wheel", "conda"])
def test_publishing(zygote: Zygote, tmp_path: Path, kind: str) -> None:
    """Every document, and every package that it names, always has its statement.

    Only the conda packages go to a signed store.
    """
    folder, context = tmp_path / "store", Context(Cache(tmp_path / "cache"))
    own = signer(tmp_path / "keys") if kind == "conda" else None
    jobs: list[dict[str, Any]] = []
    for number, build in enumerate(builds()):
        built = (build.unpacked if kind == "folder" else getattr(build, kind))(
            tmp_path / f"built-{number}"
        )
        common = {
            "work": "publish",
            "cache": str(tmp_path / "cache"),
            "key": str(own.private) if own else None,
        }
        jobs.append({**common, "built": str(built), "store": str(folder)})
    for job in killed_runs(zygote, jobs, KILLS // 2, seed=3):
        if (folder / "store.json").exists():
            assert store_check.check(folder, context).problems == ()
        if job.get("whole"):
            for path in (folder / "digests").iterdir():
                path.unlink()
    for job in jobs:
        store_publish.publish(Path(job["built"]), folder, context, own.key if own else None)
    report = store_check.check(folder, context, own.key.public if own else None)
    assert report.signer == (own.key.public.keyid if own else None)
    assert (report.problems, report.unused, report.digests) == ((), (), 2)
    assert not (folder / "incoming").exists()
