# SPDX-License-Identifier: Apache-2.0
"""Shows the logs of rattler-build's scripts, for builds and for tests, while they grow."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.util.console import Console

#: Where rattler-build writes logs, of build scripts and of the tests of packages.
_LOGS = ("bld/*/work/conda_build.log", "test/*/test/conda_build.log")
#: The number of lines that are kept for error messages.
_TAIL = 25


@dataclass
class ScriptLogs:
    """Shows the ``conda_build.log`` files below ``folder`` while they grow.

    It keeps the last lines for error messages.
    """

    folder: Path
    console: Console
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))
    last: Path | None = None
    _open: dict[Path, tuple[int, IO[bytes], bytes]] = field(default_factory=dict)
    _shown: dict[Path, bytes] = field(default_factory=dict)
    _restored: dict[Path, bytes] = field(default_factory=dict)

    def skip_existing(self) -> None:
        """Skip the existing content of logs from earlier builds."""
        for path in self._paths():
            stream = path.open("rb")
            stream.seek(0, os.SEEK_END)
            self._open[path] = (os.fstat(stream.fileno()).st_ino, stream, b"")

    def drain(self) -> None:
        """Read and show new lines.

        An open file can still be read after the build has removed it, so no line is lost.
        """
        for path in self._paths():
            try:
                inode = path.stat().st_ino
                known = self._open.get(path)
                if known is None or known[0] != inode:
                    if known is not None:
                        self._read(path)
                        known[1].close()
                        # The work folder of each output begins as a copy of the staging output's,
                        # with its log. These lines are not shown again.
                        self._restored[path] = self._shown.get(path, b"")
                    self._open[path] = (inode, path.open("rb"), b"")
            except FileNotFoundError:
                continue
        for path in list(self._open):
            self._read(path)

    def _paths(self) -> list[Path]:
        return [path for pattern in _LOGS for path in self.folder.glob(pattern)]

    def _read(self, path: Path) -> None:
        inode, stream, rest = self._open[path]
        data = stream.read()
        if not data:
            return
        self.last = path
        expected = self._restored.pop(path, b"")
        common = min(len(expected), len(data))
        if expected and data[:common] == expected[:common]:
            self._restored[path] = expected[common:]
            data = data[common:]
        self._shown[path] = self._shown.get(path, b"") + data
        *lines, rest = (rest + data).split(b"\n")
        self._open[path] = (inode, stream, rest)
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            self.tail.append(text)
            self.console.detail(text)

    def close(self) -> None:
        """Close all files."""
        for _, stream, _ in self._open.values():
            stream.close()
