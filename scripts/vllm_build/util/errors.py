# SPDX-License-Identifier: Apache-2.0
"""Failure kinds of the build, one class and one exit code each: the one table of exit statuses.

Every error says three things: what happened, what was expected, and what to do. The command line
prints the message alone and exits with ``exit_code``; the traceback appears only with ``-v``.
``vllm-build --help`` and docs/build.md list :func:`statuses`.
"""

from __future__ import annotations

from vllm_build.util.redaction import redact


class VllmBuildError(Exception):
    """Base of all errors that the command line reports without a traceback."""

    exit_code = 1
    #: What the exit status means, for the list of statuses.
    meaning = ""
    #: What to do, where the place that raises knows nothing better: no message ends without it.
    usual_remedy = "-v shows where it happened"

    def __init__(
        self, message: str, *, expected: str | None = None, remedy: str | None = None
    ) -> None:
        # Redacted here, so that no use of an error, JSON and tracebacks among them, can print a
        # password.
        message = redact(message)
        super().__init__(message)
        self.message = message
        self.expected = redact(expected) if expected else expected
        self.remedy = redact(remedy or self.usual_remedy)

    def document(self) -> dict[str, object]:
        """What ``--json`` says of it."""
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
    usual_remedy = "correct what the message names, and start the command again"


class NothingToDoError(VllmBuildError):
    """The request is valid and selects nothing, such as a device without kernels."""

    exit_code = 3
    meaning = "the request is valid and selects nothing"
    usual_remedy = "ask for something else: `vllm-build plan` shows what there is"


class ToolchainError(VllmBuildError):
    """A compiler, toolkit or channel package is missing or unusable."""

    exit_code = 4
    meaning = "a compiler, toolkit or channel package is missing"
    usual_remedy = "install what is missing; `vllm-build doctor` says what this machine has"


class FetchError(VllmBuildError):
    """A download failed: no network, a refusing mirror, a version that is gone."""

    exit_code = 5
    meaning = "a download failed"
    usual_remedy = "check the network, and try again"


class IntegrityError(VllmBuildError):
    """Bytes are not the bytes that were locked: wrong sha256, size or signature."""

    exit_code = 6
    meaning = "bytes are not the locked ones"
    usual_remedy = "make or fetch the file again, from a place that you trust"


class BuildError(VllmBuildError):
    """A compile, link or packaging step failed."""

    exit_code = 7
    meaning = "compiling, linking or packaging failed"
    usual_remedy = "look at the output of the tools: -v shows all of it"


class PackageTestError(VllmBuildError):
    """A built package failed its own tests or could not be installed."""

    exit_code = 8
    meaning = "a package failed its tests or cannot be installed"
    usual_remedy = "look at the output of the tests: -v shows all of it"


class BusyError(VllmBuildError):
    """Another process holds the lock of the output or of the channel."""

    exit_code = 9
    meaning = "another build holds the output folder or the channel"
    usual_remedy = "wait for the other build to end, and try again"


class ResourceError(VllmBuildError):
    """The machine ran out of something: disk space, memory, file handles."""

    exit_code = 10
    meaning = (
        "the machine ran out of something, or a device failed: disk, memory, file handles, "
        "processes"
    )
    usual_remedy = "free some of it, and try again"


class InternalError(VllmBuildError):
    """The build library failed in a way that it does not know: a fault of its own."""

    exit_code = 70
    meaning = (
        "the build library itself is at fault: report it, with the output of the same "
        "command with -v"
    )
    usual_remedy = "report it, with the output of -v"


#: Exit status after SIGINT, as shells report it; after another signal it is 128 and that signal's
#: number.
EXIT_INTERRUPTED = 130

_SIGNALS = (
    "128+n",
    (
        "signal n ended the command: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 131 SIGQUIT; 141: the "
        "reader "
        "of its output has gone"
    ),
)


def statuses() -> tuple[tuple[str, str], ...]:
    """Every exit status of the command line, with its meaning."""
    kinds = sorted(VllmBuildError.__subclasses__(), key=lambda kind: kind.exit_code)
    return (("0", "done"), *((str(kind.exit_code), kind.meaning) for kind in kinds), _SIGNALS)
