# SPDX-License-Identifier: Apache-2.0
"""Runs the demonstration of ``scripts/engine_demo`` in an environment with the packages.

It needs the environment's interpreter, so it is a program of its own. It runs under a supervisor
(``children``): nothing that it starts outlives this process.
"""

from __future__ import annotations

import json
import signal
import subprocess
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from vllm_build.conda.environments import conda_environment
from vllm_build.util.errors import PackageTestError
from vllm_build.util.files import read_text, sha256_of, write_text
from vllm_build.util.processes import children, signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vllm_build.conda.package_request import Request
    from vllm_build.util.console import Console

PROGRAM = "scripts/engine_demo/demo.py"
#: The command that serves a model in an environment with the packages.
SERVE_LINE = "vllm serve MODEL"


def _run(
    request: Request, options: Sequence[str], show: Callable[[str], None], folder: Path
) -> None:
    """Run the program with ``options`` and pass on its lines as they come.

    Raises:
        PackageTestError: it failed; the message ends with the engine's last lines.
    """
    command = [str(request.prefix / "bin" / "python"), str(request.root / PROGRAM), *options]
    env = conda_environment.environ_of(request.prefix, request.settings.inherited)
    failure: list[str] = []
    with children.Child(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        for line in child.stdout or ():
            # All lines after the first one of an error belong to it.
            if failure or line.startswith(("error: ", "Traceback ")):
                failure.append(line)
            else:
                show(line.rstrip("\n"))
    if child.returncode:
        said = "".join(failure).removeprefix("error: ").rstrip()
        raise PackageTestError(
            f"the engine in {request.prefix} failed (exit status {child.returncode})\n{said}",
            expected="generated text and a server that answers",
            remedy="read the engine's last lines above",
        )


def _programs(request: Request) -> str:
    """A digest of the programs that show the engine."""
    files = sorted((request.root / PROGRAM).parent.glob("*.py"))
    return sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()


def _recorded(report: Path, programs: str) -> dict[str, Any] | None:
    """The facts of the last run, if these programs made them; None otherwise."""
    try:
        facts: dict[str, Any] = json.loads(read_text(report))
        return facts if facts["lines"] and facts["programs"] == programs else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def show(request: Request, console: Console, *, fresh: bool) -> dict[str, Any]:
    """Generate and serve with a small model; returns the facts for ``--json``.

    Where the kernels' device is missing, the engine's refusal is the result.

    Args:
        request: the packages; they are installed in its prefix.
        console: gets the lines.
        fresh: the environment is a new one. Otherwise the lines of the last run are shown again, if
            the programs that show the engine are the same, too.

    Raises:
        PackageTestError: the engine does not generate, serve or refuse as it should.
    """
    report, programs = (
        request.state.with_name(f"{request.variant.name}-engine.json"),
        _programs(request),
    )
    if not fresh and (known := _recorded(report, programs)) is not None:
        console.info("    nothing has changed since this run:")
        for line in known["lines"]:
            console.info(f"    {line}")
        return known
    report.unlink(missing_ok=True)
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        console.info(f"    {line}")

    _run(request, ("--report", str(report)), tell, request.prefix)
    facts: dict[str, Any] = {**json.loads(read_text(report)), "lines": said, "programs": programs}
    write_text(report, json.dumps(facts, indent=2) + "\n")
    return facts


def run(
    request: Request, console: Console, *, fresh: bool, demonstrate: bool
) -> dict[str, Any] | None:
    """Run ops in the environment and, if ``demonstrate``, the engine; returns its facts.

    Raises:
        PackageTestError: an op or the engine does not do what it should; see :func:`show`.
    """
    with console.step("run"):
        test = ["python", str(request.root / "recipe" / "vllm" / "test_ops.py")]
        printed = conda_environment.run_in(
            request.prefix, test, cwd=request.prefix, inherited=request.settings.inherited
        )
        console.info(f"    {printed.strip().splitlines()[-1]}")
    if not demonstrate:
        return None
    with console.step("generate and serve"):
        return show(request, console, fresh=fresh)


def serve(request: Request, port: int, console: Console) -> None:
    """Serve a small model until Ctrl-C.

    Args:
        request: the packages; they are installed in its prefix.
        port: the port on the loopback interface; 0 for any.
        console: gets the lines to copy on stdout.

    Raises:
        PackageTestError: the server does not start, or ends by itself.
        Interrupted: a signal other than Ctrl-C.
    """
    try:
        _run(request, ("--serve", str(port)), console.output, request.prefix)
    except signals.Interrupted as interrupt:
        if interrupt.number != signal.SIGINT:
            raise
        console.info("the server has ended")
