# SPDX-License-Identifier: Apache-2.0
"""A kernel developer's day: editable installs, errors, interruptions, concurrent builds."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_runs import HEARING, MARK, gone
from full_suite import full_only

from vllm_build.util import locks

if TYPE_CHECKING:
    from tests.build.pip.conftest import Developer

pytestmark = pytest.mark.slow
EDITABLE = ("install", "-e", ".", "--no-deps", "--no-build-isolation")
EDITED = Path("csrc") / "activation" / "activation_cpu.cc"
BUILD_EXT = ("python", "setup.py", "build_ext", "--build-lib", "stage")


def build_folder(clone: Path) -> Path:
    (folder,) = (p.parent for p in (clone / "build").glob("*/build.ninja"))
    return folder


def test_a_developers_day(developer: Developer, clone: Path, tmp_path: Path) -> None:
    first = developer.pip(*EDITABLE, cwd=clone)
    assert first.links == ["_C.abi3.so"]
    library = clone / "vllm" / "_C.abi3.so"
    before = (library.stat().st_ino, library.stat().st_mtime_ns)

    again = developer.pip(*EDITABLE, cwd=clone)
    assert (again.units, again.links) == ([], [])
    assert (library.stat().st_ino, library.stat().st_mtime_ns) == before, (
        "the library in the tree was not rewritten"
    )

    with (clone / EDITED).open("a", encoding="utf-8") as source:
        source.write(
            "\n#if HWY_ONCE\nnamespace {\n[[maybe_unused]] constexpr int kEdited = 1;\n"
            "}  // namespace\n#endif\n"
        )
    edited = developer.pip(*EDITABLE, cwd=clone)
    assert edited.units == [EDITED.name]
    assert edited.links == ["_C.abi3.so"]

    where = developer.run(
        "python",
        "-c",
        "import vllm, torch; from vllm._kernels import loader; loader.load('_C'); "
        "print(vllm.__file__)",
        cwd=tmp_path,
    )
    assert where.log.splitlines()[-1] == str(clone / "vllm" / "__init__.py")

    # A Python developer uses the same tree. The earlier kernels must not be loaded.
    developer.pip(*EDITABLE, cwd=clone, VLLM_TARGET_DEVICE="empty")
    version = developer.run(
        "python",
        "-c",
        "import vllm; from vllm._kernels import loader; "
        "print(vllm.__version__, sorted(loader.available()))",
        cwd=tmp_path,
    )
    assert version.log.split()[0].endswith("+empty")

    # Each configuration has its own folder: switching back compiles nothing.
    back = developer.pip(*EDITABLE, cwd=clone)
    assert back.units == []
    developer.pip("uninstall", "-y", "vllm", cwd=tmp_path)


@full_only
def test_a_debug_build_has_a_folder_of_its_own(developer: Developer, clone: Path) -> None:
    assert developer.run(*BUILD_EXT, cwd=clone).status == 0
    debug = developer.run(*BUILD_EXT, "--debug", cwd=clone, CMAKE_ARGS="", CMAKE_BUILD_TYPE="")
    assert debug.status == 0, debug.log[-3000:]
    assert debug.units
    assert developer.run(*BUILD_EXT, cwd=clone).units == []
    assert sorted(p.name for p in (clone / "build").iterdir()) == [
        "cpu-abi3-debug",
        "cpu-abi3-release",
    ]


def test_one_unit_that_does_not_compile(developer: Developer, clone: Path) -> None:
    with (clone / EDITED).open("a", encoding="utf-8") as source:
        source.write("\nint broken = no_such_name;\n")
    done = developer.run(*BUILD_EXT, cwd=clone)
    assert done.status == 7, done.log[-3000:]
    message = done.log.partition("error: the build failed")[2]
    assert "activation_cpu.cc" in message
    assert "no_such_name" in message
    assert f"{clone / EDITED}:" in message, "editors can open this path"
    assert len(message.splitlines()) < 25
    assert "Traceback" not in done.log
    piped = developer.run("python", "-m", "pip", *EDITABLE, cwd=clone)
    assert piped.status != 0
    assert "was not declared" in piped.log
    assert "Traceback" not in piped.log
    # After the fix, the build continues where it stopped.
    text = (
        (clone / EDITED).read_text(encoding="utf-8").replace("\nint broken = no_such_name;\n", "")
    )
    (clone / EDITED).write_text(text, encoding="utf-8")
    mended = developer.run(*BUILD_EXT, cwd=clone)
    assert mended.status == 0, mended.log[-3000:]
    assert (clone / "stage" / "vllm" / "_C.abi3.so").is_file()


@full_only
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_build_is_taken_up_again(
    developer: Developer, clone: Path, number: signal.Signals
) -> None:
    env = developer.environ(VLLM_DISABLE_CCACHE="1", MAX_JOBS="1", VERBOSE="")
    with subprocess.Popen(
        [str(developer.prefix / "bin" / "python"), *BUILD_EXT[1:]],
        cwd=clone,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            if line.startswith("[2/"):
                break
        os.kill(process.pid, number)
        process.wait()
    assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGTERM)
    # Compilers that still run end by themselves, because nothing reads Ninja's output.
    folder = build_folder(clone)
    log = developer.run(*BUILD_EXT, cwd=clone, VLLM_DISABLE_CCACHE="1")
    while log.status == 9:
        time.sleep(1)
        log = developer.run(*BUILD_EXT, cwd=clone, VLLM_DISABLE_CCACHE="1")
    assert log.status == 0, log.log[-3000:]
    every = (folder / "build.ninja").read_text(encoding="utf-8").count(": CXX_COMPILER")
    assert 0 < len(log.units) < every, "complete units are not recompiled"
    assert (folder / "_C.abi3.so").is_file()


@full_only
@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM],
)
def test_a_pip_that_is_killed_ends_its_build(
    developer: Developer, clone: Path, number: signal.Signals
) -> None:
    """pip does not forward signals to its hooks."""
    mark = uuid.uuid4().hex
    env = developer.environ(VLLM_DISABLE_CCACHE="1", MAX_JOBS="1", VERBOSE="") | {MARK: mark}
    command = [str(developer.prefix / "bin" / "python"), "-m", "pip", *EDITABLE, "-v"]
    with subprocess.Popen(
        [*HEARING, *command],
        cwd=clone,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            if line.strip().startswith("[2/"):
                break
        process.send_signal(number)
        process.wait()
        assert gone(mark, 30)
    done = developer.run("python", "-m", "pip", *EDITABLE, cwd=clone, VLLM_DISABLE_CCACHE="1")
    assert done.status == 0, done.log[-3000:]
    developer.pip("uninstall", "-y", "vllm", cwd=clone)


def test_a_build_killed_while_it_configures(developer: Developer, clone: Path) -> None:
    assert developer.run(*BUILD_EXT, cwd=clone).status == 0
    folder = build_folder(clone)
    # Such a kill leaves a truncated cache and no record of a complete configure step.
    (folder / "configured.json").unlink()
    cache = folder / "CMakeCache.txt"
    cache.write_bytes(cache.read_bytes()[:2000])
    done = developer.run(*BUILD_EXT, cwd=clone)
    assert done.status == 0, done.log[-3000:]


def test_two_builds_at_once(developer: Developer, clone: Path) -> None:
    assert developer.run(*BUILD_EXT, cwd=clone).status == 0
    with locks.exclusive(build_folder(clone), "this build folder"):
        busy = developer.run(*BUILD_EXT, cwd=clone)
        other = developer.run(*BUILD_EXT, cwd=clone, VLLM_BUILD_ROOT=str(clone / "elsewhere"))
    assert busy.status == 9
    assert "another process is writing" in busy.log
    assert other.status == 0, other.log[-3000:]


@full_only
def test_a_build_within_4_gib(developer: Developer, clone: Path) -> None:
    """Each process is limited to 4 GiB of address space. The build chooses the number of jobs."""
    limit = 4 << 30
    done = subprocess.run(
        [str(developer.prefix / "bin" / "python"), *BUILD_EXT[1:]],
        cwd=clone,
        env=developer.environ(VLLM_DISABLE_CCACHE="1"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "memory" in done.stderr.partition("jobs: ")[2].splitlines()[0]


@pytest.mark.parametrize(
    "mebibytes",
    [
        pytest.param(1, id="while it configures"),
        pytest.param(2, id="while it compiles", marks=full_only),
    ],
)
def test_a_disk_that_is_full(developer: Developer, clone: Path, mebibytes: int) -> None:
    """The build folder is on a small disk: torch's headers fill one size, objects the other."""
    disk = clone / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={mebibytes}m tmpfs "$1" && shift && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(disk)]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip(
            "this machine lets no user mount a file system of their own (unshare --user --mount)"
        )
    done = subprocess.run(
        [*inside, str(developer.prefix / "bin" / "python"), *BUILD_EXT[1:]],
        cwd=clone,
        env=developer.environ(VLLM_BUILD_ROOT=str(disk), VLLM_DISABLE_CCACHE="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 10, done.stderr[-3000:]
    assert "space" in done.stderr.rpartition("error: ")[2]
    assert "VLLM_BUILD_ROOT" in done.stderr.rpartition("error: ")[2]
    assert "Traceback" not in done.stderr
    # A later build with enough space succeeds.
    assert not (clone / "stage").exists()
    assert developer.run(*BUILD_EXT, cwd=clone).status == 0


def test_without_ninja_make_builds(developer: Developer, clone: Path) -> None:
    make = next((p for p in ("/usr/bin/make", "/usr/bin/gmake") if Path(p).exists()), None)
    if make is None:
        pytest.skip("this machine has no make")
    done = developer.run(*BUILD_EXT, cwd=clone, CMAKE_GENERATOR="Unix Makefiles")
    assert done.status == 0, done.log[-3000:]
    assert (clone / "stage" / "vllm" / "_C.abi3.so").is_file()
    assert "[100%]" in done.log
