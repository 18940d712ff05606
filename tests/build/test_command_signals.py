# SPDX-License-Identifier: Apache-2.0
"""Every command that a signal ends: a documented status, one JSON document, a clean next run.

The command leaves no program running. A function tests one command, and a fixture calls it for
several commands at once, because much of the time is waiting. ``make test`` sends one signal to
each command that waits for programs. ``make test-full`` sends all signals, and to every command.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_runs import Run, gone, marked
from command_scene import (
    ENDLESS,
    FAILING,
    NAMES,
    Scene,
    attempted,
    check,
    programs,
    require,
    scene,
    usual_statuses,
)
from full_suite import FULL, full_only

if TYPE_CHECKING:
    Case = tuple[str, signal.Signals]
    Outcomes = dict[Case, BaseException | None]

#: Commands that write, and download first. With the programs of ``ENDLESS``, that never ends.
HANGING = ("package", "toolchain", "test-package")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
AT_RANDOM = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
ONE_EACH = list(zip(HANGING, SIGNALS, strict=False))
WHILE_PROGRAMS_RUN = (
    [(name, number) for name in HANGING for number in SIGNALS] if FULL else ONE_EACH
)
ANY_MOMENT = [(name, number) for name in NAMES for number in AT_RANDOM]


def label(value: object) -> str:
    return value.name if isinstance(value, signal.Signals) else str(value)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return usual_statuses(tmp_path_factory.mktemp("usual"))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def wait_for_lock(run: Run) -> None:
    """Wait until the command has opened the lock of the toolchain package that it builds."""
    assert run.process is not None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        files = Path(f"/proc/{run.process.pid}/fd").iterdir()
        with contextlib.suppress(OSError):
            if any(
                fnmatch.fnmatch(str(path.readlink()), "*/work/toolchain/*.lock") for path in files
            ):
                return
        time.sleep(0.02)
    pytest.fail("the command does not wait")


def again(there: Scene, name: str, usual: dict[str, int]) -> None:
    """The next run works as if nothing had happened."""
    shutil.rmtree(there.place / "programs")
    programs(there.place / "programs", FAILING)
    run = there.run(name)
    status = run.run()
    check(run, status)
    assert status == usual[name]


def end_while_programs_run(folder: Path, usual: dict[str, int], case: Case) -> None:
    name, number = case
    place = folder / f"{name}-{number}"
    there = scene(place, ENDLESS)
    run = there.run(name).start()
    wait_for(place / "started")
    assert run.process is not None
    run.process.send_signal(number)
    status = run.finish()
    assert marked(run.mark) == []
    assert status == 128 + number
    assert run.document()["exit_code"] == status
    assert run.err.count("error:") == 1
    assert "Traceback" not in run.err
    again(there, name, usual)


@pytest.fixture(scope="module")
def ended_while_programs_run(
    tmp_path_factory: pytest.TempPathFactory, usual: dict[str, int]
) -> Outcomes:
    return attempted(
        partial(end_while_programs_run, tmp_path_factory.mktemp("signals"), usual),
        WHILE_PROGRAMS_RUN,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), WHILE_PROGRAMS_RUN, ids=label)
def test_a_signal_while_programs_run(
    name: str, number: signal.Signals, ended_while_programs_run: Outcomes
) -> None:
    require(ended_while_programs_run[name, number])


@pytest.mark.slow
@pytest.mark.parametrize("name", HANGING)
def test_a_second_signal_does_not_wait(name: str, tmp_path: Path) -> None:
    run = scene(tmp_path, ENDLESS).run(name).start()
    wait_for(tmp_path / "started")
    assert run.process is not None
    run.process.send_signal(signal.SIGQUIT)
    time.sleep(0.3)
    assert marked(run.mark), "the programs ignore SIGTERM"
    run.process.send_signal(signal.SIGTERM)
    assert run.finish() == 128 + signal.SIGQUIT
    assert marked(run.mark) == []


def kill_while_programs_run(folder: Path, usual: dict[str, int], case: Case) -> None:
    name, number = case
    place = folder / name
    there = scene(place, ENDLESS)
    run = there.run(name).start()
    wait_for(place / "started")
    assert run.process is not None
    # The command's programs get some seconds to end. Until then other commands wait for its lock.
    # Stopping the supervisors extends this time until the second command has started.
    supervisors = [
        pid
        for pid in marked(run.mark)
        if b"supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert supervisors
    for pid in supervisors:
        os.kill(pid, signal.SIGSTOP)
    try:
        run.process.send_signal(number)
        assert run.process.wait() == -number
        shutil.rmtree(place / "programs")
        programs(place / "programs", FAILING)
        second = there.run(name).start()
        wait_for_lock(second)
        time.sleep(0.5)
        assert second.process is not None
        assert second.process.poll() is None
        assert marked(second.mark) == [second.process.pid], "it waits and has started no program"
    finally:
        for pid in supervisors:
            os.kill(pid, signal.SIGCONT)
    assert second.finish() == usual[name]
    assert "waiting for" in second.err
    check(second, second.status)
    assert marked(run.mark) == []
    run.finish()
    again(there, name, usual)


@pytest.fixture(scope="module")
def killed_while_programs_run(
    tmp_path_factory: pytest.TempPathFactory, usual: dict[str, int]
) -> Outcomes:
    work = partial(kill_while_programs_run, tmp_path_factory.mktemp("kill"), usual)
    return attempted(work, [(name, signal.SIGKILL) for name in HANGING])


@pytest.mark.slow
@pytest.mark.parametrize("name", HANGING)
def test_kill_while_programs_run(name: str, killed_while_programs_run: Outcomes) -> None:
    require(killed_while_programs_run[name, signal.SIGKILL])


def end_at_a_random_moment(folder: Path, usual: dict[str, int], case: Case) -> None:
    name, number = case
    there = scene(folder / f"{name}-{number}")
    moment = random.Random(f"{name} {number}").uniform(0, 1.2)  # noqa: S311 - no secret
    run = there.run(name).start().ready()
    assert run.process is not None
    time.sleep(moment)
    run.process.send_signal(number)
    status = run.finish()
    assert "Traceback" not in run.err, run.err
    if number == signal.SIGKILL:
        assert status in (-signal.SIGKILL, usual[name])
        assert gone(run.mark, 30)
    else:
        assert marked(run.mark) == []
        assert status in (128 + number, usual[name]), run.err
        assert status == usual[name] or run.document()["exit_code"] == status
    again(there, name, usual)


@pytest.fixture(scope="module")
def ended_at_random_moments(
    tmp_path_factory: pytest.TempPathFactory, usual: dict[str, int]
) -> Outcomes:
    return attempted(
        partial(end_at_a_random_moment, tmp_path_factory.mktemp("random"), usual), ANY_MOMENT
    )


@full_only
@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), ANY_MOMENT, ids=label)
def test_signals_at_random_moments(
    name: str, number: signal.Signals, ended_at_random_moments: Outcomes
) -> None:
    require(ended_at_random_moments[name, number])
