# SPDX-License-Identifier: Apache-2.0
"""Single HTTP requests, with a range and a validator; every answer is checked.

This runs in pip's isolated build environment, so it uses urllib of the standard library: another
client would be one more download before the first byte, and with three requests per file a
connection pool gains nothing. urllib honours the proxy variables and checks certificates.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from vllm_build.reuse.net import http_answer, login
from vllm_build.reuse.net.http_answer import BrokenError
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import FetchError
from vllm_build.util.redaction import excerpt, redact

if TYPE_CHECKING:
    from vllm_build.reuse.net.http_answer import Answer, Validator

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_UNSATISFIABLE = 416
_LOGIN = (401, 403, 407)
#: Status codes that the next attempt may not get.
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class AbsentError(Exception):
    """The server has no such file."""


class LoginError(FetchError):
    """The server wants credentials, or other ones."""


class _Plain(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: ``Transport`` decides where a redirect may lead."""

    def http_error_302(self, *_: Any, **__: Any) -> None:
        """Do nothing, so that the default handler raises HTTPError for the redirect."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def check_url(url: str, before: str | None = None) -> None:
    """Refuse addresses that are not http or https, and redirects from https to http.

    Args:
        url: the address.
        before: the address that redirected there; None for the first address.

    Raises:
        RefusedError: the address is refused.
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
        expected="an https address, or an http address that https did not redirect to",
    )


def _joined(url: str, target: str) -> str:
    """The target of a redirect, as an absolute address.

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
    """Makes requests.

    Attributes:
        timeout: seconds without a byte after which a connection counts as broken.
        attempts: failed attempts in a row after which :mod:`~vllm_build.reuse.net.download` gives
            up.
        pause: seconds before the second attempt; doubles with each further one.
        netrc: path of the netrc file with passwords; empty means ``~/.netrc``.
        certificates: path of a file with the trusted certificates; empty means the system's.
    """

    timeout: float = 30.0
    attempts: int = 4
    pause: float = 0.5
    netrc: str = ""
    certificates: str = ""

    def ask(
        self, url: str, window: str | None = None, validator: Validator | None = None
    ) -> Answer:
        """Make one request.

        Args:
            url: http or https.
            window: range of bytes, such as ``0-99`` or ``-65536``; None for the whole file.
            validator: required version of the file; None accepts any.

        Raises:
            BrokenError: another attempt may succeed. AbsentError: no such file.
            FetchError: the server refuses. RefusedError: the answer does not match the request, or
                the file has another version.
        """
        headers = {"Accept-Encoding": "identity", "User-Agent": "vllm-build"}
        if window:
            headers["Range"] = f"bytes={window}"
            if validator and validator.condition:
                headers["If-Range"] = validator.condition
        response, final = self._open(url, headers)
        try:
            return http_answer.read(response, url, final, window, validator, 2 * self.timeout)
        except BaseException:
            response.close()
            raise

    def _opener(self) -> urllib.request.OpenerDirector:
        if not self.certificates:
            return urllib.request.build_opener(_Plain)
        try:
            context = ssl.create_default_context(cafile=self.certificates)
        except OSError as error:
            raise FetchError(
                f"{self.certificates}: {error}", expected="a file with trusted certificates"
            ) from error
        return urllib.request.build_opener(_Plain, urllib.request.HTTPSHandler(context=context))

    def _open(self, url: str, headers: dict[str, str]) -> tuple[Any, str]:
        opener = self._opener()
        check_url(url)
        now = url
        for _ in range(_MOST_REDIRECTS + 1):
            address, secret = login.authorization(now, url, self.netrc)
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
                    expected="a valid address (RFC 3986)",
                ) from error
            except (OSError, http.client.HTTPException) as error:
                raise BrokenError(
                    f"{now}: {getattr(error, 'reason', None) or str(error) or type(error).__name__}"
                ) from error
        raise RefusedError(
            "redirect",
            url,
            f"more than {_MOST_REDIRECTS} redirects",
            expected=f"at most {_MOST_REDIRECTS}",
        )


def _status(code: int, url: str) -> Exception:
    if code in _TRANSIENT:
        return BrokenError(f"{url}: HTTP status {code}")
    if code in (404, 410):
        return AbsentError(url)
    if code == _UNSATISFIABLE:
        return RefusedError(
            "range",
            url,
            "the server does not have the requested range: "
            "the file is empty, or shorter than before",
            expected="a complete file",
        )
    if code in _LOGIN:
        return LoginError(
            f"{url}: HTTP status {code}",
            expected="a name and a password that the server accepts",
            remedy="add them to the address, percent-encoded (https://user:password@host/...), "
            "or to ~/.netrc",
        )
    return FetchError(
        f"{url}: HTTP status {code}", expected="200 or 206", remedy="check the address"
    )
