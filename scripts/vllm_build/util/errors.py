# SPDX-License-Identifier: Apache-2.0
"""The kinds of failures of a build, each with its exit status.

Every error says three things: what happened, what was expected, and what to do. The command line
prints the message and exits with ``exit_code``. It prints the traceback only with ``-v``.
``vllm-build --help`` and docs/build.md list :func:`statuses`.
"""

from __future__ import annotations

from vllm_build.util.redaction import redact


class VllmBuildError(Exception):
    """Base class of all errors that the command line reports without a traceback."""

    exit_code = 1
    #: The meaning of the exit status, for the list of statuses.
    meaning = ""
    #: The remedy if the raising code gives none. Every message ends with a remedy.
    usual_remedy = "-v shows where it happened"

    def __init__(
        self, message: str, *, expected: str | None = None, remedy: str | None = None
    ) -> None:
        # Redacting here keeps passwords out of every use of the error, including JSON and
        # tracebacks.
        message = redact(message)
        super().__init__(message)
        self.message = message
        self.expected = redact(expected) if expected else expected
        self.remedy = redact(remedy or self.usual_remedy)

    def document(self) -> dict[str, object]:
        """The error as the ``--json`` document has it."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "message": self.message,
            "expected": self.expected,
            "remedy": self.remedy,
        }

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
    meaning = "the input is wrong: a variable, an option, a path, a variant file, a table"
    usual_remedy = "correct the input that the message names, and run the command again"


class NothingToDoError(VllmBuildError):
    """The request is valid but selects nothing, such as a device without kernels."""

    exit_code = 3
    meaning = "the request is valid but selects nothing"
    usual_remedy = "change the request: `vllm-build plan` lists what exists"


class ToolchainError(VllmBuildError):
    """A compiler, toolkit or channel package is missing or unusable."""

    exit_code = 4
    meaning = "a compiler, toolkit or channel package is missing"
    usual_remedy = "install it; `vllm-build doctor` lists what this machine has"


class FetchError(VllmBuildError):
    """A download failed: no network, a mirror that refuses, or a version that was removed."""

    exit_code = 5
    meaning = "a download failed"
    usual_remedy = "check the network, and try again"


class IntegrityError(VllmBuildError):
    """A file differs from the locked one: wrong sha256, size or signature."""

    exit_code = 6
    meaning = "a file differs from the locked one"
    usual_remedy = "make the file again, or fetch it from a source that you trust"


class BuildError(VllmBuildError):
    """A compile, link or packaging step failed."""

    exit_code = 7
    meaning = "compiling, linking or packaging failed"
    usual_remedy = "look at the output of the tools: -v shows all of it"


class PackageTestError(VllmBuildError):
    """A built package failed its tests or could not be installed."""

    exit_code = 8
    meaning = "a package failed its tests or cannot be installed"
    usual_remedy = "look at the output of the tests: -v shows all of it"


class BusyError(VllmBuildError):
    """Another process holds the lock of the output folder or of the channel."""

    exit_code = 9
    meaning = "another build holds the output folder or the channel"
    usual_remedy = "wait for the other build to end, and try again"


class ResourceError(VllmBuildError):
    """The machine ran out of a resource: disk space, memory, file handles."""

    exit_code = 10
    meaning = (
        "the machine ran out of disk space, memory, file handles or processes, or a device failed"
    )
    usual_remedy = "free some of it, and try again"


class InternalError(VllmBuildError):
    """The build library has a bug: an exception that it does not handle."""

    exit_code = 70
    meaning = "a bug in the build library: report it, with the output of the same command with -v"
    usual_remedy = "report it, with the output of -v"


_SIGNALS = (
    "128+n",
    (
        "signal n ended the command: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 131 SIGQUIT; 141: the "
        "reader of its output has gone"
    ),
)


def statuses() -> tuple[tuple[str, str], ...]:
    """Every exit status of the command line, with its meaning."""
    kinds = sorted(VllmBuildError.__subclasses__(), key=lambda kind: kind.exit_code)
    return (("0", "done"), *((str(kind.exit_code), kind.meaning) for kind in kinds), _SIGNALS)
