# SPDX-License-Identifier: Apache-2.0
"""Wheels and sdists through the running interpreter's pip, from the index that the machine's pip configuration names.

What went wrong is never read out of pip's messages. After a failure pip is asked what it would take
(``--dry-run --report``): another sha256 means other bytes, nothing means a missing version, and
nothing for a package that every index has means that no index answers.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.utils import parse_wheel_filename
from packaging.version import Version

from vllm_build.toolchain import wheel_metadata
from vllm_build.toolchain.toolchain_lock import UPDATE_COMMAND
from vllm_build.util.environ import snapshot
from vllm_build.util.errors import ConfigurationError, FetchError, IntegrityError, ResourceError
from vllm_build.util.files import disk_errors
from vllm_build.util.processes import children, pip_process
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

#: Wheels for a glibc up to 2.31 (the channel's sysroot); pip takes the tags literally, so every
#: older one is named.
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(31, 16, -1)),
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(16, 4, -1)),
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
)
_LOCK = "toolchain/lock.toml"
#: The ABI tag of wheels that hold no compiled code; with it a wheel for any platform is asked for.
PURE = "none"
#: Holds the build backend that stands in for a project's own: metadata of an sdist without running
#: anything of it.
_SDIST_BACKEND = Path(__file__).with_name("sdist_backend")


class MissingVersionError(FetchError):
    """pip reaches its index, and the locked version or file is not there."""


@dataclass(frozen=True)
class Wheel:
    """A wheel as pip resolved it, with the requirements and the license that its metadata names."""

    name: str
    version: str
    filename: str
    sha256: str
    requires: tuple[str, ...] = ()
    requires_python: str = ""
    license: str = ""


@dataclass(frozen=True)
class _Selection:
    """Which files of a version pip may take: options of ``pip download`` and ``pip install``, and additions to the environment."""

    options: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def _tags(python: str, abi: str | None) -> _Selection:
    if abi == PURE:
        # A distribution may have compiled wheels as well, which pip would prefer.
        return _Selection(
            (
                "--only-binary",
                ":all:",
                "--implementation",
                "cp",
                "--python-version",
                python,
                "--platform",
                "any",
                "--abi",
                PURE,
            )
        )
    options = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    for platform in _PLATFORMS:
        options += ["--platform", platform]
    # Naming one ABI excludes the rest, so the portable ones are named with it; abi3 has no meaning
    # for a free-threaded interpreter.
    for tag in () if abi is None else (abi, "none") if abi.endswith("t") else (abi, "abi3", "none"):
        options += ["--abi", tag]
    return _Selection(tuple(options))


#: Without isolation pip takes the backend from the path, where ours comes first: nothing of the
#: project runs.
_SDIST = _Selection(
    ("--no-binary", ":all:", "--no-build-isolation"), {"PYTHONPATH": str(_SDIST_BACKEND)}
)


def _run(
    command: str, arguments: Sequence[str], env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run pip; only the machine's way to its index reaches it from outside.

    Raises:
        ConfigurationError: there is no pip, or it cannot read its configuration.
    """
    try:
        base = pip_process.environment("download", snapshot(), run=children.run)
    except pip_process.PipConfigurationError as error:
        raise ConfigurationError(
            f"pip cannot read its configuration: {error}",
            remedy="correct the file; `pip config debug` lists where pip looks",
        ) from error
    # By variables, as an isolated interpreter (-I) would not see the backend that a selection of
    # sdists adds.
    settled = {"LC_ALL": "C.UTF-8", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
    return children.run(
        [sys.executable, "-m", "pip", command, "--quiet", *arguments],
        env={**children.without_python(base), **settled, **env},
    )


def _report(
    requirements: Sequence[str], selection: _Selection
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """What pip would install for exact ``requirements``, without dependencies; an empty list where it finds nothing."""
    with tempfile.TemporaryDirectory(prefix="vllm-build-pip-") as folder:
        report = Path(folder, "report.json")
        arguments = [
            "--dry-run",
            "--ignore-installed",
            "--no-deps",
            "--target",
            str(Path(folder, "none")),
            "--report",
            str(report),
        ]
        done = _run("install", [*arguments, *selection.options, *requirements], selection.env)
        if done.returncode or not report.is_file():
            return done, []
        return done, json.loads(report.read_text(encoding="utf-8"))["install"]


def _said(metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], str, str]:
    """Requirements, versions of Python and license in the metadata of a report."""
    expression, text = (str(metadata.get(key) or "") for key in ("license_expression", "license"))
    license_ = wheel_metadata.license_of(expression, text, metadata.get("classifier") or ())
    return (
        tuple(metadata.get("requires_dist") or ()),
        str(metadata.get("requires_python") or ""),
        license_,
    )


def _sha256(item: Mapping[str, Any]) -> str:
    archive = item["download_info"].get("archive_info") or {}
    return (archive.get("hashes") or {}).get("sha256") or ""


def _index_answers() -> bool:
    """Whether pip finds a package that every index has: itself."""
    if pip_process.settings("download", snapshot(), children.run).get("no-index"):
        return True
    # The interpreter's own pip, once: whoever has no network should not wait for five attempts
    # again.
    return bool(_report(["pip"], _Selection((), {"PIP_RETRIES": "0"}))[1])


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The last thing that pip complained about, to show to people."""
    output = done.stdout + done.stderr
    errors = [
        line.removeprefix("ERROR: ").strip()
        for line in output.splitlines()
        if line.startswith("ERROR")
    ]
    return (
        errors[-1]
        if errors
        else excerpt(output.strip(), 300, end=True) or f"exit status {done.returncode}"
    )


def _not_found(what: str, done: subprocess.CompletedProcess[str], locked: str) -> FetchError:
    if not _index_answers():
        return FetchError(
            f"pip cannot reach its index for {what}: {_reason(done)}",
            expected="an index that answers and has pip itself, as PyPI and its mirrors",
            remedy="check the network and the machine's pip configuration",
        )
    return MissingVersionError(
        f"pip finds no {what}: {_reason(done)}",
        expected=f"the version in {locked} on the configured index",
        remedy=f"{UPDATE_COMMAND} after correcting the version"
        if locked == _LOCK
        else f"correct the version in {locked}",
    )


def _full(done: subprocess.CompletedProcess[str]) -> bool:
    return any(
        os.strerror(number) in done.stdout + done.stderr for number in (errno.ENOSPC, errno.EDQUOT)
    )


def _download(
    wanted: Sequence[tuple[str, str, str]], folder: Path, selection: _Selection, locked: str
) -> None:
    """Download the files of exact versions; see ``download``."""
    # `===`, because `==1.0` also admits 1.0+local.
    requirements = {f"{name}==={Version(version)}": sha256 for name, version, sha256 in wanted}
    with disk_errors(folder):
        listing = folder / "requirements.txt"
        lines = [
            f"{requirement} --hash=sha256:{sha256}\n"
            for requirement, sha256 in requirements.items()
        ]
        listing.write_text("".join(lines), encoding="utf-8")
    arguments = [
        "--no-deps",
        "--require-hashes",
        "--dest",
        str(folder),
        "-r",
        str(listing),
        *selection.options,
    ]
    done = _run("download", arguments, selection.env)
    listing.unlink()
    if done.returncode == 0:
        return
    if _full(done):
        what = ", ".join(f"{name} {version}" for name, version, _ in wanted)
        raise ResourceError(
            f"no space left on the disk while fetching {what}",
            remedy="free some space, or set VLLM_BUILD_CACHE to another disk",
        )
    for (requirement, sha256), (name, version, _) in zip(requirements.items(), wanted, strict=True):
        asked, found = _report([requirement], selection)
        if not found:
            raise _not_found(f"{name} {version}", asked, locked)
        if _sha256(found[0]) not in ("", sha256):
            raise IntegrityError(
                f"pip found other bytes than locked for {name} {version}: sha256 "
                f"{_sha256(found[0])}",
                expected=f"the sha256 in {locked}",
                remedy="find out who changed the file; if the change is right: "
                + (UPDATE_COMMAND if locked == _LOCK else f"correct {locked}"),
            )
    what = ", ".join(f"{name} {version}" for name, version, _ in wanted)
    raise FetchError(
        f"pip failed for {what}: {_reason(done)}",
        remedy="run the same command again; if it fails again, run pip by hand to see more",
    )


def download(
    items: Iterable[tuple[str, str, str]], folder: Path, *, python: str, abi: str | None
) -> None:
    """Download wheels given as (name, version, sha256) into ``folder``, without their dependencies.

    Raises:
        IntegrityError: the index has the version with other bytes.
        MissingVersionError: the index does not have the version.
        FetchError: no index answers.
        ResourceError: the disk is full.
        ConfigurationError: pip cannot read its configuration.
    """
    _download(sorted(items), folder, _tags(python, abi), _LOCK)


def download_sdist(name: str, version: str, sha256: str, folder: Path, locked: str) -> None:
    """Download one source distribution into ``folder``; nothing of the project is run.

    ``locked`` names the file that says the sha256.

    Raises:
        IntegrityError, MissingVersionError, FetchError, ResourceError, ConfigurationError: as
        ``download``.
    """
    _download([(name, version, sha256)], folder, _SDIST, locked)


def resolve(requirements: Sequence[str], *, python: str, abi: str | None) -> list[Wheel]:
    """What pip would take for ``requirements`` now: names, versions and hashes, nothing downloaded where the index tells the hash.

    Args:
        requirements: exact requirements.
        python: interpreter version that the wheels must fit.
        abi: ABI tag, or ``None`` for the interpreter's usual one; ``PURE`` for wheels without
            compiled code alone.

    Raises:
        MissingVersionError, FetchError, ConfigurationError: as ``download``.
        IntegrityError: the index names no sha256 for a file.
    """
    done, found = _report(requirements, _tags(python, abi))
    if not found:
        shown = ", ".join(requirements[:3]) + (
            f" and {len(requirements) - 3} more" if len(requirements) > 3 else ""  # noqa: PLR2004
        )
        raise _not_found(
            f"pure wheel for any platform of {shown}" if abi == PURE else shown, done, _LOCK
        )
    wheels: list[Wheel] = []
    for item in found:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if not _sha256(item):
            raise IntegrityError(
                f"the index names no sha256 for {name} {version}",
                expected="an index that does, as PyPI",
            )
        filename = Path(unquote(urlsplit(item["download_info"]["url"]).path)).name
        if (
            abi is not None
            and abi.endswith("t")
            and not {abi, "none"} & {tag.abi for tag in parse_wheel_filename(filename)[3]}
        ):
            # Older pip takes abi3 wheels for free-threaded interpreters, which cannot load them.
            raise MissingVersionError(
                f"pip finds {name} {version} only as {filename}",
                expected=f"a wheel for the ABI {abi}",
            )
        wheels.append(Wheel(name, version, filename, _sha256(item), *_said(item["metadata"])))
    return sorted(wheels, key=lambda wheel: wheel.name)
