# SPDX-License-Identifier: Apache-2.0
"""Every command in unusual environments: no traceback, a documented status, one JSON document.

A command without a row fails. Each environment is one fixture, which runs all commands at once. Two
environments that promise the same status share a run. ``test_command_signals.py`` tests signals.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_runs import DOCUMENTED, Run
from command_scene import NAMES, Scene, at_once, check, scene, usual_statuses
from trees import copy_tree

from vllm_build import cli
from vllm_build.util.errors import (
    ConfigurationError,
    FetchError,
    InternalError,
    ResourceError,
    ToolchainError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UID = 54321
#: Commands that need the cache, and commands that may use it.
NEED_CACHE = ("package", "toolchain", "fetch", "engine")
USE_CACHE = (*NEED_CACHE, "test-package", "install", "reuse", "publish", "store", "cache", "doctor")
#: Commands that make environments in the output folder or the cache. Tools in an environment do not
#: support spaces in its path (``path_rules``).
MAKE_PREFIXES = ("package", "toolchain", "test-package", "install")

Runs = dict[str, Run]


def test_every_command_has_a_row() -> None:
    assert tuple(cli.COMMANDS) == NAMES


def test_the_statuses_that_are_documented() -> None:
    assert InternalError.exit_code not in DOCUMENTED
    assert {0, 2, 10} <= DOCUMENTED


def everywhere(
    folder: Path,
    change: Callable[[Scene], None],
    names: tuple[str, ...] = NAMES,
    place: str = "place",
    cwd: Path | None = None,
) -> Runs:
    """Run each command in a separate scene, after ``change``."""
    runs = {}
    for name in names:
        there = scene(folder / name / place)
        change(there)
        runs[name] = there.run(name)
        runs[name].cwd = cwd or there.place
    at_once(Run.run, runs.values())
    return runs


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return usual_statuses(tmp_path_factory.mktemp("usual"))


@pytest.mark.slow
def test_what_the_rows_do(usual: dict[str, int]) -> None:
    """The rows must not all fail for one reason, because they would then prove nothing."""
    done = {name for name, status in usual.items() if status == 0}
    assert {
        "render",
        "plan",
        "archs",
        "jobs",
        "digest",
        "publish",
        "store",
        "cache",
        "settings",
        "version",
    } <= done
    assert {
        usual[name]
        for name in ("package", "toolchain", "test-package", "install", "fetch", "engine")
    } <= {
        ToolchainError.exit_code,
        FetchError.exit_code,
    }


def poisoned(there: Scene) -> None:
    """Add modules that must not be imported and variables of the interpreter, and remove HOME."""
    poison = there.place / "poison"
    for module in ("packaging", "rich", "rattler", "vllm_build"):
        (poison / module).mkdir(parents=True)
        (poison / module / "__init__.py").write_text(
            "raise ImportError('poison')\n", encoding="utf-8"
        )
    for module in ("json", "typing", "subprocess", "sitecustomize", "usercustomize"):
        (poison / f"{module}.py").write_text(
            "print('poison'); raise ImportError('poison')\n", encoding="utf-8"
        )
    del there.env["HOME"]
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


@pytest.fixture(scope="module")
def without_home_and_poisoned(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return everywhere(tmp_path_factory.mktemp("python"), poisoned)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_without_home_and_with_variables_of_python(
    name: str, without_home_and_poisoned: Runs, usual: dict[str, int]
) -> None:
    run = without_home_and_poisoned[name]
    check(run, run.status)
    assert run.status == usual[name]
    assert "poison" not in run.out + run.err


@pytest.fixture(scope="module")
def odd_folders(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("odd")
    tree = copy_tree(folder / "a b's checkout")

    def change(there: Scene) -> None:
        there.env |= {"HOME": "/proc/home", "PYTHONPATH": str(tree / "scripts")}
        there.command = (sys.executable, "-m", "vllm_build")

    return everywhere(folder, change, place="some b's place")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_folders_with_a_space_and_a_quote_and_home_that_cannot_be_written(
    name: str, odd_folders: Runs, usual: dict[str, int]
) -> None:
    run = odd_folders[name]
    check(run, run.status)
    if name in MAKE_PREFIXES:
        assert run.status == ConfigurationError.exit_code
        assert "has a space in its path" in run.err
    else:
        assert run.status == usual[name]


@pytest.mark.slow
def test_a_home_that_cannot_be_written_where_folders_are_usual(
    tmp_path: Path, usual: dict[str, int]
) -> None:
    """The commands that refuse an unusual folder before they look for HOME."""

    def change(there: Scene) -> None:
        there.env["HOME"] = "/proc/home"

    for name, run in everywhere(tmp_path, change, MAKE_PREFIXES).items():
        check(run, run.status)
        assert run.status == usual[name], name


@pytest.fixture(scope="module")
def unwritable_home(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    def change(there: Scene) -> None:
        there.env["HOME"] = "/proc/home"
        del there.env["VLLM_BUILD_CACHE"]

    return everywhere(tmp_path_factory.mktemp("home"), change)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_cache_in_a_home_that_cannot_be_written(name: str, unwritable_home: Runs) -> None:
    check(unwritable_home[name], unwritable_home[name].status)


@pytest.fixture(scope="module", params=[True, False], ids=["cache", "no-cache"])
def without_account(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bool, Runs]:
    setpriv = shutil.which("setpriv")
    if os.getuid() or setpriv is None:
        pytest.skip("only root, with util-linux's setpriv, becomes a user without an account")
    # The user may read all files, because the interpreter may be in root's home, and write only its
    # own files.
    may = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
    prefix = (setpriv, f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *may)
    cache: bool = request.param

    def change(there: Scene) -> None:
        del there.env["HOME"]
        # Coverage would write its data into the tree, where this user may not write.
        there.env = {
            variable: value
            for variable, value in there.env.items()
            if not variable.startswith("COVERAGE_")
        }
        if not cache:
            del there.env["VLLM_BUILD_CACHE"]
        for path in (there.place, *there.place.rglob("*")):
            os.chown(path, UID, UID)
        there.command = (*prefix, *Run.command)

    return cache, everywhere(tmp_path_factory.mktemp("uid"), change)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_user_id_without_an_account(
    name: str, without_account: tuple[bool, Runs], usual: dict[str, int]
) -> None:
    cache, runs = without_account
    run = runs[name]
    check(run, run.status)
    if cache and name != "stamp":  # stamp would write next to the tree
        assert run.status == usual[name]


CACHES = {"/dev/null/x": NAMES, "~nosuchuser/x": USE_CACHE, "/proc/x": USE_CACHE}


@pytest.fixture(scope="module")
def impossible_caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runs]:
    found = {}
    for cache, names in CACHES.items():

        def change(there: Scene, cache: str = cache) -> None:
            there.env["VLLM_BUILD_CACHE"] = cache

        found[cache] = everywhere(tmp_path_factory.mktemp("cache"), change, names)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cache", "name"), [(cache, name) for cache, names in CACHES.items() for name in names]
)
def test_a_cache_that_cannot_be(cache: str, name: str, impossible_caches: dict[str, Runs]) -> None:
    run = impossible_caches[cache][name]
    check(run, run.status)
    if name in NEED_CACHE:
        assert run.status == ConfigurationError.exit_code
        assert "VLLM_BUILD_CACHE" in run.err


#: Commands with a path that not even root can create, for each path that a user can give.
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


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    runs = {}
    for words in NOWHERE:
        place = tmp_path_factory.mktemp("nowhere")
        runs[words] = Run(
            [word.format(place=place) for word in words.split()], scene(place).env, place
        )
    at_once(Run.run, runs.values())
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("words", NOWHERE)
def test_paths_that_cannot_be(words: str, nowhere: Runs) -> None:
    run = nowhere[words]
    check(run, run.status)
    assert run.status != 0


def mount(place: Path) -> None:
    place.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this root may not mount a tmpfs: {done.stderr.strip()}")


def fill(there: Scene) -> None:
    with (there.place / "filling").open("wb", buffering=0) as filling:
        for size in (4096, 1):
            try:
                while True:
                    filling.write(bytes(size))
            except OSError:
                continue


@pytest.fixture(scope="module")
def full_disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Each command on a separate file system without a free byte."""
    if os.getuid():
        pytest.skip("only root mounts a small tmpfs")
    folder = tmp_path_factory.mktemp("disks")
    with ExitStack() as stack:
        for name in NAMES:
            mount(folder / name)
            stack.callback(subprocess.run, ["umount", str(folder / name)], check=True)
        yield everywhere(folder, fill, place=".", cwd=Path("/"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(name: str, full_disks: Runs, usual: dict[str, int]) -> None:
    run = full_disks[name]
    check(run, run.status)
    assert run.status in (usual[name], ResourceError.exit_code)
    if name == "publish":
        assert run.status == ResourceError.exit_code
