# SPDX-License-Identifier: Apache-2.0
"""Downloads that go on where they broke off, after another attempt as after another process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from vllm_build.reuse.net.transport import (
    AbsentError,
    Answer,
    BrokenError,
    Transport,
    Validator,
    changed,
)
from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import FetchError
from vllm_build.util.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Progress(Protocol):
    """Who is told of each piece that arrived."""

    def __call__(self, size: int, /) -> None:
        """``size`` more bytes are here."""


#: An attempt that brought less is one more that failed: a server that drops every connection at
#: once must not keep us for ever.
_WORTH_IT = 64 * bounds.KIB
_LONGEST_PAUSE = 20.0


def _silent(_: int, /) -> None:
    pass


def ask(transport: Transport, url: str, window: str | None = None) -> Answer:
    """``Transport.ask``, again while it is worth it.

    Raises:
        FetchError: the last attempt failed, or the server refuses. AbsentError, RefusedError: as
            there.
    """
    return _again(transport, lambda: transport.ask(url, window), lambda: 0)


def _again(transport: Transport, attempt: Callable[[], Answer], done: Callable[[], int]) -> Answer:
    """Repeat ``attempt``; attempts count anew after each that brought something worth it, by what ``done`` says."""
    failed, before = 0, done()
    while True:
        try:
            return attempt()
        except BrokenError as error:
            failed = 1 if done() >= before + _WORTH_IT else failed + 1
            before = max(before, done())
            if failed >= transport.attempts:
                raise FetchError(
                    f"{error}, {failed} attempts in a row",
                    expected="an answer",
                    remedy="try again later: what has arrived is kept",
                ) from error
            time.sleep(min(transport.pause * 2 ** (failed - 1), _LONGEST_PAUSE))


def small(transport: Transport, url: str, limit: int) -> bytes | None:
    """A small file whole; None when there is none.

    Raises:
        FetchError, RefusedError: of the transport; it is larger than ``limit``.
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
        _again(transport, attempt, lambda: 0)
    except AbsentError:
        return None
    return bytes(got)


def tail(transport: Transport, url: str, size: int) -> tuple[Validator, int, bytes | None]:
    """The last ``size`` bytes of a file: its version, the offset of the first, and the bytes; None where the server ignores ranges.

    Raises:
        FetchError, RefusedError: of the transport. AbsentError: no such file.
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

    answer = _again(transport, attempt, lambda: 0)
    return answer.validator, answer.first, bytes(got) if answer.ranged else None


def window(
    transport: Transport,
    url: str,
    part: Path,
    begin: int,
    end: int,
    validator: Validator,
    progress: Progress = _silent,
) -> None:
    """Bytes ``begin`` to ``end`` (exclusive) of a remote file into ``part``, after those that it has.

    Raises:
        FetchError: too many attempts brought nothing. RefusedError: the file changed, or the server
            stopped to honour ranges.
    """

    def have() -> int:
        return part.stat().st_size if part.exists() else 0

    def attempt() -> Answer:
        start = begin + have()
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
        if have() < end - begin:
            raise BrokenError(f"{url}: the server sent less than was asked for")
        return answer

    while have() > end - begin:
        part.unlink()
    if have() < end - begin:
        _again(transport, attempt, have)


def _unranged(url: str) -> RefusedError:
    return RefusedError(
        "range",
        url,
        "the server honoured a range and ignores the next",
        expected="a server of one mind",
    )


def _append(answer: Answer, part: Path, limit: int, progress: Progress) -> None:
    with disk_errors(part.parent), part.open("ab") as stream:
        for chunk in answer.chunks(limit):
            stream.write(chunk)
            # What a killed process leaves must be in the file, not in its buffer.
            stream.flush()
            progress(len(chunk))


def whole(
    transport: Transport,
    url: str,
    place: Callable[[Validator], Path],
    limit: int = bounds.ARCHIVE,
    progress: Progress = _silent,
) -> tuple[Path, Validator]:
    """The whole file into the part that ``place`` has for its version; returns both.

    Raises:
        FetchError, RefusedError: of the transport. AbsentError: no such file.
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
        window(transport, url, part, 0, validator.size, validator, progress)
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

    _again(transport, attempt, lambda: 0)
    return part, validator
