# SPDX-License-Identifier: Apache-2.0
"""Removes secrets from text: passwords, tokens and the values of Authorization headers.

All output passes through :func:`redact`: the console, every error, and this library's logs. A text
without secrets does not change, and redacting twice has no further effect. If the content of an
address is ambiguous, the rules hide too much rather than too little.
"""

from __future__ import annotations

import re
import sys
import traceback
from typing import Any

HIDDEN = "***"
#: The part between ``://`` and the last ``@`` before the path. The users of ssh addresses ("git")
#: are not secrets, but their passwords are.
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<info>[^\s/?#]*)@")
#: A password with a slash, a question mark or a hash that was not percent-encoded. Such an address
#: is invalid, but people write it. A port is not a password.
_UNENCODED = re.compile(
    r"(?P<start>[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:]*):(?![0-9]{1,5}(?:[/?#\s]|$))(?P<secret>[^\s@]*[/?#][^\s@]*)@"
)
#: ``user:password@host`` without a scheme, a form that people use for proxies and indexes. It does
#: not match ``git@host:path``, an e-mail address, the digest of an image (``name:tag@sha256:…``) or
#: the version of a symbol (``library:symbol@GLIBC_2.31``).
_BARE = re.compile(
    r"(?<![\w.@%+~-])(?!(?:mailto|acct|sips?|xmpp):)(?P<user>[\w.%+~-]+):(?P<secret>[^\s/?#\"'<>`]+)@"
    r"(?!sha[0-9]+:|(?:GLIBC|GLIBCXX|CXXABI|GCC)_[0-9]|@)(?=[A-Za-z0-9\[])",
    re.IGNORECASE,
)
#: Query parameters with a credential, such as ``token``, ``X-Amz-Signature``, ``sig``,
#: ``AWSAccessKeyId`` and ``private_token``.
_QUERY = re.compile(
    r"(?P<name>[?&;][\w.%~-]*(?:token|sig|secret|passw|pwd|credential|api_?-?key|access_?-?key|auth|session)[\w.%~-]*=)(?P<value>[^\s&;#\"'<>]+)",
    re.IGNORECASE,
)
#: Conda's tokens: https://host/t/<token>/channel.
_CONDA = re.compile(r"(?P<start>https?://[^\s?#]*?/t/)[^\s/?#\"'<>]+", re.IGNORECASE)
#: A CMake definition or a compiler's macro whose name indicates a credential:
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
    # A user without a password may be a token. The user of an ssh address is an account.
    return match[0] if "ssh" in scheme.lower() else f"{scheme}://{HIDDEN}@"


def redact(text: str) -> str:
    """Replace each secret in ``text`` with :data:`HIDDEN`."""
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
    """At most ``most`` characters from the beginning or the end of another program's text.

    The text is redacted before it is cut: redaction does not recognise half an address, so the
    password would remain. No other code in this library cuts a text by a number of characters; a
    test checks this.
    """
    text = redact(text)
    if len(text) <= most:
        return text
    return "…" + text[len(text) - most :] if end else text[:most] + "…"


def redact_document(document: Any) -> Any:
    """Redact every string in a JSON document, keys included."""
    if isinstance(document, str):
        return redact(document)
    if isinstance(document, dict):
        return {redact_document(key): redact_document(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [redact_document(item) for item in document]
    return document


def say(text: str) -> None:
    """Write ``text`` to stderr; for modules that run without a console, as in pip's builds."""
    if sys.stderr is not None:  # None: the caller closed it
        sys.stderr.write(redact(text))


def traceback_of(error: BaseException) -> str:
    """The redacted traceback of an error and its causes, which may come from any library."""
    return redact("".join(traceback.format_exception(error)))
