# SPDX-License-Identifier: Apache-2.0
"""Runs pip with only those of the user's settings that say how to reach an index.

Users configure pip for their own environments, by files and by variables: constraints, ``user``,
``target``, ``require-virtualenv``, ``only-binary`` and many more. This project fetches and installs
locked files into its own folders, so those settings can only break it. Index addresses, proxies,
certificates and time limits are different: pip may reach no index without them. This module reads
the effective values of these options and passes only them to pip. Clearing a variable, as in
``PIP_CONSTRAINT=``, is not enough: pip ignores an empty variable and uses the value from the
configuration file.

The Makefile runs this file as a program before anything is installed, so it imports only the
standard library.

usage: python -I pip_process.py COMMAND ARGUMENT...
"""

from __future__ import annotations

import ast
import os
import pwd
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    #: Runs a command in an environment and returns its status and output; see ``children.run``.
    Run = Callable[..., subprocess.CompletedProcess[str]]

#: Options that say where an index is and how to reach it, or where pip keeps its downloads.
KEPT = (
    "index-url",
    "pypi-url",
    "extra-index-url",
    "no-index",
    "find-links",
    "trusted-host",
    "cert",
    "client-cert",
    "proxy",
    "no-proxy-env",
    "keyring-provider",
    "timeout",
    "default-timeout",
    "retries",
    "resume-retries",
    "use-deprecated",
    "use-feature",
    "cache-dir",
    "no-cache-dir",
)
_FIXED = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


class PipConfigurationError(Exception):
    """pip cannot read its own configuration; the text is pip's."""


def _variable(option: str) -> str:
    return "PIP_" + option.upper().replace("-", "_")


def _run(command: Sequence[str], *, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """As ``children.run``; this file as a program imports only the standard library."""
    return subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _with_home(env: Mapping[str, str]) -> dict[str, str]:
    """Add a HOME if the user id has no account: without either, pip ends with a traceback."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        # Debian's name for the home of accounts without one: pip reads and writes nothing there.
        return {"HOME": "/nonexistent", **env}
    return dict(env)


def _config(arguments: Sequence[str], environ: Mapping[str, str], run: Run) -> str:
    kept = {_variable(option) for option in KEPT} | {"PIP_CONFIG_FILE"}
    # PYTHONPATH and similar variables could put another pip or its modules first.
    env = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("PIP_", "PYTHON")) or name in kept
    }
    # Zero also overrides a configuration file that makes pip quiet or verbose. Both change pip's
    # output.
    env |= {
        "PIP_QUIET": "0",
        "PIP_VERBOSE": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONUTF8": "1",
    }
    done = run([sys.executable, "-m", "pip", "config", *arguments], env=_with_home(env))
    if done.returncode:
        raise PipConfigurationError(
            (done.stderr or done.stdout).strip()
            or f"pip config ended with status {done.returncode}"
        )
    return done.stdout


def settings(command: str, environ: Mapping[str, str], run: Run = _run) -> dict[str, str]:
    """The effective values of the kept options for pip's ``command``; ``run`` runs pip.

    Raises:
        PipConfigurationError: pip cannot read a configuration file.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for line in _config(["list"], environ, run).splitlines():
        key, equals, value = line.partition("=")
        if equals and key.rpartition(".")[2] in KEPT:
            found[key].add(str(ast.literal_eval(value)))
    result: dict[str, str] = {}
    for section in ("global", command, ":env:"):
        for option in KEPT:
            values = found.get(f"{section}.{option}", set())
            # `pip config list` sorts files by name. Only `pip config get` shows which of several
            # files takes precedence.
            value = (
                _config(["get", f"{section}.{option}"], environ, run).rstrip("\n")
                if len(values) > 1
                else "".join(values)
            )
            if value:
                result[option] = value
    return result


def environment(command: str, environ: Mapping[str, str], run: Run = _run) -> dict[str, str]:
    """The environment for pip's ``command``, with only the kept options of pip.

    Args:
        command: such as ``install``; a configuration file has a section per command.
        environ: the environment to start from.
        run: runs pip; the library passes ``children.run``.

    Raises:
        PipConfigurationError: pip cannot read a configuration file.
    """
    kept = {_variable(option): value for option, value in settings(command, environ, run).items()}
    return _with_home(
        {name: value for name, value in environ.items() if not name.startswith("PIP_")}
        | kept
        | _FIXED
    )


def main() -> None:
    """Replace this process by pip."""
    arguments = sys.argv[1:]
    command = next((argument for argument in arguments if not argument.startswith("-")), "install")
    try:
        env = environment(command, os.environ)
    except PipConfigurationError as error:
        sys.exit(
            f"pip's configuration cannot be read: {error}\n"
            "remedy: correct the file (pip config debug lists the files that pip reads)"
        )
    os.execve(sys.executable, [sys.executable, "-I", "-m", "pip", *arguments], env)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
