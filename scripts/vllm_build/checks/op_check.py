# SPDX-License-Identifier: Apache-2.0
"""Checks after linking that libraries register exactly the ops of their sources."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.kernels import op_table
from vllm_build.target import torch_files
from vllm_build.util.errors import BuildError
from vllm_build.util.processes import children
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

#: Libraries of the driver. A build machine without the device lacks them, so the check cannot run.
_DRIVER = re.compile(
    r"lib(cuda|amdhip64|sycl|ze_loader|OpenCL|torch_cuda|torch_hip|torch_xpu)\.so[.0-9]*: cannot "
    r"open shared object file"
)


def differences(expected: Mapping[str, tuple[str, ...]], answer: dict[str, Any]) -> list[str]:
    """Differences between the registered ops and those of the sources, one sentence each.

    Args:
        expected: dispatch key → schemas, from :func:`vllm_build.kernels.op_table.of_plan`.
        answer: output of :mod:`vllm_build.checks.op_probe`.
    """
    registered, found, listed = answer["registered"], [], set()
    for key, schemas in expected.items():
        for text in schemas:
            schema = answer["expected"][text]
            name = schema.partition("(")[0]
            listed.add(name)
            if name not in registered:
                found.append(f"{name} is not registered")
                continue
            actual, keys = registered[name]
            if actual != schema:
                found.append(f"{name} is registered as {actual}, but defined as {schema}")
            if key not in keys and key != op_table.NO_KEY:
                found.append(
                    f"{name} has no implementation for {key}, only for "
                    f"{', '.join(keys) or 'nothing'}"
                )
    found += [f"{name} is registered but unknown" for name in sorted(set(registered) - listed)]
    return found


def torch_path(inherited: Mapping[str, str]) -> str | None:
    """The ``PYTHONPATH`` with which a child can import torch; None if torch is not importable.

    A conda build environment has only libtorch. An isolated build of pip hides the environment with
    torch's Python part. ``inherited`` are the variables that this process started with.
    """
    if importlib.util.find_spec("torch") is not None:
        # An interpreter that ignores the variable has found torch without it.
        return "" if sys.flags.ignore_environment else inherited.get("PYTHONPATH", "")
    sites = [
        str(torch.path.parent)
        for torch in torch_files.installed()
        if (torch.path / "__init__.py").is_file()
    ]
    return sites[0] if sites else None


def run_probe(
    probe: Path,
    request: Mapping[str, Any],
    path: str,
    inherited: Mapping[str, str],
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program that loads libraries into torch, in a separate process.

    Args:
        probe: the program.
        request: written to its standard input as JSON.
        path: result of :func:`torch_path`.
        inherited: its environment, to which this function adds.
        timeout: in seconds; None waits forever.

    Raises:
        subprocess.TimeoutExpired: it did not end in time and was killed.
    """
    return children.run(
        # Pass its text, not its path: Python searches a script's folder for modules first, and
        # modules there would hide others of the same name.
        [sys.executable, "-c", probe.read_text(encoding="utf-8")],
        given=json.dumps(request),
        # Installed plugins of torch are not under test.
        env={**inherited, "PYTHONPATH": path, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
        cwd="/",
        timeout=timeout,
    )


def require(
    expected: Mapping[str, tuple[str, ...]], libraries: Sequence[Path], inherited: Mapping[str, str]
) -> str:
    """Load ``libraries`` in a child process and compare their ops; returns the result in words.

    Args:
        expected: dispatch key → schemas that the libraries must register.
        libraries: the linked libraries that register ops.
        inherited: the environment of the child.

    Raises:
        BuildError: a library does not load, or its ops differ from those of the sources.
    """
    path = torch_path(inherited)
    if path is None:
        return "ops not compared: this environment has no importable torch"
    request = {
        "libraries": [str(path) for path in libraries],
        "schemas": sorted({s for schemas in expected.values() for s in schemas}),
    }
    done = run_probe(Path(__file__).with_name("op_probe.py"), request, path, inherited)
    if done.returncode:
        said = done.stderr.strip()
        if driver := _DRIVER.search(said):
            return f"ops not compared: {driver.group(0)}"
        raise BuildError(
            f"the libraries do not load (exit status {done.returncode}):\n"
            f"{excerpt(said, 2000, end=True)}",
            expected="libraries that torch loads",
        )
    found = differences(expected, json.loads(done.stdout))
    if found:
        raise BuildError(
            "the ops are not those of the sources:\n" + "\n".join(f"  {line}" for line in found),
            expected=f"exactly the ops that the sources of the planned kernels register, ours in "
            f"{op_table.BINDINGS}",
            remedy="link exactly the units that register them; also check whether another library "
            "has registered the same ops",
        )
    return f"{len(request['schemas'])} ops registered as defined"
