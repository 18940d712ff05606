# SPDX-License-Identifier: Apache-2.0
"""What every step of a reuse needs: the cache, the transport and the progress callback."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.transport import Transport
from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util import places
from vllm_build.util.errors import ConfigurationError, FetchError
from vllm_build.util.files import NotRegularError, TooLargeError, read_bytes, sha256_of

if TYPE_CHECKING:
    from vllm_build.reuse.net.download import Progress
    from vllm_build.settings.build_settings import Settings


class Meter:
    """Counts received bytes and summarises them for a log: pip's environment can show no more.

    Args:
        also: another callback that is told of each piece, such as a progress bar.
    """

    def __init__(self, also: Progress | None = None) -> None:
        self.size, self._begin, self._also = 0, time.monotonic(), also

    def __call__(self, size: int, /) -> None:
        """Count."""
        self.size += size
        if self._also is not None:
            self._also(size)

    def summary(self) -> str:
        """A line such as ``fetched 12.3 MB in 1.2 s (10.3 MB/s)``."""
        took = max(time.monotonic() - self._begin, 1e-3)
        return (
            f"fetched {self.size / 1e6:.1f} MB in {took:.1f} s ({self.size / 1e6 / took:.1f} MB/s)"
        )

    def report(self) -> None:
        """Print the summary to stderr if anything was fetched."""
        if self.size:
            sys.stderr.write(self.summary() + "\n")


@dataclass(frozen=True)
class Context:
    """The shared state of one reuse.

    Attributes:
        cache: receives every reused file.
        transport: makes the requests.
        progress: told of each received piece.
    """

    cache: Cache = field(default_factory=Cache)
    transport: Transport = field(default_factory=Transport)
    progress: Progress = field(default_factory=Meter)

    @classmethod
    def of_settings(cls, settings: Settings, progress: Progress | None = None) -> Context:
        """A context whose requests use the passwords in the user's netrc file."""
        return cls(transport=Transport(netrc=settings.netrc), progress=progress or Meter())

    def store(self, file: Path, sha256: str, where: str, what: str) -> Path:
        """Move a file with the expected sha256 into the cache.

        Raises:
            RefusedError: the file has another sha256; it is removed.
        """
        found = sha256_of(file)
        if found != sha256:
            file.unlink()
            raise RefusedError("sha256", where, f"{what} has sha256 {found}", expected=sha256)
        return self.cache.add(file, sha256)


def local_path(location: str) -> Path | None:
    """The path of a local location; None for http and https.

    Raises:
        ConfigurationError: the location is an address with another scheme.
    """
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise ConfigurationError(
            f"{location!r} is not an address: {error}",
            expected="a path, or an https, http or file address",
        ) from error
    if parts.scheme in ("http", "https"):
        return None
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if "://" in location:
        raise ConfigurationError(
            f"{location!r} has a scheme that kernels cannot be fetched with",
            expected="a path, or an https, http or file address",
        )
    return places.expanded(location, "the location")


def file_name(location: str) -> str:
    """The last part of a path or an address."""
    path = local_path(location)
    return path.name if path else unquote(urlsplit(location).path).rsplit("/", 1)[-1]


def refusal_of(error: NotRegularError, where: str) -> RefusedError:
    """The error for a folder, FIFO, socket or device where a regular file is expected."""
    return RefusedError("file-kind", where, str(error.strerror), expected="a regular file")


def small_file(path: Path, limit: int = bounds.DOCUMENT) -> bytes | None:
    """Read a small file; None if it does not exist.

    Raises:
        FetchError: it cannot be read. RefusedError: it is larger than ``limit``, or not a regular
            file.
    """
    try:
        return read_bytes(path, limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except TooLargeError as error:
        raise RefusedError(
            "size-limit", str(path), f"{error.strerror}", expected=f"at most {limit} bytes"
        ) from error
    except NotRegularError as error:
        raise refusal_of(error, str(path)) from error
    except OSError as error:
        raise FetchError(f"{path}: {error.strerror}", expected="a readable file") from error
