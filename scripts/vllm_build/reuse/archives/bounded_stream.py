# SPDX-License-Identifier: Apache-2.0
"""A stream that limits each read to the size that an archive's directory may have.

Parsers of archives read as many bytes as fields of the untrusted file tell them to.
"""

from __future__ import annotations

from typing import Any

from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError


class Bounded:
    """A wrapper of a seekable binary stream that has only ``seek``, ``tell`` and ``read``."""

    def __init__(self, stream: Any, where: str) -> None:
        self._stream, self._where = stream, where

    def seek(self, offset: int, whence: int = 0) -> int:
        """As the stream's."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """As the stream's."""
        return int(self._stream.tell())

    def seekable(self) -> bool:
        """Always true."""
        return True

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def read(self, size: int = -1) -> bytes:
        """As the stream's, up to the limit.

        Raises:
            RefusedError: ``size`` exceeds the limit, or it is negative and the rest of the stream
                does.
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
            expected=f"at most {bounds.DIRECTORY}",
        )
