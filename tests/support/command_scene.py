# SPDX-License-Identifier: Apache-2.0
"""Runs every command of ``vllm-build`` in a folder without network access, several at a time."""

from __future__ import annotations

import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from command_runs import DOCUMENTED, VLLM_BUILD, Run, clean_environment
from reuse_files import Build

from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.stores import store_publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    T = TypeVar("T")
    R = TypeVar("R")

#: Arguments with which each command does all the work that needs no network. {place} is a separate
#: folder for each run.
ROWS = {
    "package": "package cpu --channel local --output {place}/output",
    "toolchain": "toolchain libgcc",
    "fetch": "fetch",
    "engine": "engine",
    "render": "render cpu --channel conda-forge",
    "plan": "plan --device cpu",
    "archs": "archs --kernel 8.0;9.0a --targets 9.0",
    "jobs": "jobs --device cpu",
    "test-package": "test-package cpu --channel local --output {place}/output",
    "install": "install {place}/prefix --channel local --output {place}/output",
    "stamp": "stamp --check",
    "digest": "digest",
    "reuse": "reuse",
    "audit": "audit {place}/vllm-0.1.0-py3-none-any.whl --device cpu",
    "publish": "publish --store {place}/new-store {place}/built",
    "store": "store check {place}/store",
    "cache": "cache clean",
    "settings": "settings",
    "version": "version --device cpu",
    "doctor": "doctor",
}
NAMES = tuple(ROWS)

# Debian's programs; they report at once that there is no network.
FAILING = "#!/bin/sh\necho 'E: Could not connect to the mirror' >&2\nexit 100\n"
# Debian's programs; they never end and are hard to stop. They ignore SIGTERM, and have children in
# other process groups.
ENDLESS = (
    "#!/bin/bash\nset -m\ntrap '' TERM HUP INT\nsleep 611 &\n(sleep 612; :) &\n"
    'echo $$ >> "$STARTED"\nwait\nsleep 613\n'
)


def programs(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("apt-get", "apt-cache", "apt-config", "dpkg-deb"):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


@dataclass
class Scene:
    """The folder, environment and program of a run."""

    place: Path
    env: dict[str, str]
    command: tuple[str, ...] = ()

    def run(self, name: str) -> Run:
        # Split before formatting, because the folder may contain a space.
        words = [word.format(place=self.place) for word in ROWS[name].split()]
        return Run(words, self.env, self.place, self.command or (VLLM_BUILD,))


def scene(place: Path, text: str = FAILING) -> Scene:
    place.mkdir(parents=True, exist_ok=True)
    Build().wheel(place)
    built = Build().unpacked(place / "built")
    store_publish.publish(built, place / "store", Context(Cache(place / "reuse")))
    env = clean_environment()
    env["PATH"] = os.pathsep.join([str(programs(place / "programs", text)), env["PATH"]])
    # No index, mirror or proxy: only this machine's files can be read.
    env |= {
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "VLLM_BUILD_CACHE": str(place / "cache"),
        "HOME": str(place),
    }
    env |= {
        "STARTED": str(place / "started"),
        "TMPDIR": str(place / "tmp"),
        "VLLM_PRECOMPILED_STORES": shlex.quote(str(place / "store")),
    }
    (place / "tmp").mkdir()
    return Scene(place, env)


def check(run: Run, status: int, documented: set[int] = DOCUMENTED) -> None:
    assert "Traceback" not in run.err, run.err
    assert status in documented, (status, run.err)
    document = run.document()
    # Only a document that is an object can be an error; a list is an answer.
    if isinstance(document, dict) and "error" in document:
        assert document["exit_code"] == status
        assert document["message"].splitlines()[0] in run.err


def at_once(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call ``work`` for each item, several at a time.

    Most of the time of a run is the start of its interpreter.
    """
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def usual_statuses(folder: Path) -> dict[str, int]:
    """The status of each command under normal conditions."""
    runs = [scene(folder / name / "usual").run(name) for name in NAMES]
    found = dict(zip(NAMES, at_once(Run.run, runs), strict=True))
    for run in runs:
        check(run, run.status)
    return found


def attempted(work: Callable[[T], None], cases: Iterable[T]) -> dict[T, BaseException | None]:
    """Call ``work`` for each case, several at a time; returns the exceptions."""

    def attempt(case: T) -> BaseException | None:
        try:
            work(case)
        except Exception as error:  # noqa: BLE001 - the test of the case raises it
            return error
        return None

    chosen = list(cases)
    return dict(zip(chosen, at_once(attempt, chosen), strict=True))


def require(outcome: BaseException | None) -> None:
    """Raise the exception of an attempt, if there is one."""
    if outcome is not None:
        raise outcome
