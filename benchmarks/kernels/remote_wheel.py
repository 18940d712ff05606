# SPDX-License-Identifier: Apache-2.0
"""Fetches single members of a wheel from the package index that pip is configured with.

pip tells the wheel's address and sha256. The members are fetched by HTTP range requests, so a few
megabytes suffice. If that is impossible because the server ignores ranges, or because the index
wants a password, which pip does not tell, :class:`NoRangesError` is raised.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vllm_build.reuse.archives.wheel_file import Archive
from vllm_build.reuse.net import remote_file
from vllm_build.reuse.net.reuse_context import Meter
from vllm_build.reuse.net.transport import AbsentError, LoginError, Transport
from vllm_build.reuse.records.output_record import Library
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util import environ
from vllm_build.util.errors import FetchError, IntegrityError
from vllm_build.util.files import sha256_of
from vllm_build.util.processes import pip_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vllm_build.reuse.net.remote_file import RemoteFile


class NoRangesError(FetchError):
    """The wheel cannot be read by ranges; downloading it whole may work."""


def locate(requirement: str, sha256: str, platform: str) -> str:
    """The address that pip would fetch the wheel of an exact requirement from.

    Raises:
        FetchError: pip finds none.
        IntegrityError: the index names another sha256.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--no-deps",
            "--no-input",
        ]
        command += [
            "--report",
            str(report),
            "--target",
            str(Path(folder) / "none"),
            "--only-binary",
            ":all:",
        ]
        command += [
            "--implementation",
            "cp",
            "--python-version",
            "3.12",
            "--abi",
            "abi3",
            "--platform",
            platform,
            requirement,
        ]
        env = pip_process.environment("install", environ.snapshot())
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode or not report.is_file():
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
                "pip failed"
            ]
            raise FetchError(
                f"pip finds no {requirement} for {platform}: {lines[-1].removeprefix('ERROR: ')}",
                remedy="check the network and the machine's pip configuration",
            )
        (item,) = json.loads(report.read_text(encoding="utf-8"))["install"]
    information = item["download_info"]
    named = ((information.get("archive_info") or {}).get("hashes") or {}).get("sha256")
    if named not in (None, sha256):
        raise IntegrityError(f"the index has {requirement} with sha256 {named}", expected=sha256)
    return str(information["url"])


@dataclass(frozen=True)
class Wheel:
    """An open wheel.

    Attributes:
        archive: its members.
        file: the remote file; None for a wheel on a disk.
        meter: counts the received bytes.
    """

    archive: Archive
    file: RemoteFile | None
    meter: Meter


@contextmanager
def open_wheel(url: str) -> Iterator[Wheel]:
    """Open the wheel at an address; a ``file:`` address is opened in place.

    Raises:
        NoRangesError: the server ignores ranges or wants a password.
        FetchError: the wheel cannot be fetched.
        IntegrityError: it is not a wheel.
    """
    parts, meter = urlsplit(url), Meter()
    if parts.scheme == "file":
        with Path(url2pathname(parts.path)).open("rb") as stream:
            yield Wheel(_archive(stream, url), None, meter)
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        try:
            transport = _transport(https=parts.scheme == "https")
            file, _ = remote_file.open_ranged(transport, url, (scratch, scratch), meter)
        except LoginError as error:
            raise NoRangesError(
                f"the package index wants a password for parts of files: {error.message}"
            ) from error
        except AbsentError as error:
            raise FetchError(f"{url}: no such file", remedy="try again") from error
        if file is None:
            raise NoRangesError("the package index does not send parts of files")
        yield Wheel(_archive(file, url), file, meter)


def _archive(stream: BinaryIO | RemoteFile, url: str) -> Archive:
    try:
        return Archive(stream, url)
    except RefusedError as error:
        raise IntegrityError(f"the package index sent no valid wheel: {error.message}") from error


def _transport(*, https: bool) -> Transport:
    """A transport that trusts the certificates that pip trusts."""
    env = environ.snapshot()
    transport = Transport(timeout=60, attempts=2, netrc=env.get("NETRC", ""))
    if not https:
        return transport
    certificates = pip_process.settings("install", env).get("cert")
    return dataclasses.replace(
        transport, certificates=certificates or env.get("REQUESTS_CA_BUNDLE", "")
    )


def extract(wheel: Wheel, members: Mapping[str, str], folder: Path) -> None:
    """Extract members into ``folder``; files that exist are not read again.

    Args:
        wheel: the wheel.
        members: path in the wheel -> sha256.
        folder: gets the members under their file names.

    Raises:
        IntegrityError: a member is missing, damaged or has another sha256.
        FetchError: the bytes cannot be fetched.
    """
    missing = {
        member: sha256
        for member, sha256 in members.items()
        if not (folder / Path(member).name).is_file()
    }
    for member in missing:
        if member not in wheel.archive.members:
            raise IntegrityError(f"{member} of the wheel cannot be read: there is no such member")
    if wheel.file is not None:
        wheel.file.fetch([wheel.archive.window(member) for member in missing])
    for member, sha256 in missing.items():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            found = Path(scratch) / "member"
            size = wheel.archive.members[member].file_size
            wheel.archive.extract(Library(member, sha256, size), found)
            if (actual := sha256_of(found)) != sha256:
                raise IntegrityError(f"{member} of the wheel has sha256 {actual}", expected=sha256)
            found.rename(folder / Path(member).name)
