# SPDX-License-Identifier: Apache-2.0
"""Checks of built packages in addition to the recipes' tests.

They cover several interpreters, the binary interfaces, and the tests of the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.checks import library_audit
from vllm_build.conda import package_channel, package_job, package_request
from vllm_build.conda.environments import conda_environment, prefixes
from vllm_build.toolchain import channel_build
from vllm_build.util.errors import PackageTestError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.conda.package_request import Request
    from vllm_build.util.console import Console


@dataclass(frozen=True)
class Interpreter:
    """A CPython that the packages support."""

    name: str
    spec: str


#: The oldest and the newest in the channel, and one without a GIL, to test the promises of abi3.
INTERPRETERS = (
    Interpreter("3.11", "python 3.11.*"),
    Interpreter("3.13", "python 3.13.* *_cp313"),
    Interpreter("3.13t", "python 3.13.* *_cp313t"),
)


def prepare(request: Request, console: Console) -> None:
    """Bring the whole toolchain channel up to date.

    The checks need interpreters and test tools that packages do not need.

    Raises:
        ConfigurationError: the output folder is not ours, or it cannot contain an environment.
        VllmBuildError: as ``channel_build.ensure``.
    """
    prefixes.check(request.output / ".test" / "installed")
    package_job.claim_output(request.output)
    if request.channel == package_channel.LOCAL:
        channel_build.ensure(request.root, console, inherited=request.settings.inherited)


def _kernels_spec(request: Request) -> str:
    for output in package_request.expected(request):
        if output.name == "vllm-kernels":
            if not (request.output / output.subdir / output.filename).is_file():
                raise PackageTestError(
                    f"{output.filename} is not in {request.output}",
                    expected="the packages of this tree",
                    remedy=f"make package VARIANT={request.variant.name}",
                )
            return f"{output.name} =={output.version} {output.build}"
    raise PackageTestError("the recipe has no output vllm-kernels")


def compute(request: Request, interpreter: Interpreter, console: Console) -> list[str]:
    """Install the kernel package with an interpreter and compute with it through libtorch alone.

    Returns:
        The lines that the check printed.

    Raises:
        ToolchainError: the environment cannot be solved.
        PackageTestError: a library does not load, or a result is wrong.
    """
    prefix = request.output / ".test" / f"py{interpreter.name}"
    with console.step(f"kernels under CPython {interpreter.name}"):
        specs = [_kernels_spec(request), interpreter.spec]
        conda_environment.create(
            prefix, specs, request.channel_urls, force=True, driver=request.driver
        )
        script = request.root / "recipe" / "vllm-kernels" / "test_kernels_load.py"
        test = ["python", str(script)]
        printed = conda_environment.run_in(
            prefix, test, cwd=prefix, inherited=request.settings.inherited
        )
        lines = printed.strip().splitlines()
        for line in lines:
            console.info("    " + line)
    return lines


def libraries(prefix: Path) -> list[Path]:
    """The compiled libraries of vllm in an environment."""
    found = sorted(prefix.glob("lib/python*/site-packages/vllm/**/*.so"))
    if not found:
        raise PackageTestError(
            f"{prefix} has no compiled library of vllm", expected="vllm-kernels installed"
        )
    return found


def audits(request: Request, prefix: Path, console: Console) -> list[library_audit.Finding]:
    """Audit every library, for example that the glibc of the variant's sysroot is sufficient.

    Raises:
        PackageTestError: a check failed.
    """
    major, minor, *_ = (*Version(request.variant.values["c_stdlib_version"]).release, 0)
    findings = [
        finding
        for library in libraries(prefix)
        for finding in library_audit.audit(library, glibc=(major, minor))
    ]
    console.table(
        "audits",
        ["library", "check", "result"],
        [[f.library, f.check, "ok" if f.good else f.text] for f in findings],
    )
    library_audit.require(findings)
    return findings


#: Folders of tests that need vllm and torch, and not the build library.
INSTALLED_TESTS = ("kernels", "package")


def installed_tests(request: Request, console: Console, *, full: bool) -> dict[str, str]:
    """Run the tree's tests in an environment with the installed packages.

    Tests of GPU kernels need a GPU and a torch for it, which the local channel does not have; they
    are run by ``make gpu-tests``.

    Args:
        request: the packages.
        console: for progress.
        full: run also what guards rare paths, as ``make test-full`` does.

    Returns:
        pytest's output by folder of tests.

    Raises:
        PackageTestError: a test failed.
    """
    if request.variant.accelerator != "cpu":
        console.info(
            f"    tests of kernels for {request.variant.accelerator} run on a GPU: make gpu-tests"
        )
        return {}
    specs = [f"{o.name} =={o.version} {o.build}" for o in package_request.expected(request)]
    prefix = request.output / ".test" / "installed"
    conda_environment.create(
        prefix,
        [*specs, "pytest", "hypothesis", "numpy"],
        request.channel_urls,
        force=True,
        constraints=request.constraints,
    )
    # -P: test the installed vllm and not the tree's, which is next to the tests.
    pytest = [
        "python",
        "-P",
        "-m",
        "pytest",
        "-c",
        str(request.root / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
        "-q",
        "-rs",
    ]
    printed = {}
    for name in INSTALLED_TESTS:
        folder = str(request.root / "tests" / name)
        with console.step(f"tests/{name} in the installed environment"):
            # Threads that wait for small cases would take the processors from other programs.
            extra = {
                "HYPOTHESIS_STORAGE_DIRECTORY": str(prefix / ".hypothesis"),
                "OMP_WAIT_POLICY": "PASSIVE",
                "VLLM_TEST_FULL": "1" if full else "",
            }
            command = [*pytest, "--rootdir", folder, "--confcutdir", folder, folder]
            printed[name] = conda_environment.run_in(
                prefix, command, cwd=prefix, inherited=request.settings.inherited, extra=extra
            )
            for line in printed[name].strip().splitlines():
                if line.startswith("SKIPPED") or line == printed[name].strip().splitlines()[-1]:
                    console.info("    " + line)
    return printed
