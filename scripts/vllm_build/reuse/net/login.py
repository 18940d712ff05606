# SPDX-License-Identifier: Apache-2.0
"""Credentials for servers, found as pip finds them.

They come from ``user:password@`` in an address, percent-encoded, or else from a netrc file.
"""

from __future__ import annotations

import base64
import netrc
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

_USUAL_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """A server: scheme, host in lower case, and port."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, url: str) -> Origin:
        """The server of an address that ``transport.check_url`` has accepted."""
        parts = urlsplit(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or _USUAL_PORTS.get(parts.scheme))

    def trusts(self, other: Origin) -> bool:
        """Whether credentials for this server may be sent to ``other``.

        They may if ``other`` is the same server, or the same host over https where this one is
        http, both on the default ports.
        """
        upgraded = (self.scheme, self.port, other.scheme, other.port) == ("http", 80, "https", 443)
        return self == other or (self.host == other.host and upgraded)


def split(url: str) -> tuple[str, str | None]:
    """Split the credentials from an address.

    Returns:
        The address without its user part, and the value of ``Authorization``; None if the address
        has no user part.
    """
    parts = urlsplit(url)
    info, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = info.partition(":")
    return urlunsplit(parts._replace(netloc=host)), basic(unquote(user), unquote(password))


def basic(user: str, password: str) -> str:
    """The value of ``Authorization`` for basic authentication (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def from_netrc(host: str, file: str) -> str | None:
    """The value of ``Authorization`` for a host; None if the netrc file has no entry for it.

    An unreadable or malformed file counts as absent, as in pip, because other programs own it.

    Args:
        host: the server's name.
        file: path of the netrc file; empty means ``~/.netrc``.
    """
    try:
        path = Path(file) if file else Path("~/.netrc").expanduser()
        if not path.is_file():
            return None
        found = netrc.netrc(str(path)).authenticators(host)
    except (OSError, RuntimeError, UnicodeDecodeError, netrc.NetrcParseError):
        return None
    return basic(found[0], found[2] or "") if found else None


def authorization(url: str, first: str, netrc_file: str) -> tuple[str, dict[str, str]]:
    """The address to request, without its user part, and the headers that log in there.

    Args:
        url: address of this request: ``first``, or the target of a redirect.
        first: address that the user named. Its credentials are for its server only; a redirect to
            another server does not carry them.
        netrc_file: as ``file`` of :func:`from_netrc`.
    """
    address, value = split(url)
    if value is None and Origin.of(first).trusts(Origin.of(url)):
        value = split(first)[1]
    value = value or from_netrc(Origin.of(url).host, netrc_file)
    return address, {"Authorization": value} if value else {}
