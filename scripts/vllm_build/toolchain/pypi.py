# SPDX-License-Identifier: Apache-2.0
"""Resolves and downloads wheels and sdists with the running interpreter's pip.

pip uses the index of the machine's pip configuration. Its messages are not parsed to classify a
failure. Instead, a second call of pip reports what it would take (``--dry-run --report``): another
sha256 means other bytes, and no file means a missing version. If pip finds no file even for a
package that every index has, no index answers. Messages only tell which version is missing.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.utils import parse_wheel_filename
from packaging.version import Version

from vllm_build.toolchain import pip_answers, wheel_metadata
from vllm_build.toolchain.pip_selection import PURE, SDIST, Selection, select_wheels
from vllm_build.toolchain.toolchain_lock import UPDATE_COMMAND
from vllm_build.util.errors import ConfigurationError, FetchError, IntegrityError, ResourceError
from vllm_build.util.files import disk_errors
from vllm_build.util.processes import children, pip_process

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

_LOCK = "toolchain/lock.toml"


class MissingVersionError(FetchError):
    """pip's index answers, but it lacks the locked version or file.

    Attributes:
        requirement: the requirement that pip found no file for; empty if pip did not name it.
        others: the versions that the index has for the interpreter, oldest first.
    """

    requirement = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wheel:
    """A wheel that pip found, with the requirements and the license from its metadata."""

    name: str
    version: str
    filename: str
    sha256: str
    requires: tuple[str, ...] = ()
    requires_python: str = ""
    license: str = ""


def _run(
    command: str, arguments: Sequence[str], env: Mapping[str, str], inherited: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run pip with the machine's settings for reaching an index, and no other settings of pip.

    Args:
        command: of pip.
        arguments: of the command.
        env: additions to the environment.
        inherited: the variables to start from.

    Raises:
        ConfigurationError: there is no pip, or it cannot read its configuration.
    """
    try:
        base = pip_process.environment("download", inherited, run=children.run)
    except pip_process.PipConfigurationError as error:
        raise ConfigurationError(
            f"pip cannot read its configuration: {error}",
            remedy="correct the file; `pip config debug` lists the files that pip reads",
        ) from error
    # Variables instead of -I: an isolated interpreter would ignore PYTHONPATH, which holds the
    # build backend for sdists.
    settled = {"LC_ALL": "C.UTF-8", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
    return children.run(
        [sys.executable, "-m", "pip", command, "--quiet", *arguments],
        env={**children.without_python(base), **settled, **env},
    )


def report(
    requirements: Sequence[str], selection: Selection, inherited: Mapping[str, str]
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """Report what pip would install for exact ``requirements``, without dependencies.

    The list is empty if pip finds nothing.
    """
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
        done = _run(
            "install", [*arguments, *selection.options, *requirements], selection.env, inherited
        )
        if done.returncode or not report.is_file():
            return done, []
        return done, json.loads(report.read_text(encoding="utf-8"))["install"]


def _facts(metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], str, str]:
    """Requirements, versions of Python and license in the metadata of a report."""
    expression, text = (str(metadata.get(key) or "") for key in ("license_expression", "license"))
    license_ = wheel_metadata.license_of(expression, text, metadata.get("classifier") or ())
    return (
        tuple(metadata.get("requires_dist") or ()),
        str(metadata.get("requires_python") or ""),
        license_,
    )


def sha256_in(item: Mapping[str, Any]) -> str:
    """The sha256 of a file in a report; empty if the index gives none."""
    archive = item["download_info"].get("archive_info") or {}
    return (archive.get("hashes") or {}).get("sha256") or ""


def _index_answers(inherited: Mapping[str, str]) -> bool:
    """Whether pip finds a package that every index has: pip itself."""
    if pip_process.settings("download", inherited, children.run).get("no-index"):
        return True
    # Without retries: the failed call before has retried already.
    return bool(report(["pip"], Selection((), {"PIP_RETRIES": "0"}), inherited)[1])


def not_found(
    what: str, done: subprocess.CompletedProcess[str], locked: str, inherited: Mapping[str, str]
) -> FetchError:
    """The error for a version that pip does not find; ``locked`` is the file that names it."""
    if not _index_answers(inherited):
        return FetchError(
            f"pip cannot reach its index for {what}: {pip_answers.reason(done)}",
            expected="an index that answers and has pip itself, such as PyPI or a mirror of it",
            remedy="check the network and the machine's pip configuration",
        )
    missing = MissingVersionError(
        f"pip finds no {what}: {pip_answers.reason(done)}",
        expected=f"the version in {locked} on the configured index",
        remedy=f"correct the version, then {UPDATE_COMMAND}"
        if locked == _LOCK
        else f"correct the version in {locked}",
    )
    missing.requirement, missing.others = (
        pip_answers.unmatched(done),
        pip_answers.other_versions(done),
    )
    return missing


def _download(
    wanted: Sequence[tuple[str, str, str]],
    folder: Path,
    selection: Selection,
    locked: str,
    inherited: Mapping[str, str],
) -> None:
    """Download the files of exact versions; see ``download``."""
    # `===`, because `==1.0` also accepts 1.0+local.
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
    done = _run("download", arguments, selection.env, inherited)
    listing.unlink()
    if done.returncode == 0:
        return
    if pip_answers.is_disk_full(done):
        what = ", ".join(f"{name} {version}" for name, version, _ in wanted)
        raise ResourceError(
            f"no space left on the disk while downloading {what}",
            remedy="free some space, or set VLLM_BUILD_CACHE to another disk",
        )
    named = pip_answers.unmatched(done)
    asked_for = zip(requirements.items(), wanted, strict=True)
    # One call of pip for each takes a while, so the one that pip names comes first.
    for (requirement, sha256), (name, version, _) in sorted(
        asked_for, key=lambda item: item[0][0] != named
    ):
        asked, found = report([requirement], selection, inherited)
        if not found:
            raise not_found(f"{name} {version}", asked, locked, inherited)
        if sha256_in(found[0]) not in ("", sha256):
            raise IntegrityError(
                f"pip found other bytes than the locked ones for {name} {version}: sha256 "
                f"{sha256_in(found[0])}",
                expected=f"the sha256 in {locked}",
                remedy="find out who changed the file; if the change is right: "
                + (UPDATE_COMMAND if locked == _LOCK else f"correct {locked}"),
            )
    what = ", ".join(f"{name} {version}" for name, version, _ in wanted)
    raise FetchError(
        f"pip failed for {what}: {pip_answers.reason(done)}",
        remedy="run the same command again; if it fails again, run pip by hand to see more",
    )


def download(
    items: Iterable[tuple[str, str, str]],
    folder: Path,
    *,
    python: str,
    abi: str | None,
    inherited: Mapping[str, str],
) -> None:
    """Download wheels without their dependencies.

    Args:
        items: name, version and sha256 of each wheel.
        folder: where the files go.
        python: version of the interpreter that the wheels must fit.
        abi: as in ``resolve``.
        inherited: the variables that pip starts from.

    Raises:
        IntegrityError: the index has the version with other bytes.
        MissingVersionError: the index does not have the version.
        FetchError: no index answers.
        ResourceError: the disk is full.
        ConfigurationError: pip cannot read its configuration.
    """
    _download(sorted(items), folder, select_wheels(python, abi), _LOCK, inherited)


def download_sdist(
    name: str,
    version: str,
    sha256: str,
    folder: Path,
    locked: str,
    *,
    inherited: Mapping[str, str],
) -> None:
    """Download one source distribution without running code of the project.

    Args:
        name: the distribution.
        version: its version.
        sha256: of the file.
        folder: where the file goes.
        locked: the file that the sha256 comes from, for messages.
        inherited: the variables that pip starts from.

    Raises:
        IntegrityError, MissingVersionError, FetchError, ResourceError, ConfigurationError: as
        ``download``.
    """
    _download([(name, version, sha256)], folder, SDIST, locked, inherited)


def resolve(
    requirements: Sequence[str], *, python: str, abi: str | None, inherited: Mapping[str, str]
) -> list[Wheel]:
    """Find the wheels that pip takes for ``requirements`` now.

    Nothing is downloaded if the index gives the hashes.

    Args:
        requirements: exact requirements.
        python: version of the interpreter that the wheels must fit.
        abi: ABI tag, or ``None`` for the interpreter's default; ``PURE`` for wheels without
            compiled code only.
        inherited: the variables that pip starts from.

    Raises:
        MissingVersionError, FetchError, ConfigurationError: as ``download``.
        IntegrityError: the index gives no sha256 for a file.
    """
    done, found = report(requirements, select_wheels(python, abi), inherited)
    if not found:
        shown = ", ".join(requirements[:3]) + (
            f" and {len(requirements) - 3} more" if len(requirements) > 3 else ""  # noqa: PLR2004
        )
        raise not_found(
            f"pure wheel for any platform of {shown}" if abi == PURE else shown,
            done,
            _LOCK,
            inherited,
        )
    wheels: list[Wheel] = []
    for item in found:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if not sha256_in(item):
            raise IntegrityError(
                f"the index gives no sha256 for {name} {version}",
                expected="an index that gives one, such as PyPI",
            )
        filename = Path(unquote(urlsplit(item["download_info"]["url"]).path)).name
        if (
            abi is not None
            and abi.endswith("t")
            and not {abi, "none"} & {tag.abi for tag in parse_wheel_filename(filename)[3]}
        ):
            # Older versions of pip take abi3 wheels for free-threaded interpreters, which cannot
            # load them.
            raise MissingVersionError(
                f"pip finds {name} {version} only as {filename}",
                expected=f"a wheel for the ABI {abi}",
            )
        wheels.append(Wheel(name, version, filename, sha256_in(item), *_facts(item["metadata"])))
    return sorted(wheels, key=lambda wheel: wheel.name)
