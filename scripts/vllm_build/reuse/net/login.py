# SPDX-License-Identifier: Apache-2.0
"""Names and passwords for servers, as pip takes them: from ``user:password@`` in an address, percent-encoded, else from netrc."""

from __future__ import annotations

import base64
import netrc
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from vllm_build.util.environ import snapshot

_USUAL_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """A server: scheme, host in lower case, and port."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, url: str) -> Origin:
        """The server of an address that :func:`vllm_build.reuse.net.transport.check_url` accepts."""
        parts = urlsplit(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or _USUAL_PORTS.get(parts.scheme))

    def trusts(self, other: Origin) -> bool:
        """Whether what is sent to this server may be sent to ``other``: the same one, or itself over https on the usual ports."""
        upgraded = (self.scheme, self.port, other.scheme, other.port) == ("http", 80, "https", 443)
        return self == other or (self.host == other.host and upgraded)


def split(url: str) -> tuple[str, str | None]:
    """An address without its user part, and the value of ``Authorization`` for it; None where it has no user part."""
    parts = urlsplit(url)
    info, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = info.partition(":")
    return urlunsplit(parts._replace(netloc=host)), basic(unquote(user), unquote(password))


def basic(user: str, password: str) -> str:
    """The value of ``Authorization`` (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def from_netrc(host: str) -> str | None:
    """The value of ``Authorization`` for a host, from ``NETRC`` or ``~/.netrc``; None where there is none.

    A file that cannot be read or is malformed counts as absent, as it does for pip: it belongs to
    other programs.
    """
    chosen = snapshot().get("NETRC")
    try:
        path = Path(chosen) if chosen else Path("~/.netrc").expanduser()
        if not path.is_file():
            return None
        found = netrc.netrc(str(path)).authenticators(host)
    except (OSError, RuntimeError, UnicodeDecodeError, netrc.NetrcParseError):
        return None
    return basic(found[0], found[2] or "") if found else None


def authorization(url: str, first: str) -> tuple[str, dict[str, str]]:
    """The address to ask, without its user part, and the headers that log in there.

    Args:
        url: of this request: the first, or where a redirect led.
        first: the address that the user named. Its name and password are for its server only: a
            redirect elsewhere does not carry them.
    """
    address, value = split(url)
    if value is None and Origin.of(first).trusts(Origin.of(url)):
        value = split(first)[1]
    value = value or from_netrc(Origin.of(url).host)
    return address, {"Authorization": value} if value else {}
