# SPDX-License-Identifier: Apache-2.0
"""Creates conda environments and runs programs in them."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from vllm_build.conda.environments import (
    byte_code,
    edits,
    install_limits,
    intact,
    prefix_site,
    prefixes,
)
from vllm_build.toolchain import channel_views
from vllm_build.util import failures
from vllm_build.util.errors import (
    ConfigurationError,
    FetchError,
    IntegrityError,
    PackageTestError,
    ResourceError,
    ToolchainError,
    VllmBuildError,
)
from vllm_build.util.files import disk_errors
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def create(
    given: Path,
    specs: Sequence[str],
    channels: Sequence[str],
    *,
    force: bool = False,
    update: bool = False,
    keep: Sequence[Path] = (),
    driver: str | None = None,
    constraints: Sequence[str] = (),
    compiled: bool = False,
) -> list[dict[str, str]]:
    """Solve ``specs`` and install them into the prefix ``given``.

    The new environment replaces the old one once it is complete. After an error, or if the process
    is killed, the old environment is still in place.

    Args:
        given: the prefix.
        specs: the packages to install.
        channels: addresses, the most important first.
        force: replace a folder that vllm-build did not make.
        update: change a copy of an existing environment, including files that others added. It need
            not be from vllm-build.
        keep: folders that the prefix must neither be nor contain.
        driver: the release of CUDA to solve for, from ``solver.assumed_driver``. None: the
            machine's, or that of ``CONDA_OVERRIDE_CUDA``.
        constraints: specs for packages that are installed only if another package requires them.
        compiled: compile the Python modules of noarch packages, for users who cannot write to the
            prefix.

    Returns:
        Name, version, build and channel of every package.

    Raises:
        ConfigurationError: the prefix is not possible, or contains files that vllm-build did not
            install.
        BusyError: another process installs into the same prefix.
        ToolchainError: the specs cannot be solved.
        FetchError: a package is missing. IntegrityError: it differs from its channel's index.
        PackageTestError: the solved packages could not be installed.
        ResourceError: disk, memory or file handles are exhausted.
    """
    prefix = prefixes.check(given, keep)
    if not force:
        _require(prefix, update=update, contents=False)
    with disk_errors(prefix), prefix_site.opened(prefix) as site:
        if not force:
            # Check again: no other process changes it now, and interrupted work has been undone.
            _require(prefix, update=update)
        updated = update and prefixes.is_occupied(prefix)
        asked = {
            "folder": str(site.new),
            "prefix": str(prefix),
            "specs": list(specs),
            "channels": list(channels),
            "update": updated,
            "driver": driver,
            "constraints": list(constraints),
        }
        with channel_views.reading(channels):
            done = children.run(
                children.module("vllm_build.conda.environments.install_child", json.dumps(asked))
            )
        if done.returncode:
            raise _failure(done.returncode, done.stderr.strip(), specs, prefix)
        if compiled:
            byte_code.compile_modules(site.new, prefix, intact.records(site.new))
        if updated:
            intact.mark_again(site.new, prefix)
        else:
            records = intact.records(site.new)
            intact.mark(site.new, records, edits.states(site.new, records))
        before = set(intact.damages(prefix, ())) if updated else set()
        if damage := next(
            (found for found in intact.damages(site.new, ()) if found not in before), None
        ):
            if cut := install_limits.cut_short(site.new):
                raise install_limits.exhausted(f"installing {', '.join(specs)} into {prefix}", cut)
            raise PackageTestError(
                f"installing {', '.join(specs)} into {prefix} left a damaged environment: {damage}"
            )
        # Check once more, because a user may have edited the old environment in the meantime.
        if updated:
            prefixes.require_kept(prefix, site.new)
        elif not force:
            prefixes.require_replaceable(prefix)
        site.commit()
    installed: list[dict[str, str]] = json.loads(done.stdout)
    return installed


def _require(prefix: Path, *, update: bool, contents: bool = True) -> None:
    if update:
        prefixes.require_environment(prefix)
    else:
        prefixes.require_replaceable(prefix, contents=contents)


#: Exit status of the child -> error.
_KINDS = {
    kind.exit_code: kind
    for kind in (ConfigurationError, ToolchainError, FetchError, IntegrityError, ResourceError)
}


def _failure(status: int, printed: str, specs: Sequence[str], prefix: Path) -> VllmBuildError:
    """The error of a child that failed with ``status`` and printed ``printed`` to stderr."""
    what = f"installing {', '.join(specs)} into {prefix}"
    try:
        error = json.loads(printed.splitlines()[-1])
        return _KINDS[status](error["message"], expected=error["expected"], remedy=error["remedy"])
    except (IndexError, ValueError, KeyError, TypeError):
        pass
    if line := failures.exhausted(printed):
        return install_limits.exhausted(what, line)
    if status == -signal.SIGKILL:
        return install_limits.exhausted(
            what, "the process was killed, as the kernel does when memory is exhausted"
        )
    return PackageTestError(f"{what} failed (exit status {status})\n{printed}")


def environ_of(prefix: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables of a program in ``prefix``.

    PATH starts in the prefix. Of the caller's variables, ``inherited``, only the temporary folder,
    the locale and ``CONDA_OVERRIDE_CUDA`` are kept.
    """
    kept = {
        key: inherited[key]
        for key in ("TMPDIR", "LANG", "LC_ALL", "CONDA_OVERRIDE_CUDA")
        if key in inherited
    }
    return {
        **kept,
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "CONDA_PREFIX": str(prefix),
        "HOME": str(prefix),
        "PYTHONNOUSERSITE": "1",
    }


def run_in(
    prefix: Path,
    command: Sequence[str],
    *,
    cwd: Path,
    inherited: Mapping[str, str],
    extra: Mapping[str, str] | None = None,
) -> str:
    """Run a program of the environment and return its output.

    Args:
        prefix: the environment.
        command: a program in its ``bin``, and arguments.
        cwd: the working folder.
        inherited: the caller's variables; :func:`environ_of` keeps a few of them.
        extra: more variables.

    Raises:
        PackageTestError: it failed; the message ends with its output.
    """
    env = {**environ_of(prefix, inherited), **(extra or {})}
    done = children.run(
        [str(prefix / "bin" / command[0]), *command[1:]], cwd=cwd, env=env, merged=True
    )
    if done.returncode:
        raise PackageTestError(
            f"{' '.join(command)} failed in {prefix} (exit status {done.returncode})\n"
            f"{done.stdout.rstrip()}"
        )
    return done.stdout
