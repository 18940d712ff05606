# SPDX-License-Identifier: Apache-2.0
"""A stream that gives no more at once than the directory of an archive may have: parsers read what a file's own fields tell them to."""

from __future__ import annotations

from typing import Any

from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError


class Bounded:
    """Passes on ``seek``, ``tell`` and ``read`` of a seekable binary stream."""

    def __init__(self, stream: Any, where: str) -> None:
        self._stream, self._where = stream, where

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of the stream."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """As of the stream."""
        return int(self._stream.tell())

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def read(self, size: int = -1) -> bytes:
        """As of the stream, up to the bound.

        Raises:
            RefusedError: more was asked for, and is there.
        """
        if size > bounds.DIRECTORY:
            raise self._refused(size)
        data: bytes = self._stream.read(size if size >= 0 else bounds.DIRECTORY + 1)
        if len(data) > bounds.DIRECTORY:
            raise self._refused(len(data))
        return data

    def _refused(self, size: int) -> RefusedError:
        return RefusedError(
            "directory",
            self._where,
            f"its directory claims {size} bytes",
            expected=f"at most {bounds.DIRECTORY}: a few hundred members",
        )
