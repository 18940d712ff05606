# SPDX-License-Identifier: Apache-2.0
"""A remote file to read from as from one on disk: what is read and not here is fetched by ranges, in parts that outlive the process."""

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
    from vllm_build.reuse.net.reuse_cache import Cache
    from vllm_build.reuse.net.transport import Transport, Validator

#: The end of an archive that is asked for first: the directory of a wheel with some thousand
#: members, in one request with all else that has to be known of the file. A thousandth of a wheel
#: with kernels for GPUs.
TAIL = 256 * bounds.KIB


class RemoteFile(io.RawIOBase):
    """A remote file of a server that honours ranges.

    Attributes:
        url: where it lies.
        validator: the version that all requests are for.
        size: in bytes.
        key: a name for this version of this file; None where the server says nothing that would
            tell two versions apart.
        requests: how many were made, without repeated attempts.
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
        """Take in bytes that are here already."""
        path = self._path(self._private, begin, begin + len(data))
        path.write_bytes(data)
        self._parts[begin, begin + len(data)] = path

    def _path(self, folder: Path, begin: int, end: int) -> Path:
        return folder / f"{(self.key or 'unnamed')[:32]}-{begin}-{end}"

    def fetch(self, needed: Iterable[request_windows.Window], *, shared: bool = False) -> None:
        """Fetch what of these windows is not here yet, several at once.

        Args:
            needed: first byte and the byte after the last of each.
            shared: keep it where another process finds it, and go on where one broke off; the
                caller holds the lock of ``key``.

        Raises:
            FetchError: a request failed; what has arrived is kept. RefusedError: the file changed.
        """
        missing: list[request_windows.Window] = []
        for begin, end in request_windows.merged(needed):
            missing += self._without_parts(begin, min(end, self.size))
        # Two requests of the three that are made when all goes well are for this, and one where the
        # directory needed one.
        asked = request_windows.requests(
            missing, streams=max(1, request_windows.REQUESTS - self.requests)
        )
        self.requests += len(asked)
        folder = self._shared if shared else self._private
        stopped = threading.Event()
        with ThreadPoolExecutor(request_windows.STREAMS) as pool:
            try:
                # A signal while a thread starts would leave that thread unknown to the pool, which
                # could not wait for it.
                with signals.deferred():
                    jobs = [
                        pool.submit(self._fetch, folder, begin, end, stopped)
                        for begin, end in asked
                    ]
                wait(jobs)
            except BaseException:
                # A signal reaches the main thread alone; the others would go on to the end of the
                # file.
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
        download.window(self._transport, self.url, path, begin, end, self.validator, progress)
        self._parts[begin, end] = path

    def _without_parts(self, begin: int, end: int) -> list[request_windows.Window]:
        left = []
        for first, after in sorted(self._parts):
            if first < end and after > begin:
                left.append((begin, first))
                begin = max(begin, after)
        return [window for window in [*left, (begin, end)] if window[0] < window[1]]

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; before the beginning is an error of the archive, as on disk."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(22, "negative seek position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        """Fill the buffer from the position on, from the parts, after fetching what they lack; short at the end of the file alone."""
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
        """Remove the parts: they are used up, or they are not what they should be."""
        for path in self._parts.values():
            path.unlink(missing_ok=True)
        self._parts.clear()


def open_remote(
    transport: Transport, url: str, cache: Cache, folder: Path, progress: Progress
) -> RemoteFile | Path:
    """The remote file to read from, or, where the server ignores ranges, the path of a copy.

    Args:
        transport: how to ask.
        url: http or https.
        cache: for copies, and for parts of downloads.
        folder: for parts whose version has no name, which nobody else can use.
        progress: told of each piece.

    Raises:
        FetchError, RefusedError: of the transport. AbsentError: no such file.
    """
    validator, begin, data = download.tail(transport, url, TAIL)
    if validator.size is not None:
        bounds.check_size(validator.size, bounds.ARCHIVE, url, "the file")
    if data is not None and validator.size is not None:
        progress(len(data))
        file = RemoteFile(
            transport, url, validator, validator.size, (folder, cache.root / "parts"), progress
        )
        file.requests = 1
        file.keep(begin, data)
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
    """The caller holds a lock that everybody takes who may want the same part."""

    def place(validator: Validator) -> Path:
        # Another file where the sha256 is known: another lock guards it.
        return (
            cache.part(key_of("copy", url, validator, sha256))
            if validator.condition
            else folder / "copy"
        )

    part, validator = download.whole(transport, url, place, progress=progress)
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
    """A whole copy of a remote file in the cache; one that is there needs no request.

    Args:
        transport: how to ask.
        url: http or https.
        cache: that receives the copy.
        folder: for the download of a version that has no name.
        progress: told of each piece.
        sha256: that the file must have.

    Raises:
        FetchError, RefusedError: of the transport, or another sha256. AbsentError: no such file.
    """
    with cache.alone(sha256):
        return cache.find(sha256) or _copy(transport, url, cache, folder, progress, sha256)
