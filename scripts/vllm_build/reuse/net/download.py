# SPDX-License-Identifier: Apache-2.0
"""Downloads that resume where an earlier attempt or an earlier process stopped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from vllm_build.reuse.net.http_answer import BrokenError, changed
from vllm_build.reuse.net.transport import AbsentError
from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import FetchError
from vllm_build.util.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_build.reuse.net.http_answer import Answer, Validator
    from vllm_build.reuse.net.transport import Transport


class Progress(Protocol):
    """A callback for received bytes."""

    def __call__(self, size: int, /) -> None:
        """``size`` more bytes have arrived."""


#: An attempt that brought fewer bytes counts as failed. Otherwise a server that drops every
#: connection after a few bytes would cause endless attempts.
_WORTH_IT = 64 * bounds.KIB
_LONGEST_PAUSE = 20.0


def _ignore_progress(_: int, /) -> None:
    pass


def ask(transport: Transport, url: str, window: str | None = None) -> Answer:
    """Call ``Transport.ask`` until it succeeds or the attempts are used up.

    Raises:
        FetchError: the last attempt failed, or the server refuses. AbsentError, RefusedError: as
            ``Transport.ask``.
    """
    return _repeat(transport, lambda: transport.ask(url, window), lambda: 0)


def _repeat(
    transport: Transport, attempt: Callable[[], Answer], received: Callable[[], int]
) -> Answer:
    """Repeat ``attempt`` until it succeeds or ``transport.attempts`` in a row have failed.

    ``received`` returns the number of bytes received so far. An attempt that brought at least
    ``_WORTH_IT`` of them restarts the count.
    """
    failed, before = 0, received()
    while True:
        try:
            return attempt()
        except BrokenError as error:
            failed = 1 if received() >= before + _WORTH_IT else failed + 1
            before = max(before, received())
            if failed >= transport.attempts:
                raise FetchError(
                    f"{error} ({failed} failed attempts in a row)",
                    expected="an answer",
                    remedy="try again later: the bytes that have arrived are kept",
                ) from error
            time.sleep(min(transport.pause * 2 ** (failed - 1), _LONGEST_PAUSE))


def fetch_small(transport: Transport, url: str, limit: int) -> bytes | None:
    """Fetch a small file; None if it does not exist.

    Raises:
        FetchError: as :func:`ask`. RefusedError: as :func:`ask`, or the file is larger than
            ``limit``.
    """
    got = bytearray()

    def attempt() -> Answer:
        got.clear()
        answer = transport.ask(url)
        try:
            for chunk in answer.chunks(limit):
                got.extend(chunk)
        finally:
            answer.close()
        return answer

    try:
        _repeat(transport, attempt, lambda: 0)
    except AbsentError:
        return None
    return bytes(got)


def fetch_tail(transport: Transport, url: str, size: int) -> tuple[Validator, int, bytes | None]:
    """Fetch the last ``size`` bytes of a file.

    Returns:
        The file's version, the offset of the first byte, and the bytes; None instead of the bytes
        if the server ignores ranges.

    Raises:
        FetchError, RefusedError: as :func:`ask`. AbsentError: no such file.
    """
    got = bytearray()

    def attempt() -> Answer:
        got.clear()
        answer = transport.ask(url, f"-{size}")
        try:
            for chunk in answer.chunks(size) if answer.ranged else ():
                got.extend(chunk)
        finally:
            answer.close()
        return answer

    answer = _repeat(transport, attempt, lambda: 0)
    return answer.validator, answer.first, bytes(got) if answer.ranged else None


def fetch_window(
    transport: Transport,
    url: str,
    part: Path,
    begin: int,
    end: int,
    validator: Validator,
    progress: Progress = _ignore_progress,
) -> None:
    """Fetch bytes ``begin`` to ``end`` (exclusive) of a remote file.

    They are appended to the file ``part``, which may already have the first of them.

    Raises:
        FetchError: too many attempts brought nothing. RefusedError: the remote file changed, or the
            server stopped honouring ranges.
    """

    def received() -> int:
        return part.stat().st_size if part.exists() else 0

    def attempt() -> Answer:
        start = begin + received()
        answer = transport.ask(url, f"{start}-{end - 1}", validator)
        try:
            if not answer.ranged:
                raise (
                    changed(url, validator, answer.validator)
                    if validator.condition
                    else _unranged(url)
                )
            _append(answer, part, end - start, progress)
        finally:
            answer.close()
        if received() < end - begin:
            raise BrokenError(f"{url}: the server sent fewer bytes than requested")
        return answer

    while received() > end - begin:
        part.unlink()
    if received() < end - begin:
        _repeat(transport, attempt, received)


def _unranged(url: str) -> RefusedError:
    return RefusedError(
        "range",
        url,
        "the server honoured one range request and ignored the next",
        expected="a server that honours every range request, or none",
    )


def _append(answer: Answer, part: Path, limit: int, progress: Progress) -> None:
    with disk_errors(part.parent), part.open("ab") as stream:
        for chunk in answer.chunks(limit):
            stream.write(chunk)
            # A killed process must leave the bytes in the file, not in its buffer.
            stream.flush()
            progress(len(chunk))


def fetch_whole(
    transport: Transport,
    url: str,
    place: Callable[[Validator], Path],
    limit: int = bounds.ARCHIVE,
    progress: Progress = _ignore_progress,
) -> tuple[Path, Validator]:
    """Fetch a whole file.

    Args:
        transport: makes the requests.
        url: http or https.
        place: returns the path to write to for a version of the file.
        limit: maximum size in bytes.
        progress: told of each piece.

    Returns:
        The path, and the version that it has.

    Raises:
        FetchError: as :func:`ask`. RefusedError: as :func:`ask`, or the file is larger than
            ``limit``. AbsentError: no such file.
    """
    answer = ask(transport, url, "0-")
    part, validator = place(answer.validator), answer.validator
    if answer.ranged and validator.size is not None:
        bounds.check_size(validator.size, limit, url, "the file")
        try:
            if not part.exists():
                _append(answer, part, limit, progress)
        except BrokenError:
            pass
        finally:
            answer.close()
        fetch_window(transport, url, part, 0, validator.size, validator, progress)
        return part, validator
    answer.close()

    def attempt() -> Answer:
        part.unlink(missing_ok=True)
        again = transport.ask(url, None, validator)
        try:
            _append(again, part, limit, progress)
        finally:
            again.close()
        return again

    _repeat(transport, attempt, lambda: 0)
    return part, validator
