# SPDX-License-Identifier: Apache-2.0
"""Puts an environment at its place in one step, and recovers after an interruption.

An environment is installed into a work folder next to its final place, with the paths of that place
(rattler's ``alternative_target_prefix``), and then renamed. While an installation runs, these are
next to ``env``::

    .env.vllm-build.lock    one installation at a time
    .env.vllm-build/new     the environment that is being installed
    .env.vllm-build/old     the previous environment, from the first rename until its removal

A killed process leaves the old environment at its place, or in ``old`` next to ``new``, or the new
environment at its place. The next installation distinguishes these cases by the names that exist
(:func:`_recover`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.util import locks, removal
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NEW, _OLD = "new", "old"


@dataclass(frozen=True)
class Site:
    """The place of an environment, and the work folder next to it. One process at a time has it."""

    prefix: Path
    work: Path

    @property
    def new(self) -> Path:
        """The folder in which the environment is built."""
        return self.work / _NEW

    def commit(self) -> None:
        """Put the new environment at its place.

        After an error between the renames, :func:`opened` restores the old environment.

        Raises:
            OSError: a rename failed.
        """
        if self.prefix.is_dir():
            self.prefix.rename(self.work / _OLD)
        self.new.rename(self.prefix)


def _recover(site: Site) -> None:
    """Finish or undo a killed or failed installation.

    If ``old`` and ``new`` exist, it ended between the renames, and the old environment is restored.
    If only ``old`` exists, both renames were done, and only its removal is left.

    Raises:
        ConfigurationError: the place was taken in the meantime, so there are two environments for
            it.
    """
    old = site.work / _OLD
    if old.is_dir() and site.new.is_dir():
        if os.path.lexists(site.prefix):
            raise ConfigurationError(
                f"an installation into {site.prefix} was interrupted: the previous environment is "
                f"in {old}, and its place is taken",
                expected="one environment for the place",
                remedy=f"move {site.prefix} away and run the same command again, or remove {old}",
            )
        old.rename(site.prefix)


@contextmanager
def opened(prefix: Path) -> Iterator[Site]:
    """Open the place ``prefix`` for one installation, after recovery from a killed one.

    Raises:
        BusyError: another process installs there.
        ConfigurationError: the work folder's name is taken, or the prefix has two environments
            after a crash.
    """
    site = Site(prefix, prefix.parent / f".{prefix.name}.vllm-build")
    with (
        _folders(prefix.parent),
        locks.transient(
            prefix.parent / f".{prefix.name}.vllm-build.lock", f"the environment {prefix}"
        ),
        # The work folder remains empty if a full disk prevents the claim.
        _folders(site.work),
    ):
        removal.claim(site.work, f"the work folder of {prefix}", (_NEW, _OLD, removal.MARKER))
        _tidy(site)
        try:
            yield site
        finally:
            _tidy(site)
            removal.remove_claimed(site.work)


@contextmanager
def _folders(folder: Path) -> Iterator[None]:
    """On exit, remove ``folder`` and its parents if they did not exist on entry and are empty."""
    missing = list(
        itertools.takewhile(lambda path: not os.path.lexists(path), (folder, *folder.parents))
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def _tidy(site: Site) -> None:
    """Remove the work folder's environments after recovery.

    ``old`` goes first, because next to ``new`` it would look like one to restore.
    """
    _recover(site)
    for name in (_OLD, _NEW):
        removal.remove_tree(site.work / name, below=site.work)
