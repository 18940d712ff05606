# SPDX-License-Identifier: Apache-2.0
"""The main job for real: the CPU packages, built by the command that users type, then checked from every side."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_runs import HEARING
from trees import copy_tree, misses

from vllm_build.checks import library_audit
from vllm_build.conda import package_channel, package_checks, package_job, package_request, variants
from vllm_build.conda.environments import conda_environment
from vllm_build.digests import recipe_stamp, tree_digests
from vllm_build.packing import channel_index
from vllm_build.project import distribution_version
from vllm_build.settings.build_settings import Settings
from vllm_build.util import locks, paths
from vllm_build.util.console import Console
from vllm_build.util.errors import BusyError
from vllm_build.util.files import sha256_of

pytestmark = pytest.mark.slow
ROOT = paths.source_root()


@dataclass(frozen=True)
class Done:
    """One run of ``vllm-build package cpu``."""

    result: dict[str, Any]
    log: str

    @property
    def kernels(self) -> str:
        (path,) = (
            p["path"]
            for p in self.result["packages"]
            if Path(p["path"]).name.startswith("vllm-kernels-")
        )
        return str(path)


def vllm_build(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vllm_build", *arguments]
    return subprocess.run(
        command, cwd=tree, env=environ(tree), capture_output=True, text=True, check=False
    )


def environ(tree: Path) -> dict[str, str]:
    kept = (
        "PATH",
        "HOME",
        "CCACHE_DIR",
        "VLLM_BUILD_CACHE",
        "XDG_CACHE_HOME",
        "MAX_JOBS",
        "COVERAGE_PROCESS_CONFIG",
    )
    return {
        **{key: value for key in kept if (value := os.environ.get(key))},
        "PYTHONPATH": str(tree / "scripts"),
    }


def build(tree: Path, output: Path) -> Done:
    done = vllm_build(tree, "package", "cpu", "--json", "--output", str(output))
    assert done.returncode == 0, done.stderr[-6000:]
    return Done(json.loads(done.stdout), done.stderr)


@pytest.fixture(scope="session")
def output() -> Path:
    """Where `make package` puts its packages, too: what is there is reused."""
    return ROOT / "output"


@pytest.fixture(scope="session")
def built(output: Path) -> Done:
    return build(ROOT, output)


@pytest.fixture(scope="session")
def request_(output: Path, built: Done) -> package_request.Request:
    assert built.result["packages"]
    request = package_request.Request(
        ROOT,
        variants.load(ROOT, "cpu"),
        package_channel.choose(None, Settings.from_environ(os.environ)),
        output,
        Settings.from_environ(os.environ),
    )
    package_checks.prepare(request, Console())
    return request


@pytest.fixture(scope="session")
def loud() -> Console:
    return Console()


def test_packages_environment_and_install_line(built: Done) -> None:
    names = [Path(p["path"]).name for p in built.result["packages"]]
    assert [re.sub(r"-.*", "", name.replace("vllm-kernels", "vllm_kernels")) for name in names] == [
        "vllm_kernels",
        "vllm",
    ]
    for entry in built.result["packages"]:
        assert sha256_of(Path(entry["path"])) == entry["sha256"]
    assert (Path(built.result["prefix"]) / "bin" / "python").exists()
    assert built.result["install"].startswith("conda install --override-channels -c file:")
    assert "all operators agree with torch" in built.log
    assert {"toolchain channel", "plan", "install in a clean prefix", "run"} <= set(
        built.result["seconds"]
    )


def test_second_run_reuses_everything(built: Done, output: Path) -> None:
    again = build(ROOT, output)
    assert again.result["reused"] is True
    assert again.result["packages"] == built.result["packages"]
    assert "nothing that shapes it has changed" in again.log


def test_second_build_at_the_same_time_is_refused(built: Done, output: Path) -> None:
    from vllm_build.util.locks import exclusive

    assert built.result["packages"]
    with exclusive(output, "the output folder"):
        done = vllm_build(ROOT, "package", "cpu", "--output", str(output))
    assert done.returncode == 9, done.stderr
    assert "another process" in done.stderr


@pytest.mark.parametrize("interpreter", package_checks.INTERPRETERS, ids=lambda i: i.name)
def test_one_binary_for_every_interpreter(
    interpreter: package_checks.Interpreter, request_: package_request.Request, loud: Console
) -> None:
    said = "\n".join(package_checks.compute(request_, interpreter, loud))
    assert f"Python {interpreter.name.removesuffix('t')}." in said
    assert said.startswith("free-threaded") == interpreter.name.endswith("t")
    assert said.count(": ok") == 10
    assert "WRONG" not in said


def test_audits_find_nothing(built: Done, request_: package_request.Request, loud: Console) -> None:
    findings = package_checks.audits(request_, Path(built.result["prefix"]), loud)
    assert {finding.check for finding in findings} == {"abi3audit", "torch-abi-audit", "glibc"}
    assert all(finding.good for finding in findings)


def test_every_place_says_the_same_version_and_digests(built: Done) -> None:
    prefix, stamps = Path(built.result["prefix"]), recipe_stamp.values(ROOT)
    (site,) = prefix.glob("lib/python*/site-packages")
    metas = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in prefix.glob("conda-meta/vllm*.json")
    ]
    info = json.loads(
        (site / "vllm" / "_build_info" / "vllm-kernels.json").read_text(encoding="utf-8")
    )
    (metadata,) = site.glob("vllm-*.dist-info/METADATA")
    said = conda_environment.run_in(
        prefix,
        ["python", "-c", "import vllm; print(vllm.__version__)"],
        cwd=prefix,
        inherited=os.environ,
    ).strip()
    wheel = re.search(r"^Version: (.+)$", metadata.read_text(encoding="utf-8"), re.MULTILINE)
    assert wheel is not None
    versions = [
        *(meta["version"] for meta in metas),
        info["version"],
        wheel[1],
        said,
        distribution_version.base_version(ROOT),
        stamps["vllm_version"],
    ]
    assert len(versions) == 7
    assert set(versions) == {stamps["vllm_version"]}
    assert info["kernel_digest"] == tree_digests.kernel_digest(ROOT, "vllm-kernels")
    for meta in metas:
        assert f"_k{stamps['kernels_digest']}_" in meta["build"]
        assert info["kernel_digest"].startswith(stamps["kernels_digest"])


def test_the_channels_compiler_built_it(built: Done) -> None:
    prefix = Path(built.result["prefix"])
    (info_file,) = prefix.glob("lib/python*/site-packages/vllm/_build_info/vllm-kernels.json")
    info = json.loads(info_file.read_text(encoding="utf-8"))
    assert info["compiler"] == {"id": "GNU", "version": "12.2.0"}
    assert info["kernel_digest"][:12] in built.kernels
    for library in package_checks.libraries(prefix):
        assert "GCC: (Debian 12.2.0" in library_audit.compiler_comment(library)
    if not built.result["reused"]:
        assert re.search(r"x86_64-conda-linux-gnu-g\+\+: \$BUILD_PREFIX/bin/", built.log), (
            "the build script did not name the channel's compiler"
        )


#: Why a test may be skipped in an environment that has torch, the kernels and the package: it needs
#: another CPU or a GPU.
NOT_HERE = (
    "needs a GPU",
    "this CPU has no",
    "on the CPU these are errors",
    "the library for the CPU has no such op",
    "FlashMLA's library is for one GPU",
)


def test_tests_of_kernels_and_package_in_the_installed_environment(
    request_: package_request.Request, loud: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, said in package_checks.installed_tests(request_, loud).items():
        last = said.strip().splitlines()[-1]
        with capsys.disabled():
            print(f"\ntests/{name} in the installed environment: {last}")
        counts = {
            word: int(number)
            for number, word in re.findall(r"(\d+) (passed|failed|skipped|error|warning)", last)
        }
        assert counts.get("passed", 0) > 50, said[-3000:]
        reasons = [line for line in said.splitlines() if line.startswith("SKIPPED")]
        assert set(counts) <= {"passed", "skipped"}, said[-3000:]
        assert all(any(reason in line for reason in NOT_HERE) for line in reasons), said[-3000:]
        assert counts.get("skipped", 0) == sum(
            int(line.split("[")[1].split("]")[0]) for line in reasons
        ), said[-3000:]


def append_code(source: Path, code: str) -> None:
    """Add code to a unit; once, not for every instruction set that the file is compiled for."""
    with source.open("a", encoding="utf-8") as stream:
        stream.write(f"\n#if HWY_ONCE\nnamespace {{\n{code}\n}}  // namespace\n#endif\n")


def test_same_bytes_in_another_folder_and_nothing_compiled_again(
    built: Done, tmp_path: Path
) -> None:
    tree = copy_tree(tmp_path / "a" / "deeper" / "tree")
    again = build(tree, tmp_path / "another" / "output")
    assert again.result["reused"] is False
    assert misses(again.log) == 0, again.log[-4000:]
    assert [p["sha256"] for p in again.result["packages"]] == [
        p["sha256"] for p in built.result["packages"]
    ]


def test_edited_python_builds_the_python_package_alone(built: Done, tmp_path: Path) -> None:
    tree, output = copy_tree(tmp_path / "tree"), tmp_path / "output"
    package_job.claim_output(output)
    channel_index.publish([Path(p["path"]) for p in built.result["packages"]], output)
    with (tree / "vllm" / "envs.py").open("a", encoding="utf-8") as stream:
        stream.write("# edited\n")
    edited = build(tree, output)
    assert edited.result["reused_packages"] == [Path(built.kernels).name]
    assert "setup.py build_ext" not in edited.log
    assert len(list(output.glob("linux-64/*.conda"))) == 1
    assert len(list(output.glob("noarch/*.conda"))) == 2


def test_packages_are_taken_from_another_channel(built: Done, output: Path, tmp_path: Path) -> None:
    assert built.result["packages"]
    done = vllm_build(
        ROOT,
        "package",
        "cpu",
        "--json",
        "--output",
        str(tmp_path / "output"),
        "--reuse",
        str(output),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["reused"] is True
    assert [p["sha256"] for p in result["packages"]] == [
        p["sha256"] for p in built.result["packages"]
    ]
    assert f"{Path(built.kernels).name} from {output}" in done.stderr


def test_a_package_that_is_not_what_was_built_is_built_again(built: Done, tmp_path: Path) -> None:
    output = tmp_path / "output"
    kept = channel_index.publish([Path(p["path"]) for p in built.result["packages"]], output)
    request = package_request.Request(
        ROOT,
        variants.load(ROOT, "cpu"),
        package_channel.LOCAL,
        output,
        Settings.from_environ(os.environ),
    )
    outputs = package_request.expected(request)
    assert sorted(package_job.reusable(request, outputs)) == sorted(kept)
    kept[0].write_bytes(kept[0].read_bytes()[:-1])
    assert package_job.reusable(request, outputs) == tuple(p for p in kept if p != kept[0])
    assert not kept[0].exists()


def test_one_edited_file_compiles_one_unit_and_changes_the_digest(
    built: Done, tmp_path: Path
) -> None:
    tree = copy_tree(tmp_path / "tree")
    source = tree / "csrc" / "activation" / "activation_cpu.cc"
    marker = abs(hash(tmp_path)) % 10**9
    append_code(source, f"[[maybe_unused]] constexpr int kEdited = {marker};")
    edited = build(tree, tmp_path / "output")
    assert edited.result["reused"] is False
    assert Path(edited.kernels).name != Path(built.kernels).name
    assert misses(edited.log) == 1, edited.log[-4000:]


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
    [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL],
    ids=lambda number: number.name,
)
def test_a_signal_ends_all_processes_and_keeps_what_was_built(
    built: Done, tmp_path: Path, number: signal.Signals
) -> None:
    tree, output = copy_tree(tmp_path / "tree"), tmp_path / "output"
    package_job.claim_output(output)
    kept = channel_index.publish([Path(built.kernels)], output)
    # A pipe that nobody writes into: the compiler waits for it until it is ended.
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
        # Nobody enters the folder while a process may still write to it.
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
