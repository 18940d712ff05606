# SPDX-License-Identifier: Apache-2.0
"""Failure kinds of the build, one class and one exit code each.

Every error says three things: what happened, what was expected, and what to do. The command line prints the message alone and exits with
``exit_code``; the traceback appears only with ``-v``.
"""

from __future__ import annotations

from vllm_build.redaction import redact


class VllmBuildError(Exception):
    """Base of all errors that the command line reports without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, expected: str | None = None, remedy: str | None = None) -> None:
        # Redacted here, so that no use of an error, JSON and tracebacks among them, can print a password.
        message = redact(message)
        super().__init__(message)
        self.message = message
        self.expected = redact(expected) if expected else expected
        self.remedy = redact(remedy) if remedy else remedy

    def __str__(self) -> str:
        lines = [self.message]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.remedy:
            lines.append(f"  to do:    {self.remedy}")
        return "\n".join(lines)


class ConfigurationError(VllmBuildError):
    """The user's input is wrong: a variable, an option, a variant file, a table in the tree."""

    exit_code = 2


class NothingToDoError(VllmBuildError):
    """The request is valid and selects nothing, such as a device without kernels."""

    exit_code = 3


class ToolchainError(VllmBuildError):
    """A compiler, toolkit or channel package is missing or unusable."""

    exit_code = 4


class FetchError(VllmBuildError):
    """A download failed: no network, a refusing mirror, a version that is gone."""

    exit_code = 5


class IntegrityError(VllmBuildError):
    """Bytes are not the bytes that were locked: wrong sha256, size or signature."""

    exit_code = 6


class BuildError(VllmBuildError):
    """A compile, link or packaging step failed."""

    exit_code = 7


class PackageTestError(VllmBuildError):
    """A built package failed its own tests or could not be installed."""

    exit_code = 8


class BusyError(VllmBuildError):
    """Another process holds the lock of the output or of the channel."""

    exit_code = 9


class ResourceError(VllmBuildError):
    """The machine ran out of something: disk space, memory, file handles."""

    exit_code = 10


#: Exit status after SIGINT, as shells report it.
EXIT_INTERRUPTED = 130
