# SPDX-License-Identifier: Apache-2.0
"""One HTTP request at a time, with a range, a validator, and no trust.

urllib of the standard library: this runs in pip's isolated build environment, where a client of our
own choice would be one more download before the first byte, and three requests a file gain nothing
from a pool of connections. It honours the proxy variables and checks certificates.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from vllm_build.reuse.net import login
from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import FetchError
from vllm_build.util.redaction import excerpt, redact

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 18
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_PARTIAL, _UNSATISFIABLE = 206, 416
_LOGIN = (401, 403, 407)
#: Answers that the next attempt may not get.
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


class BrokenError(Exception):
    """The connection broke, stalled, or the server was busy: worth another attempt."""


class AbsentError(Exception):
    """The server says that there is no such file."""


@dataclass(frozen=True)
class Validator:
    """What tells one version of a remote file from another; None where the server does not say."""

    etag: str | None
    modified: str | None
    size: int | None

    @property
    def condition(self) -> str | None:
        """The value for ``If-Range`` (RFC 9110, 13.1.5), which takes no weak tag."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def same(self, other: Validator) -> bool:
        """Whether nothing that both versions say differs."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified), (self.size, other.size))
        return all(a == b for a, b in pairs if a is not None and b is not None)


class _Plain(urllib.request.HTTPRedirectHandler):
    """Redirects are answers here: where they may lead is ours to decide."""

    def http_error_302(self, *_: Any, **__: Any) -> None:
        """Leave it to the handler that raises: this one would parse the new address, and follow it."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


@dataclass
class Answer:
    """A response whose body has not been read.

    Attributes:
        url: that answered, after redirects.
        first: offset of the body's first byte in the file.
        length: of the body; None when the server does not say.
        ranged: whether the server honours ranges.
        validator: of the file.
    """

    url: str
    first: int
    length: int | None
    ranged: bool
    validator: Validator
    response: Any
    slowest: float

    def chunks(self, limit: int) -> Iterator[bytes]:
        """The body, piece by piece.

        Raises:
            BrokenError: it ends early, stalls or trickles.
            RefusedError: it is longer than ``limit``.
        """
        begin, got = time.monotonic(), 0
        while True:
            try:
                # read1: what has arrived, at once, so that a broken connection loses nothing.
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
                    expected="no more",
                )
            if got > limit:
                raise RefusedError(
                    "size-limit",
                    self.url,
                    "the server does not end",
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
        """Drop the connection."""
        self.response.close()


def check_url(url: str, before: str | None = None) -> None:
    """Refuse addresses that are not http or https, or that leave https.

    Raises:
        RefusedError: the address, or the one that a redirect leads to, is refused.
    """
    old = urlsplit(before).scheme if before else None
    try:
        parts = urlsplit(url)
        if (
            parts.scheme in ("http", "https")
            and not (old == "https" and parts.scheme == "http")
            and parts.hostname
            and parts.port != 0
        ):
            return
    except ValueError:
        pass
    check = "redirect" if before else "scheme"
    raise RefusedError(
        check,
        before or url,
        f"the address {excerpt(url)!r}",
        expected="https, or http that http led to",
    )


def _joined(url: str, target: str) -> str:
    """The address that a redirect leads to.

    Raises:
        RefusedError: as :func:`check_url`.
    """
    try:
        joined = urljoin(url, target)
    except ValueError:
        joined = target
    check_url(joined, url)
    return joined


@dataclass(frozen=True)
class Transport:
    """How to ask.

    Attributes:
        timeout: seconds without a byte that count as a broken connection.
        attempts: in a row without a new byte before giving up.
        pause: seconds before the second attempt; doubles with each.
    """

    timeout: float = 30.0
    attempts: int = 4
    pause: float = 0.5

    def ask(
        self, url: str, window: str | None = None, validator: Validator | None = None
    ) -> Answer:
        """One request.

        Args:
            url: http or https.
            window: of a ``Range`` header, such as ``0-99`` or ``-65536``; None for the whole file.
            validator: the version that the answer must be of.

        Raises:
            BrokenError: worth another attempt. AbsentError: no such file.
            FetchError: the server refuses. RefusedError: the answer is not what was asked for, or
                of another version.
        """
        headers = {"Accept-Encoding": "identity", "User-Agent": "vllm-build"}
        if window:
            headers["Range"] = f"bytes={window}"
            if validator and validator.condition:
                headers["If-Range"] = validator.condition
        response, final = self._open(url, headers)
        try:
            return self._answer(response, url, final, window, validator)
        except BaseException:
            response.close()
            raise

    def _open(self, url: str, headers: dict[str, str]) -> tuple[Any, str]:
        opener = urllib.request.build_opener(_Plain)
        check_url(url)
        now = url
        for _ in range(_MOST_REDIRECTS + 1):
            address, secret = login.authorization(now, url)
            request = urllib.request.Request(address, headers=headers)  # noqa: S310 - check_url
            for name, value in secret.items():
                request.add_unredirected_header(name, value)
            try:
                return opener.open(request, timeout=self.timeout), now
            except urllib.error.HTTPError as error:
                target = error.headers.get("Location")
                error.close()
                if error.code not in _REDIRECTS or not target:
                    raise _status(error.code, now) from error
                now = _joined(now, target)
            except (http.client.InvalidURL, UnicodeError) as error:
                raise RefusedError(
                    "scheme",
                    url,
                    f"the address {excerpt(now)!r}: {redact(str(error))}",
                    expected="an address as RFC 3986 spells it",
                ) from error
            except (OSError, http.client.HTTPException) as error:
                raise BrokenError(
                    f"{now}: {getattr(error, 'reason', None) or str(error) or type(error).__name__}"
                ) from error
        raise RefusedError(
            "redirect",
            url,
            f"more than {_MOST_REDIRECTS} redirects",
            expected="an address that answers",
        )

    def _answer(
        self, response: Any, url: str, final: str, window: str | None, validator: Validator | None
    ) -> Answer:
        headers = response.headers
        if (encoding := headers.get("Content-Encoding", "identity")).lower() != "identity":
            raise RefusedError(
                "encoding",
                url,
                f"the server sends the encoding {encoding!r}",
                expected="the file's own bytes",
            )
        said = headers.get("Content-Length", "")
        length = int(said) if re.fullmatch(r"[0-9]{1,18}", said) else None
        first, total, ranged = 0, length, response.status == _PARTIAL
        if ranged:
            first, length, total = _range(headers.get("Content-Range", ""), window, url)
        found = Validator(headers.get("ETag"), headers.get("Last-Modified"), total)
        if validator is not None and not found.same(validator):
            raise changed(url, validator, found)
        return Answer(final, first, length, ranged, found, response, 2 * self.timeout)


def _status(code: int, url: str) -> Exception:
    if code in _TRANSIENT:
        return BrokenError(f"{url}: HTTP status {code}")
    if code in (404, 410):
        return AbsentError(url)
    if code == _UNSATISFIABLE:
        return RefusedError(
            "range",
            url,
            "the server has no such range: the file is empty, or shorter than it was",
            expected="a whole file",
        )
    if code in _LOGIN:
        return FetchError(
            f"{url}: HTTP status {code}",
            expected="a name and a password that the server accepts",
            remedy="name them in the address, percent-encoded (https://user:password@host/...), or "
            "in ~/.netrc",
        )
    return FetchError(
        f"{url}: HTTP status {code}", expected="200 or 206", remedy="check the address"
    )


def changed(url: str, before: Validator, now: Validator) -> RefusedError:
    """The error for a file that is not the one of the first answer."""
    return RefusedError(
        "changed",
        url,
        f"the file changed between two requests, from {before} to {now}",
        expected="one file",
        remedy="start again",
    )


def _range(text: str, window: str | None, url: str) -> tuple[int, int, int]:
    """First byte, length of the body, and size of the file, from ``Content-Range``; all checked against what was asked."""
    match = _CONTENT_RANGE.fullmatch(text)
    wrong = RefusedError(
        "range",
        url,
        f"asked for bytes {window}, the server answered {excerpt(text, 80)!r}",
        expected="the range that was asked for",
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
