# SPDX-License-Identifier: Apache-2.0
"""Removes secrets from text: passwords and tokens in addresses and definitions, and the value of an Authorization header.

Everything that is printed, logged or recorded passes through :func:`redact`: the console, every
error, and the logs that this library writes. A text without secrets comes back as it is, and
redacting twice changes nothing. Where it is unclear what an address contains, too much is hidden
rather than too little.
"""

from __future__ import annotations

import re
import sys
import traceback
from typing import Any

HIDDEN = "***"
#: The part between ``://`` and the last ``@`` before the path. Users of ssh addresses ("git") are
#: no secrets, their passwords are.
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<info>[^\s/?#]*)@")
#: A password with a slash, a question mark or a hash that was not percent-encoded: not an address,
#: but people write it. A port is not one.
_UNENCODED = re.compile(
    r"(?P<start>[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:]*):(?![0-9]{1,5}(?:[/?#\s]|$))(?P<secret>[^\s@]*[/?#][^\s@]*)@"
)
#: ``user:password@host`` without a scheme, as proxies and indexes are written too. Not
#: ``git@host:path``, an e-mail address, the digest of an image (``name:tag@sha256:…``) or the
#: version of a symbol (``library:symbol@GLIBC_2.31``).
_BARE = re.compile(
    r"(?<![\w.@%+~-])(?!(?:mailto|acct|sips?|xmpp):)(?P<user>[\w.%+~-]+):(?P<secret>[^\s/?#\"'<>`]+)@"
    r"(?!sha[0-9]+:|(?:GLIBC|GLIBCXX|CXXABI|GCC)_[0-9]|@)(?=[A-Za-z0-9\[])",
    re.IGNORECASE,
)
#: Names of query parameters that carry a credential: ``token``, ``X-Amz-Signature``, ``sig``,
#: ``AWSAccessKeyId``, ``private_token``.
_QUERY = re.compile(
    r"(?P<name>[?&;][\w.%~-]*(?:token|sig|secret|passw|pwd|credential|api_?-?key|access_?-?key|auth|session)[\w.%~-]*=)(?P<value>[^\s&;#\"'<>]+)",
    re.IGNORECASE,
)
#: Conda's tokens: https://host/t/<token>/channel.
_CONDA = re.compile(r"(?P<start>https?://[^\s?#]*?/t/)[^\s/?#\"'<>]+", re.IGNORECASE)
#: A definition of CMake's or of a compiler's macro whose name says that it is a credential:
#: ``-DAPI_TOKEN:STRING=…``.
_DEFINITION = re.compile(
    r"(?P<name>-D\s?\w*?(?:token|secret|passw|pwd|credential|api_?key|access_?key)\w*(?::[A-Z]+)?=)"
    r"(?!\*\*\*)(?P<value>(?:\\.|\"[^\"]*\"|'[^']*'|[^\s;\"'\\])+)",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?P<name>authorization[\"']?\s*[:=]\s*[\"']?)(?:(?P<kind>basic|bearer|digest|token)\s+)?[^\s\"',;]+",
    re.IGNORECASE,
)


def _without_password(match: re.Match[str]) -> str:
    scheme, info = match["scheme"], match["info"]
    user, colon, _ = info.partition(":")
    if colon:
        return f"{scheme}://{user}:{HIDDEN}@"
    # A user alone may be a token; that of an ssh address is an account.
    return match[0] if "ssh" in scheme.lower() else f"{scheme}://{HIDDEN}@"


def redact(text: str) -> str:
    """``text`` with :data:`HIDDEN` in place of each secret."""
    if "://" in text:
        text = _UNENCODED.sub(rf"\g<start>:{HIDDEN}@", text)
        text = _USERINFO.sub(_without_password, text)
        text = _CONDA.sub(rf"\g<start>{HIDDEN}", text)
    if "@" in text:
        text = _BARE.sub(rf"\g<user>:{HIDDEN}@", text)
    if "=" in text:
        text = _QUERY.sub(rf"\g<name>{HIDDEN}", text)
        text = _DEFINITION.sub(rf"\g<name>{HIDDEN}", text)
    if "uthorization" in text.lower():
        text = _HEADER.sub(
            lambda match: (
                f"{match['name']}{(match['kind'] + ' ') if match['kind'] else ''}{HIDDEN}"
            ),
            text,
        )
    return text


def excerpt(text: str, most: int = 200, *, end: bool = False) -> str:
    """What a message quotes of a text that others wrote: at most ``most`` characters of its beginning, or of its end.

    Secrets go before the text is cut: half of an address is no address, and its password would
    stay. Nothing else in this library cuts a text by a number of characters; a test looks.
    """
    text = redact(text)
    if len(text) <= most:
        return text
    return "…" + text[len(text) - most :] if end else text[:most] + "…"


def redact_document(document: Any) -> Any:
    """A JSON document with every string in it redacted, keys included."""
    if isinstance(document, str):
        return redact(document)
    if isinstance(document, dict):
        return {redact_document(key): redact_document(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [redact_document(item) for item in document]
    return document


def say(text: str) -> None:
    """Write ``text`` to standard error, for modules that run without a console, as in pip's builds."""
    if sys.stderr is not None:  # closed by the caller
        sys.stderr.write(redact(text))


def traceback_of(error: BaseException) -> str:
    """The traceback of an error and of its causes, whose messages may come from any library."""
    return redact("".join(traceback.format_exception(error)))
