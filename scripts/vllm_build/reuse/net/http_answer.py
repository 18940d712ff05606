# SPDX-License-Identifier: Apache-2.0
"""Answers to HTTP requests: their headers and bodies, checked against the request."""

from __future__ import annotations

import http.client
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 18
_PARTIAL = 206
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


class BrokenError(Exception):
    """The connection broke or stalled, or the server was busy: another attempt may succeed."""


@dataclass(frozen=True)
class Validator:
    """Identifies a version of a remote file; a field is None if the server does not say."""

    etag: str | None
    modified: str | None
    size: int | None

    @property
    def condition(self) -> str | None:
        """The value for ``If-Range`` (RFC 9110, 13.1.5), which allows no weak tags."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def same(self, other: Validator) -> bool:
        """Whether all fields that both versions have are equal."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified), (self.size, other.size))
        return all(a == b for a, b in pairs if a is not None and b is not None)


@dataclass
class Answer:
    """A response whose body has not been read.

    Attributes:
        url: the address that answered, after redirects.
        first: offset of the body's first byte in the file.
        length: size of the body in bytes; None if the server does not say.
        ranged: whether the server honoured the range.
        validator: version of the file.
        response: of urllib.
        slowest: seconds after which an average below 1 KiB/s counts as a broken connection.
    """

    url: str
    first: int
    length: int | None
    ranged: bool
    validator: Validator
    response: Any
    slowest: float

    def chunks(self, limit: int) -> Iterator[bytes]:
        """Read the body piece by piece.

        Raises:
            BrokenError: the body ends early, stalls or is too slow.
            RefusedError: the body is longer than announced, or than ``limit``.
        """
        begin, got = time.monotonic(), 0
        while True:
            try:
                # read1 returns what has arrived, so a connection that breaks loses nothing.
                chunk = self.response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise BrokenError(
                    f"{self.url}: {str(error) or type(error).__name__} after {got} bytes"
                ) from error
            if not chunk:
                break
            got += len(chunk)
            if self.length is not None and got > self.length:
                raise RefusedError(
                    "size",
                    self.url,
                    f"the server sends more than the {self.length} bytes it announced",
                    expected=f"{self.length} bytes",
                )
            if got > limit:
                raise RefusedError(
                    "size-limit",
                    self.url,
                    "the server sends too much",
                    expected=f"at most {limit} bytes",
                )
            yield chunk
            if (took := time.monotonic() - begin) > self.slowest and got < took * bounds.KIB:
                raise BrokenError(f"{self.url}: {got} bytes in {took:.0f} s")
        if self.length is not None and got < self.length:
            raise BrokenError(
                f"{self.url}: the connection ended after {got} of {self.length} bytes"
            )

    def close(self) -> None:
        """Close the connection."""
        self.response.close()


def read(
    response: Any,
    url: str,
    final: str,
    window: str | None,
    validator: Validator | None,
    slowest: float,
) -> Answer:
    """Check the headers of a response.

    Args:
        response: of urllib; its body has not been read.
        url: address of the first request.
        final: address that answered, after redirects.
        window: requested range of bytes; None for the whole file.
        validator: required version of the file; None accepts any.
        slowest: as in :class:`Answer`.

    Raises:
        RefusedError: the answer does not match the request, or the file has another version.
    """
    headers = response.headers
    if (encoding := headers.get("Content-Encoding", "identity")).lower() != "identity":
        raise RefusedError(
            "encoding",
            url,
            f"the server sends the content encoding {encoding!r}",
            expected="the unencoded file",
        )
    said = headers.get("Content-Length", "")
    length = int(said) if re.fullmatch(r"[0-9]{1,18}", said) else None
    first, total, ranged = 0, length, response.status == _PARTIAL
    if ranged:
        first, length, total = _parse_range(headers.get("Content-Range", ""), window, url)
    found = Validator(headers.get("ETag"), headers.get("Last-Modified"), total)
    if validator is not None and not found.same(validator):
        raise changed(url, validator, found)
    return Answer(final, first, length, ranged, found, response, slowest)


def changed(url: str, before: Validator, now: Validator) -> RefusedError:
    """The error for a file that changed after the first request."""
    return RefusedError(
        "changed",
        url,
        f"the file changed between two requests, from {before} to {now}",
        expected="the same version for all requests",
        remedy="start again",
    )


def _parse_range(text: str, window: str | None, url: str) -> tuple[int, int, int]:
    """Parse ``Content-Range`` and compare it with the requested window.

    Returns:
        Offset of the first byte, length of the body, and size of the file.

    Raises:
        RefusedError: it is malformed, or not the requested range.
    """
    match = _CONTENT_RANGE.fullmatch(text)
    wrong = RefusedError(
        "range",
        url,
        f"bytes {window} were requested, and the server sent {excerpt(text, 80)!r}",
        expected="the requested range",
    )
    if not match or window is None:
        raise wrong
    first, last, total = map(int, match.groups())
    asked, _, end = window.partition("-")
    fits = (
        first == max(0, total - int(end)) and last == total - 1
        if not asked
        else first == int(asked) and (not end or last <= int(end))
    )
    if not fits or not first <= last < total:
        raise wrong
    return first, last - first + 1, total
