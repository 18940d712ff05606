# SPDX-License-Identifier: Apache-2.0
"""A server that asks for a password, and searches for that password."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

from reuse_server import basic

from vllm_build.reuse.net.transport import Transport

if TYPE_CHECKING:
    from pathlib import Path

#: Some characters have to be encoded in an address; others could confuse a shell or a pattern.
PASSWORD = "s3:cr/t@ w?rd#%'$ü"  # noqa: S105 - of a server of these tests
LOGIN = f"user:{PASSWORD}"
TRANSPORT = Transport(timeout=2, attempts=2, pause=0.01, netrc=os.devnull)


def with_login(url: str, text: str = f"user:{quote(PASSWORD, safe='')}") -> str:
    """Add a user part to an address."""
    return url.replace("://", f"://{text}@")


def files_with(secret: str, *folders: Path) -> list[Path]:
    """The files below ``folders`` that contain ``secret`` in any encoding."""
    needles = {
        word.encode()
        for word in (
            secret,
            quote(secret, safe=""),
            json.dumps(secret)[1:-1],
            basic(f"user:{secret}").split()[1],
        )
    }
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if any(needle in path.read_bytes() for needle in needles)]
