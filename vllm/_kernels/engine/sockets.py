# SPDX-License-Identifier: Apache-2.0
"""Keeps the paths of the sockets between the engine's processes short enough for Linux."""

from __future__ import annotations

import os
import tempfile

#: Upstream's variable with the folder of the sockets, whose names have 36 characters.
FOLDER = "VLLM_RPC_BASE_PATH"
_NAME, _LONGEST = 36, 107


def shorten() -> None:
    """Use /tmp where the paths in the folder for temporary files would be too long."""
    if FOLDER not in os.environ:
        folder = os.fsencode(tempfile.gettempdir())
        if len(folder) + 1 + _NAME > _LONGEST:
            os.environ[FOLDER] = "/tmp"  # noqa: S108 - the names are random
