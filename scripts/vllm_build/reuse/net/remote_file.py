# SPDX-License-Identifier: Apache-2.0
"""A remote file that reads like a local one.

Bytes that are read are fetched by range requests. They are kept in parts that other processes can
resume.
"""

from __future__ import annotations

import io
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from vllm_build.reuse.net import download, request_windows
from vllm_build.reuse.net.reuse_cache import key_of
from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.files import sha256_of
from vllm_build.util.processes import signals

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from typing_extensions import Buffer

    from vllm_build.reuse.net.download import Progress
    from vllm_build.reuse.net.http_answer import Validator
    from vllm_build.reuse.net.reuse_cache import Cache
    from vllm_build.reuse.net.transport import Transport

#: Bytes at the end of an archive that the first request asks for. They contain the directory of a
#: wheel with some thousand members, so this request tells all that has to be known about the file.
#: It is a thousandth of a wheel with GPU kernels.
TAIL = 256 * bounds.KIB


class RemoteFile(io.RawIOBase):
    """A remote file of a server that honours ranges.

    Attributes:
        url: its address.
        validator: its version, which all requests ask for.
        size: in bytes.
        key: identifies this version of this file; None if the server sends nothing that tells two
            versions apart.
        requests: number of requests made, without repeated attempts.
    """

    def __init__(
        self,
        transport: Transport,
        url: str,
        validator: Validator,
        size: int,
        folders: tuple[Path, Path],
        progress: Progress,
    ) -> None:
        super().__init__()
        self.url, self.validator, self.size = url, validator, size
        self.key = key_of(url, validator) if validator.condition else None
        self.requests = 0
        self._transport, self._progress = transport, progress
        self._private, self._shared = folders if self.key else (folders[0], folders[0])
        self._parts: dict[request_windows.Window, Path] = {}
        self._position = 0

    def keep(self, begin: int, data: bytes) -> None:
        """Keep bytes that have already been fetched."""
        path = self._path(self._private, begin, begin + len(data))
        path.write_bytes(data)
        self._parts[begin, begin + len(data)] = path

    def _path(self, folder: Path, begin: int, end: int) -> Path:
        return folder / f"{(self.key or 'unnamed')[:32]}-{begin}-{end}"

    def fetch(self, needed: Iterable[request_windows.Window], *, shared: bool = False) -> None:
        """Fetch the missing bytes of these windows, with several requests in parallel.

        Args:
            needed: offset of the first byte of each window, and of the byte after its last.
            shared: keep the parts where other processes find them, and resume theirs; the caller
                holds the lock of ``key``.

        Raises:
            FetchError: a request failed; the bytes that have arrived are kept. RefusedError: the
                file changed.
        """
        missing: list[request_windows.Window] = []
        for begin, end in request_windows.merge(needed):
            missing += self._without_parts(begin, min(end, self.size))
        # A file gets REQUESTS requests in all. One or two of them have fetched the directory.
        asked = request_windows.plan_requests(
            missing, streams=max(1, request_windows.REQUESTS - self.requests)
        )
        self.requests += len(asked)
        folder = self._shared if shared else self._private
        stopped = threading.Event()
        with ThreadPoolExecutor(request_windows.STREAMS) as pool:
            try:
                # If a signal arrived while a thread starts, the pool would not know the thread and
                # could not wait for it.
                with signals.deferred():
                    jobs = [
                        pool.submit(self._fetch, folder, begin, end, stopped)
                        for begin, end in asked
                    ]
                wait(jobs)
            except BaseException:
                # A signal interrupts only the main thread. The others would fetch everything to the
                # end.
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for job in jobs:
            job.result()

    def _fetch(self, folder: Path, begin: int, end: int, stopped: threading.Event) -> None:
        def progress(size: int, /) -> None:
            self._progress(size)
            if stopped.is_set():
                raise CancelledError

        path = self._path(folder, begin, end)
        download.fetch_window(self._transport, self.url, path, begin, end, self.validator, progress)
        self._parts[begin, end] = path

    def _without_parts(self, begin: int, end: int) -> list[request_windows.Window]:
        left = []
        for first, after in sorted(self._parts):
            if first < end and after > begin:
                left.append((begin, first))
                begin = max(begin, after)
        return [window for window in [*left, (begin, end)] if window[0] < window[1]]

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """The position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position.

        Raises:
            OSError: the new position is negative, as for a local file.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(22, "negative seek position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        """Read into the buffer, fetching missing bytes; short only at the end of the file.

        Raises:
            FetchError: as :meth:`fetch`. RefusedError: as :meth:`fetch`, or the read is too large.
        """
        view = memoryview(buffer)
        begin, end = self._position, min(self._position + len(view), self.size)
        if begin >= end:
            return 0
        bounds.check_size(end - begin, bounds.DIRECTORY, self.url, "one read")
        if self._without_parts(begin, end):
            self.fetch([(begin, end)])
        for (first, after), path in sorted(self._parts.items()):
            if first <= begin < after and begin < end:
                with path.open("rb") as stream:
                    stream.seek(begin - first)
                    begin += stream.readinto(
                        view[begin - self._position : min(end, after) - self._position]
                    )
        count = begin - self._position
        self._position = begin
        return count

    def forget(self) -> None:
        """Remove the parts: they are no longer needed, or they are wrong."""
        for path in self._parts.values():
            path.unlink(missing_ok=True)
        self._parts.clear()


def open_ranged(
    transport: Transport, url: str, folders: tuple[Path, Path], progress: Progress
) -> tuple[RemoteFile | None, Validator]:
    """Open a remote file; None instead of it if the server ignores ranges.

    Args:
        transport: makes the requests.
        url: http or https.
        folders: for parts of this process, and for parts that other processes can resume.
        progress: told of each piece.

    Returns:
        The file and its version.

    Raises:
        FetchError, RefusedError: as :func:`vllm_build.reuse.net.download.ask`.
        AbsentError: no such file.
    """
    validator, begin, data = download.fetch_tail(transport, url, TAIL)
    if validator.size is not None:
        bounds.check_size(validator.size, bounds.ARCHIVE, url, "the file")
    if data is None or validator.size is None:
        return None, validator
    progress(len(data))
    file = RemoteFile(transport, url, validator, validator.size, folders, progress)
    file.requests = 1
    file.keep(begin, data)
    return file, validator


def open_remote(
    transport: Transport, url: str, cache: Cache, folder: Path, progress: Progress
) -> RemoteFile | Path:
    """Open a remote file; if the server ignores ranges, fetch a copy and return its path.

    Args:
        transport: makes the requests.
        url: http or https.
        cache: for copies, and for parts of downloads.
        folder: for parts of a file without a key, which no other process can use.
        progress: told of each piece.

    Raises:
        FetchError, RefusedError: as :func:`vllm_build.reuse.net.download.ask`.
        AbsentError: no such file.
    """
    file, validator = open_ranged(transport, url, (folder, cache.root / "parts"), progress)
    if file is not None:
        return file
    with cache.alone(key_of("copy", url)):
        return cache.recall(_copy_key(url, validator)) or _copy(
            transport, url, cache, folder, progress
        )


def _copy_key(url: str, validator: Validator) -> str:
    return key_of("copy", url, validator)


def _copy(
    transport: Transport,
    url: str,
    cache: Cache,
    folder: Path,
    progress: Progress,
    sha256: str | None = None,
) -> Path:
    """Fetch a whole file; the caller holds the lock that guards the part."""

    def place(validator: Validator) -> Path:
        # If the sha256 is known, the part has another name, because another lock guards it.
        return (
            cache.part(key_of("copy", url, validator, sha256))
            if validator.condition
            else folder / "copy"
        )

    part, validator = download.fetch_whole(transport, url, place, progress=progress)
    found = sha256_of(part)
    if sha256 and found != sha256:
        part.unlink()
        raise RefusedError("sha256", url, f"the file has sha256 {found}", expected=sha256)
    if validator.condition:
        cache.remember(_copy_key(url, validator), found)
    return cache.add(part, found)


def copy_of(
    transport: Transport, url: str, cache: Cache, folder: Path, progress: Progress, sha256: str
) -> Path:
    """The path of a whole copy in the cache; makes no request if the cache has the file.

    Args:
        transport: makes the requests.
        url: http or https.
        cache: receives the copy.
        folder: for the download of a file without a key.
        progress: told of each piece.
        sha256: required sha256 of the file.

    Raises:
        FetchError: as :func:`vllm_build.reuse.net.download.ask`. RefusedError: the same, or the
            file has another sha256. AbsentError: no such file.
    """
    with cache.alone(sha256):
        return cache.find(sha256) or _copy(transport, url, cache, folder, progress, sha256)
