# SPDX-License-Identifier: Apache-2.0
"""Whether a compiler cache that was found works.

One that was found by chance must not end a build; one that the user named may.

The probes compile nothing: ccache is asked for its version and has to be able to write to its
folder, sccache has to start its server.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.util.processes import children
from vllm_build.util.redaction import excerpt, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_build.settings.build_settings import Settings

#: Seconds for a cache to answer; the server of sccache may have to be started, and to reach a
#: remote store.
TIMEOUT = 30
_VARIABLES = {"sccache": "VLLM_DISABLE_SCCACHE", "ccache": "VLLM_DISABLE_CCACHE"}

#: What of ccache's variables decides whether the build can use it.
_MINDED = ("CCACHE_DIR", "CCACHE_DISABLE", "CCACHE_READONLY")


def why_not_writable(folder: Path) -> str | None:
    """Why nothing can be written below ``folder``, which is made when it is not there; None when that works."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
            return None
    except OSError as error:
        return f"{folder} cannot be written to: {error.strerror}"


def _ask(program: str, *arguments: str) -> tuple[str, str | None]:
    """What the program prints, and why it does not work; None when it does."""
    # A server that sccache starts ends with the question: nothing that a build starts outlives it.
    try:
        done = children.run([program, *arguments], timeout=TIMEOUT, merged=True)
    except subprocess.TimeoutExpired:
        return "", f"'{program} {arguments[0]}' did not answer within {TIMEOUT} s"
    except OSError as error:
        return "", f"{program} cannot be run: {error.strerror}"
    text = done.stdout.strip()
    if done.returncode:
        last = excerpt(text.splitlines()[-1]) if text else "nothing"
        return (
            text,
            f"'{program} {arguments[0]}' ended with status {done.returncode}; it said: {last}",
        )
    return text, None


def _why_not_sccache(program: str) -> str | None:
    return _ask(program, "--show-stats")[1]


def _why_not_ccache(program: str, environ: Mapping[str, str]) -> str | None:
    if why := _ask(program, "--version")[1]:
        return why
    # A cache that is shared for reading, or switched off, writes nothing of its own.
    if environ.get("CCACHE_DISABLE") or environ.get("CCACHE_READONLY"):
        return None
    folder, why = _ask(program, "--get-config", "cache_dir")
    # Older ones do not know the question, and use the variable.
    folder = environ.get("CCACHE_DIR", "") if why or not folder else folder.splitlines()[0]
    return why_not_writable(Path(folder).expanduser()) if folder else None


@functools.cache
def _probed(name: str, program: str, variables: tuple[tuple[str, str], ...]) -> str | None:
    """The probe's answer, once in a process for each program and the variables that it minds."""
    why = (
        _why_not_sccache(program)
        if name == "sccache"
        else _why_not_ccache(program, dict(variables))
    )
    if why is not None:
        say(
            f"warning: {name} is not used: {why}\n  to do:    repair it, or set "
            f"{_VARIABLES[name]}=1 to leave it out\n"
        )
    return why


def usable(name: str, program: str, environ: Mapping[str, str]) -> bool:
    """Whether the cache ``name``, found as ``program``, works under ``environ``; says why not on standard error, once."""
    minded = _MINDED if name == "ccache" else ()
    return (
        _probed(name, program, tuple((variable, environ.get(variable, "")) for variable in minded))
        is None
    )


def found(settings: Settings) -> str | None:
    """The compiler cache to put in front of compilers: sccache, else ccache, whichever is there, works, and is not disabled."""
    for name, disabled in (
        ("sccache", settings.disable_sccache),
        ("ccache", settings.disable_ccache),
    ):
        if (
            not disabled
            and (program := shutil.which(name))
            and usable(name, program, settings.inherited)
        ):
            return program
    return None
