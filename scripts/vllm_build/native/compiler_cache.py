# SPDX-License-Identifier: Apache-2.0
"""Finds a compiler cache that works.

A broken cache that is merely installed must not fail a build; one that the user named may.

The probes compile nothing: ccache must print its version and be able to write to its folder;
sccache must start its server.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.util.processes import children
from vllm_build.util.redaction import excerpt, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vllm_build.settings.build_settings import Settings

#: Seconds for a cache to answer. sccache may have to start its server and reach a remote store.
TIMEOUT = 30
_VARIABLES = {"sccache": "VLLM_DISABLE_SCCACHE", "ccache": "VLLM_DISABLE_CCACHE"}

#: Variables of ccache that decide whether the build can use it.
_MINDED = ("CCACHE_DIR", "CCACHE_DISABLE", "CCACHE_READONLY")


def namespace(compilers: Iterable[str], base: str) -> dict[str, str]:
    """The variable with ccache's namespace for these compilers; empty if all are below ``base``.

    ccache knows a compiler by its time and size. Without a namespace, equal compilers of two
    environments would share results, together with the list of headers of the other environment.
    The build would not see that its own headers change.

    Args:
        compilers: paths.
        base: the value of ``CCACHE_BASEDIR``. ccache treats paths below it as relative.
    """
    found, below = {Path(path).resolve() for path in compilers}, Path(base).resolve()
    outside = sorted(str(path) for path in found if not path.is_relative_to(below))
    key = hashlib.sha256("\n".join(outside).encode()).hexdigest()[:16]
    return {"CCACHE_NAMESPACE": key} if outside else {}


def why_not_writable(folder: Path) -> str | None:
    """Why ``folder`` cannot be written to, or None; creates the folder if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
            return None
    except OSError as error:
        return f"{folder} cannot be written to: {error.strerror}"


def _ask(program: str, *arguments: str) -> tuple[str, str | None]:
    """The output of the program, and why it does not work, or None."""
    # A server that sccache starts here ends with this call: no child of a build outlives it.
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
            f"'{program} {arguments[0]}' ended with status {done.returncode}; last line: {last}",
        )
    return text, None


def _why_not_sccache(program: str) -> str | None:
    return _ask(program, "--show-stats")[1]


def _why_not_ccache(program: str, environ: Mapping[str, str]) -> str | None:
    if why := _ask(program, "--version")[1]:
        return why
    # A read-only or disabled cache does not write.
    if environ.get("CCACHE_DISABLE") or environ.get("CCACHE_READONLY"):
        return None
    folder, why = _ask(program, "--get-config", "cache_dir")
    # Older versions do not know this option; they use the variable.
    folder = environ.get("CCACHE_DIR", "") if why or not folder else folder.splitlines()[0]
    return why_not_writable(Path(folder).expanduser()) if folder else None


@functools.cache
def _probed(name: str, program: str, variables: tuple[tuple[str, str], ...]) -> str | None:
    """The result of the probe, once per process, program and set of variables."""
    why = (
        _why_not_sccache(program)
        if name == "sccache"
        else _why_not_ccache(program, dict(variables))
    )
    if why is not None:
        say(
            f"warning: {name} is not used: {why}\n  to do:    repair it, or set "
            f"{_VARIABLES[name]}=1 to disable it\n"
        )
    return why


def usable(name: str, program: str, environ: Mapping[str, str]) -> bool:
    """Whether the cache ``name`` at ``program`` works under ``environ``; if not, warns once."""
    minded = _MINDED if name == "ccache" else ()
    return (
        _probed(name, program, tuple((variable, environ.get(variable, "")) for variable in minded))
        is None
    )


def found(settings: Settings) -> str | None:
    """The first of sccache and ccache that is installed, works and is not disabled."""
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
