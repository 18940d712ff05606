# SPDX-License-Identifier: Apache-2.0
"""Wheels and sdists through the running interpreter's pip, with the machine's own pip configuration: no index address is ever passed."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.utils import parse_wheel_filename

from vllm_build import children
from vllm_build.errors import FetchError, IntegrityError, ResourceError
from vllm_build.files import disk_errors
from vllm_build.toolchain.lock import UPDATE_COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Wheels for a glibc up to 2.31 (the channel's sysroot); pip takes the tags literally, so every older one is named.
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(31, 16, -1)),
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(16, 4, -1)),
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
)
_MISMATCH = re.compile(r"DO NOT MATCH THE HASHES|Hashes are required|hash-checking")
_NETWORK = re.compile(
    r"Retrying \(Retry|Could not fetch URL|Max retries exceeded|NewConnectionError|Name or service not known|HTTP error [45]|Read timed out"
)
_MISSING = re.compile(r"No matching distribution found|Could not find a version that satisfies")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")


_LOCK = "toolchain/lock.toml"
#: Holds the build backend that stands in for a project's own: metadata of an sdist without running anything of it.
_SDIST_BACKEND = Path(__file__).with_name("sdist_backend")


class MissingVersionError(FetchError):
    """pip reaches its index, and the locked version or file is not there."""


@dataclass(frozen=True)
class Wheel:
    """A wheel as pip resolved it."""

    name: str
    version: str
    filename: str
    sha256: str


def _update(locked: str) -> str:
    return UPDATE_COMMAND if locked == _LOCK else f"correct {locked}"


def _tags(python: str, abi: str | None) -> list[str]:
    arguments = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    for platform in _PLATFORMS:
        arguments += ["--platform", platform]
    # Naming one ABI excludes the rest, so the portable ones are named with it; abi3 has no meaning for a free-threaded interpreter.
    for tag in () if abi is None else (abi, "none") if abi.endswith("t") else (abi, "abi3", "none"):
        arguments += ["--abi", tag]
    return arguments


def _pip(arguments: Sequence[str], what: str, env: Mapping[str, str] | None = None, locked: str = _LOCK) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    settled = {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "LC_ALL": "C.UTF-8",
        # By variables, as an isolated interpreter (-I) would not see the backend that download_sdist adds.
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
    }
    done = children.run(command, env={**children.without_python(os.environ), **settled, **(env or {})})
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    errors = [line.removeprefix("ERROR: ").strip() for line in output.splitlines() if line.startswith("ERROR")]
    reason = errors[-1] if errors else output.strip()[-300:] or f"exit status {done.returncode}"
    if _FULL.search(output):
        raise ResourceError(
            f"no space left on the disk while fetching {what}", remedy="free some space, or set VLLM_BUILD_CACHE to another disk"
        )
    if _MISMATCH.search(output):
        got = re.findall(r"Got\s+([0-9a-f]{64})", output)
        raise IntegrityError(
            f"pip found other bytes than locked for {what}" + (f": sha256 {', '.join(got)}" if got else ""),
            expected=f"the sha256 in {locked}",
            remedy=f"find out who changed the file; if the change is right: {_update(locked)}",
        )
    if _NETWORK.search(output):
        raise FetchError(f"pip cannot reach its index for {what}: {reason}", remedy="check the network and the machine's pip configuration")
    if _MISSING.search(output):
        raise MissingVersionError(
            f"pip finds no {what}: {reason}",
            expected=f"the version in {locked} on the configured index",
            remedy=f"{_update(locked)} after correcting the version" if locked == _LOCK else f"correct the version in {locked}",
        )
    raise FetchError(f"pip failed for {what}: {reason}", remedy="run pip by hand to see more")


def download(items: Iterable[tuple[str, str, str]], folder: Path, *, python: str, abi: str | None, operator: str = "==") -> None:
    """Download wheels given as (name, version, sha256) into ``folder``, without their dependencies.

    ``operator`` is ``===`` where ``1.0+local`` must not stand for ``1.0``.

    Raises:
        IntegrityError: the index has the version with other bytes.
        MissingVersionError: the index does not have the version.
        FetchError: no index answers.
        ResourceError: the disk is full.
    """
    wanted = sorted(items)
    with disk_errors(folder):
        listing = folder / "requirements.txt"
        lines = [f"{name}{operator}{version} --hash=sha256:{sha256}\n" for name, version, sha256 in wanted]
        listing.write_text("".join(lines), encoding="utf-8")
    what = ", ".join(f"{name} {version}" for name, version, _ in wanted)
    _pip(["download", "--quiet", "--no-deps", "--require-hashes", "--dest", str(folder), "-r", str(listing), *_tags(python, abi)], what)
    listing.unlink()


def download_sdist(name: str, version: str, sha256: str, folder: Path, locked: str) -> None:
    """Download one source distribution into ``folder``; nothing of the project is run. ``locked`` names the file that says the sha256.

    Raises:
        IntegrityError, MissingVersionError, FetchError, ResourceError: as ``download``.
    """
    with disk_errors(folder):
        listing = folder / "requirements.txt"
        listing.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    # Without isolation pip takes the backend from the path, where ours comes first.
    arguments = ["--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    env = {"PYTHONPATH": str(_SDIST_BACKEND)}
    _pip(["download", *arguments, "--dest", str(folder), "-r", str(listing)], f"{name} {version}", env, locked)
    listing.unlink()


def resolve(
    requirements: Sequence[str], folder: Path, *, python: str, abi: str | None, env: Mapping[str, str] | None = None
) -> list[Wheel]:
    """What pip would take for ``requirements`` now: names, versions and hashes, nothing downloaded where the index tells the hash.

    Args:
        requirements: exact requirements.
        folder: an empty folder for pip's report.
        python: interpreter version that the wheels must fit.
        abi: ABI tag, or ``None`` for the interpreter's usual one.
        env: additions to pip's environment.

    Raises:
        MissingVersionError, FetchError: as ``download``.
        IntegrityError: the index names no sha256 for a file.
    """
    report = folder / "report.json"
    arguments = [
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--target",
        str(folder / "none"),
        "--report",
        str(report),
    ]
    arguments += _tags(python, abi)
    _pip([*arguments, *requirements], ", ".join(requirements), env)
    wheels: list[Wheel] = []
    for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
        information = item["download_info"]
        archive = information.get("archive_info") or {}
        sha256 = (archive.get("hashes") or {}).get("sha256")
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if not sha256:
            raise IntegrityError(f"the index names no sha256 for {name} {version}", expected="an index that does, as PyPI")
        filename = Path(unquote(urlsplit(information["url"]).path)).name
        if abi is not None and abi.endswith("t") and not {abi, "none"} & {tag.abi for tag in parse_wheel_filename(filename)[3]}:
            # Older pip takes abi3 wheels for free-threaded interpreters, which cannot load them.
            raise MissingVersionError(f"pip finds {name} {version} only as {filename}", expected=f"a wheel for the ABI {abi}")
        wheels.append(Wheel(name, version, filename, sha256))
    report.unlink()
    return sorted(wheels, key=lambda wheel: wheel.name)
