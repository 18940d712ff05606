# SPDX-License-Identifier: Apache-2.0
"""Every command in every environment that a user may have: no traceback, a documented status, one JSON document, nothing left running.

A command without a row fails here.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_runs import DOCUMENTED, Run, clean_environment, gone, marked
from reuse_files import Build
from trees import copy_tree

from vllm_build import cli
from vllm_build.errors import BusyError, ConfigurationError, FetchError, InternalError, ResourceError, ToolchainError
from vllm_build.reuse import publish
from vllm_build.reuse.cache import Cache
from vllm_build.reuse.context import Context

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The arguments that make a command do its work as far as it can be done without a network. {place} is a folder of the run's own.
ROWS = {
    "package": "package cpu --channel local --output {place}/output",
    "toolchain": "toolchain libgcc",
    "fetch": "fetch",
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
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Commands that write, and fetch first; with the programs of `hanging` they do that for ever.
HANGING = ("package", "toolchain", "test-package")
UID = 54321

# Programs of Debian that answer at once that there is no network.
FAILING = "#!/bin/sh\necho 'E: Could not connect to the mirror' >&2\nexit 100\n"
# Ones that never end, and that are not easily ended: in a process group of their own, deaf to SIGTERM, and with children.
ENDLESS = "#!/bin/bash\nset -m\ntrap '' TERM HUP INT\nsleep 611 &\n(sleep 612; :) &\necho $$ >> \"$STARTED\"\nwait\nsleep 613\n"


def test_every_command_has_a_row() -> None:
    assert tuple(command.NAME for command in cli.COMMANDS) == NAMES


def programs(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("apt-get", "apt-cache", "apt-config", "dpkg-deb"):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


@dataclass
class Scene:
    """Where a command runs, and with what."""

    place: Path
    env: dict[str, str]
    command: tuple[str, ...] = ()

    def run(self, name: str) -> Run:
        # Split first: the folder may have a space.
        words = [word.format(place=self.place) for word in ROWS[name].split()]
        return Run(words, self.env, self.place, *([self.command] if self.command else []))


def scene(place: Path, text: str = FAILING) -> Scene:
    place.mkdir(parents=True, exist_ok=True)
    Build().wheel(place)
    built = Build().unpacked(place / "built")
    publish.publish(built, place / "store", Context(Cache(place / "reuse")))
    env = clean_environment()
    env["PATH"] = os.pathsep.join([str(programs(place / "programs", text)), env["PATH"]])
    # No index, no mirror, no proxy: what is not on this machine is not reached.
    env |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "VLLM_BUILD_CACHE": str(place / "cache"), "HOME": str(place)}
    env |= {"STARTED": str(place / "started"), "TMPDIR": str(place / "tmp"), "VLLM_PRECOMPILED_STORES": shlex.quote(str(place / "store"))}
    (place / "tmp").mkdir()
    return Scene(place, env)


def check(run: Run, status: int, documented: set[int] = DOCUMENTED) -> None:
    assert "Traceback" not in run.err, run.err
    assert status in documented, (status, run.err)
    document = run.document()
    # A list is an answer: what a command found may have a status, too.
    if isinstance(document, dict) and "error" in document:
        assert document["exit_code"] == status
        assert document["message"].splitlines()[0] in run.err


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The status of each command where nothing is odd."""
    found = {}
    for name in NAMES:
        run = scene(tmp_path_factory.mktemp(name) / "usual").run(name)
        found[name] = run.run()
        check(run, found[name])
    return found


@pytest.mark.slow
def test_what_the_rows_do(usual: dict[str, int]) -> None:
    """Rows that all failed for one reason would prove nothing."""
    done = {name for name, status in usual.items() if status == 0}
    assert {"render", "plan", "archs", "jobs", "digest", "publish", "store", "cache", "settings", "version"} <= done
    assert {usual[name] for name in ("package", "toolchain", "test-package", "install", "fetch")} <= {
        ToolchainError.exit_code,
        FetchError.exit_code,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
class TestAccounts:
    def test_without_home(self, name: str, tmp_path: Path, usual: dict[str, int]) -> None:
        there = scene(tmp_path)
        del there.env["HOME"]
        run = there.run(name)
        status = run.run()
        check(run, status)
        assert status == usual[name]

    @pytest.mark.parametrize("cache", [True, False], ids=["cache", "no-cache"])
    def test_home_that_cannot_be_written(self, name: str, tmp_path: Path, usual: dict[str, int], *, cache: bool) -> None:
        there = scene(tmp_path)
        there.env["HOME"] = "/proc/home"
        if not cache:
            del there.env["VLLM_BUILD_CACHE"]
        run = there.run(name)
        status = run.run()
        check(run, status)
        if cache:
            assert status == usual[name]

    @pytest.mark.parametrize("cache", [True, False], ids=["cache", "no-cache"])
    def test_user_id_without_an_account(self, name: str, tmp_path: Path, usual: dict[str, int], *, cache: bool) -> None:
        setpriv = shutil.which("setpriv")
        if os.getuid() or setpriv is None:
            pytest.skip("only root, with util-linux's setpriv, becomes a user without an account")
        there = scene(tmp_path)
        del there.env["HOME"]
        if not cache:
            del there.env["VLLM_BUILD_CACHE"]
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.chown(path, UID, UID)
        # It may read everything, as the interpreter may lie in root's home, and write only what is its own.
        may = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
        prefix = (setpriv, f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *may)
        run = there.run(name)
        run.command = (*prefix, *run.command)
        status = run.run()
        check(run, status)
        if cache and name != "stamp":  # which would write beside the tree
            assert status == usual[name]

    @pytest.mark.parametrize("cache", ["/dev/null/x", "~nosuchuser/x", "/proc/x"])
    def test_a_cache_that_cannot_be(self, name: str, tmp_path: Path, cache: str) -> None:
        there = scene(tmp_path)
        there.env["VLLM_BUILD_CACHE"] = cache
        run = there.run(name)
        status = run.run()
        check(run, status)
        if name in ("fetch", "toolchain", "package"):
            assert status == ConfigurationError.exit_code
            assert "VLLM_BUILD_CACHE" in run.err


#: A folder that cannot be made, not even by root, in the place of each path that a user gives.
NOWHERE = (
    "package cpu --channel conda-forge --output /proc/none/output",
    "package /proc/none/variant.yaml",
    "test-package cpu --channel conda-forge --output /proc/none/output",
    "install /proc/none/prefix --channel local --output {place}/output",
    "render /proc/none/variant.yaml",
    "audit /proc/none/x-1-py3-none-any.whl --device cpu",
    "publish --store /proc/none/store {place}/built",
    "publish --store {place}/new-store /proc/none/built",
    "publish --store {place}/new-store --key /proc/none/key {place}/built",
    "store check /proc/none/store",
    "store check {place}/store --key /proc/none/key",
    "publish --store {place}/vllm-0.1.0-py3-none-any.whl {place}/built",
    "package cpu --channel conda-forge --output {place}/vllm-0.1.0-py3-none-any.whl",
    "install {place}/vllm-0.1.0-py3-none-any.whl/prefix --channel local --output {place}/output",
    "store check {place}/vllm-0.1.0-py3-none-any.whl",
)


@pytest.mark.slow
@pytest.mark.parametrize("words", NOWHERE)
def test_paths_that_cannot_be(words: str, tmp_path: Path) -> None:
    there = scene(tmp_path)
    run = Run([word.format(place=tmp_path) for word in words.split()], there.env, tmp_path)
    status = run.run()
    check(run, status)
    assert status != 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_folders_with_a_space_and_a_quote(name: str, tree_with_a_space: Path, tmp_path: Path, usual: dict[str, int]) -> None:
    there = scene(tmp_path / "some b's place")
    there.env["PYTHONPATH"] = str(tree_with_a_space / "scripts")
    there.command = (sys.executable, "-m", "vllm_build")
    run = there.run(name)
    status = run.run()
    check(run, status)
    assert status == usual[name]


@pytest.fixture(scope="module")
def tree_with_a_space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree") / "a b's checkout")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_variables_of_python(name: str, tmp_path: Path, usual: dict[str, int]) -> None:
    there = scene(tmp_path)
    poison = tmp_path / "poison"
    for module in ("packaging", "rich", "rattler", "vllm_build"):
        (poison / module).mkdir(parents=True)
        (poison / module / "__init__.py").write_text("raise ImportError('poison')\n", encoding="utf-8")
    for module in ("json", "typing", "subprocess", "sitecustomize", "usercustomize"):
        (poison / f"{module}.py").write_text("print('poison'); raise ImportError('poison')\n", encoding="utf-8")
    there.env |= {
        "PYTHONPATH": str(poison),
        "PYTHONHOME": "/proc/none",
        "PYTHONSTARTUP": str(poison / "json.py"),
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "PYTHONUTF8": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C",
    }
    run = there.run(name)
    status = run.run()
    check(run, status)
    assert status == usual[name]
    assert "poison" not in run.out + run.err


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without a free byte."""
    if os.getuid():
        pytest.skip("only root mounts a small tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this root may not mount a tmpfs: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(name: str, full_disk: Path, usual: dict[str, int]) -> None:
    there = scene(full_disk)
    with (full_disk / "filling").open("wb", buffering=0) as filling:
        for size in (4096, 1):
            try:
                while True:
                    filling.write(bytes(size))
            except OSError:
                continue
    run = there.run(name)
    run.cwd = Path("/")
    status = run.run()
    check(run, status)
    assert status in (usual[name], ResourceError.exit_code)
    if name == "publish":
        assert status == ResourceError.exit_code


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("name", HANGING)
def test_a_signal_while_programs_run(name: str, number: signal.Signals, tmp_path: Path, usual: dict[str, int]) -> None:
    there = scene(tmp_path, ENDLESS)
    run = there.run(name).start()
    wait_for(tmp_path / "started")
    assert run.process is not None
    run.process.send_signal(number)
    status = run.finish()
    assert marked(run.mark) == []
    assert status == 128 + number
    assert run.document()["exit_code"] == status
    assert run.err.count("error:") == 1
    assert "Traceback" not in run.err
    again(there, name, usual)


@pytest.mark.slow
@pytest.mark.parametrize("name", HANGING)
def test_a_second_signal_does_not_wait(name: str, tmp_path: Path) -> None:
    run = scene(tmp_path, ENDLESS).run(name).start()
    wait_for(tmp_path / "started")
    assert run.process is not None
    run.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert marked(run.mark), "the programs are deaf to SIGTERM"
    run.process.send_signal(signal.SIGTERM)
    assert run.finish() == 128 + signal.SIGTERM
    assert marked(run.mark) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", HANGING)
def test_kill_while_programs_run(name: str, tmp_path: Path, usual: dict[str, int]) -> None:
    there = scene(tmp_path, ENDLESS)
    run = there.run(name).start()
    wait_for(tmp_path / "started")
    assert run.process is not None
    run.process.kill()
    assert run.process.wait() == -signal.SIGKILL
    # Its programs have some seconds, and nobody enters the folder before they have gone.
    second = there.run(name)
    assert second.run() == BusyError.exit_code
    assert second.document()["error"] == "BusyError"
    assert gone(run.mark, 30)
    run.finish()
    again(there, name, usual)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("name", NAMES)
def test_signals_at_random_moments(name: str, number: signal.Signals, tmp_path: Path, usual: dict[str, int]) -> None:
    there = scene(tmp_path)
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


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def again(there: Scene, name: str, usual: dict[str, int]) -> None:
    """The next run finds nothing in its way."""
    shutil.rmtree(there.place / "programs")
    programs(there.place / "programs", FAILING)
    run = there.run(name)
    status = run.run()
    check(run, status)
    assert status == usual[name]


def test_the_statuses_that_are_documented() -> None:
    assert InternalError.exit_code not in DOCUMENTED
    assert {0, 2, 10} <= DOCUMENTED
