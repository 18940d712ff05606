# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm.collect_env [--json]``: a report on this installation, for bug reports.

It lists what is installed and what the kernels were built from. It works without torch and without
kernels. Nothing is sent anywhere. Variables whose name suggests a secret are listed without their
value.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import sysconfig
import textwrap
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vllm
from vllm._kernels import build_info, engine, loader, pins
from vllm._kernels.platforms import detect, host

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Version of the JSON document's layout.
SCHEMA = 1
_PROBE_SECONDS = 300

#: Conda packages that affect whether the kernels load and how fast they are.
_CONDA_PACKAGES = re.compile(
    r"vllm.*|(lib|py)torch(-.*)?|python(_abi|-freethreading)?|numpy|lib(gcc|stdcxx)(-.*)?"
    r"|lib(gomp|hwy)|_openmp_mutex|llvm-openmp|mkl|cuda-version|hip|_x86_64.*"
)
_VARIABLES = re.compile(
    r"(VLLM|TORCH|PYTORCH|OMP|GOMP|KMP|MKL|CUDA|NVIDIA|HIP|ROCM|ROCR|ZE|ONEAPI|SLURM)_.*"
    r"|LD_(LIBRARY_PATH|PRELOAD)|PYTHON(PATH|HOME)|CONDA_PREFIX"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH", re.IGNORECASE)
_ADDRESS_LOGIN = re.compile(r"(?<=://)[^/@\s]*@|(?<![\w.@%+~-])[\w.%+~-]+:[^/@\s]+@")


def _python() -> dict[str, Any]:
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "abi": sysconfig.get_config_var("SOABI") or "unknown",
        "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
        "executable": sys.executable,
        "prefix": sys.prefix,
    }


def _system() -> dict[str, Any]:
    release: dict[str, str] = {}
    with contextlib.suppress(OSError):  # no such file: a bare container
        release = platform.freedesktop_os_release()
    libc, version = platform.libc_ver()
    return {
        "os": release.get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": f"{libc} {version}".strip() or "unknown",
    }


def _cpu() -> dict[str, Any]:
    return {
        "model": host.cpu_model(),
        "usable": host.usable_cpus(),
        "memory_bytes": host.memory_bytes(),
        "flags": sorted(host.cpu_flags()),
    }


def _platform() -> dict[str, Any]:
    try:
        found = detect()
    except (RuntimeError, ValueError) as error:
        return {"error": str(error)}
    return {"device_name": found.device_name, "device_type": found.device_type}


def _components() -> list[dict[str, Any]]:
    """The record of each component, with the state of each library.

    A damaged record is an entry with ``error``. An entry with ``differs`` is not the component that
    vllm requires.
    """
    found: list[dict[str, Any]] = []
    for path in sorted(build_info.DIRECTORY.glob("*.json")):
        try:
            if path.name == build_info.FOREIGN:
                found += _foreign()
                continue
            record = build_info.read(path)
        except build_info.BuildInfoError as error:
            found.append({"component": path.stem, "error": str(error)})
            continue
        differs = pins.mismatch(record.component, record.version, record.kernel_digest)
        found.append(
            {
                **record.document,
                **({"differs": differs} if differs else {}),
                "files": _states(record.extensions),
            }
        )
    return found


def _states(
    files: Iterable[build_info.ExtensionInfo | build_info.ForeignLibrary],
) -> dict[str, str]:
    return {file.file: build_info.check_file(file) or "as built" for file in files}


def _foreign() -> list[dict[str, Any]]:
    """The record of an official wheel, with the state of its libraries."""
    foreign = build_info.foreign()
    return (
        [{"component": "foreign", **foreign.document, "files": _states(foreign.libraries.values())}]
        if foreign
        else []
    )


def _libraries() -> list[str] | dict[str, str]:
    try:
        return sorted(loader.available())
    except ImportError as error:  # a damaged record
        return {"error": str(error)}


def _probe() -> dict[str, Any]:
    """Run :mod:`vllm._kernels.probe` in another process that has this process's module path."""
    code = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from vllm._kernels import probe; "
        "probe.main()"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(sys.path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {
            "error": (
                f"importing torch and loading the kernels did not end within {_PROBE_SECONDS} s"
            )
        }
    if done.returncode < 0:
        number = -done.returncode
        how = f"signal {number} ({signal.strsignal(number)})"
        return {
            "error": (
                f"importing torch or loading the kernels ended the process by {how}: "
                f"{_tail(done.stderr)}"
            )
        }
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {
            "error": (
                f"the process that imports torch failed with status {done.returncode}: "
                f"{_tail(done.stderr)}"
            )
        }
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def _tail(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:]) or "no message"


def _torch_package() -> str | None:
    """The version in torch's metadata, whether or not torch can be imported."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def _conda(prefix: Path) -> dict[str, str]:
    """Name → ``version build`` of the relevant packages of a conda environment.

    Empty outside a conda environment.
    """
    found: dict[str, str] = {}
    for path in sorted((prefix / "conda-meta").glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            name, version, build = record["name"], record["version"], record["build"]
        except (OSError, ValueError, KeyError, TypeError):
            found[path.stem] = "unreadable record"
            continue
        if _CONDA_PACKAGES.fullmatch(name):
            found[name] = f"{version} {build}"
    return found


def _variables() -> dict[str, str]:
    chosen = {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}
    return {
        name: "(set, not shown)" if _SECRET.search(name) else _ADDRESS_LOGIN.sub("(login)@", value)
        for name, value in sorted(chosen.items())
    }


def _engine() -> dict[str, Any] | None:
    """The engine's version, the sha256 of its source distribution, and the platform it gets.

    None for the thin face.
    """
    path = Path(vllm.__file__).parent / "_kernels" / "_engine.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            return {"error": f"{path} has no table"}
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return {"error": str(error)}
    try:
        return {**found, "platform": engine.PLATFORMS.get(engine.device() or "")}
    except build_info.BuildInfoError as error:
        return {**found, "platform": {"error": str(error)}}


def collect() -> dict[str, Any]:
    """Collect the report as a JSON-compatible document.

    A section that could not be determined has the key ``error``.
    """
    probed = _probe()
    failed = {"error": probed["error"]} if "error" in probed else {}
    return {
        "schema": SCHEMA,
        "vllm": {
            "version": vllm.__version__,
            "path": str(Path(vllm.__file__).parent),
            "libraries": _libraries(),
        },
        "engine": _engine(),
        "platform": _platform(),
        "components": _components(),
        "torch": {"installed": _torch_package(), **probed.get("torch", failed)},
        "kernels": probed.get("kernels", failed),
        "python": _python(),
        "system": _system(),
        "cpu": _cpu(),
        "conda": _conda(Path(sys.prefix)),
        "environment": _variables(),
    }


def _lines(value: Any, indent: str) -> list[str]:
    """Format a document as indented ``key: value`` lines; long lists of words are wrapped."""
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
            else:
                shown = (
                    "none"
                    if item in (None, {}, [], "")
                    else str(item).replace("\n", "\n" + indent + "  ")
                )
                lines.append(f"{indent}{key}: {shown}")
        return lines
    if value and all(isinstance(item, str) for item in value):
        return textwrap.wrap(
            " ".join(value),
            118,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return [
        line
        for item in value
        for line in (
            [f"{indent}-", *_lines(item, indent + "  ")]
            if isinstance(item, dict)
            else [f"{indent}- {item}"]
        )
    ]


def render(report: dict[str, Any]) -> str:
    """Format the report as text."""
    return "\n".join(_lines({key: value for key, value in report.items() if key != "schema"}, ""))


def main(argv: list[str] | None = None) -> int:
    """Print the report and return 0, even if the environment that it describes is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m vllm.collect_env",
        description="Report what is installed and what the kernels were built from.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    as_json = parser.parse_args(argv).json
    report = collect()
    sys.stdout.write((json.dumps(report, indent=2) if as_json else render(report)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
