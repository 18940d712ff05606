# SPDX-License-Identifier: Apache-2.0
"""Local conda channels: which ones a build uses, and how packages are put into one."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING

from rattler.index import index_fs

from vllm_build import paths
from vllm_build.conda import indexes
from vllm_build.files import write_text
from vllm_build.settings import CHANNELS
from vllm_build.settings_kinds import checked, choice
from vllm_build.toolchain import views

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vllm_build.settings import Settings

SUBDIRS = indexes.SUBDIRS
LOCAL, CONDA_FORGE = CHANNELS


def choose(name: str | None, settings: Settings) -> str:
    """The channel that feeds a build: ``local`` (made here from PyPI and Debian packages) where apt exists, else ``conda-forge``.

    Args:
        name: what ``--channel`` says; None or empty: what ``CHANNEL`` says.
        settings: of the environment.

    Raises:
        ConfigurationError: ``name`` is neither.
    """
    if name:
        return checked(
            "--channel", choice(*CHANNELS), name, "correct it, or leave it out: CHANNEL, else what this machine has, decides then"
        )
    return settings.channel or (LOCAL if shutil.which("apt-get") else CONDA_FORGE)


def url(name: str, root: Path | None = None) -> str:
    """What solvers are given for a channel name: for ``local`` the packages that the source tree ``root`` (this one) makes, and no others.

    Raises:
        ConfigurationError: a recipe of the toolchain or its lock is malformed.
    """
    return views.view_of(root or paths.source_root()).as_uri() if name == LOCAL else name


def initialise(folder: Path) -> None:
    """Make an empty channel of ``folder``; an existing one is left as it is."""
    for subdir in SUBDIRS:
        index = folder / subdir / "repodata.json"
        if not index.is_file():
            # Renamed into place: writing into what lies there would wait for the reader of a FIFO, or fill a device.
            write_text(index, json.dumps({"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}, "repodata_version": 1}))


def reindex(folder: Path) -> None:
    """Write the index anew from the files: kept entries would hold the old sha256 of a file that was replaced (conda/rattler#2608)."""
    initialise(folder)
    asyncio.run(index_fs(str(folder), write_zst=False, write_shards=False, force=True))


def indexed(folder: Path) -> dict[str, str]:
    """``<subdir>/<file>`` → sha256 of every package that the channel's index lists; nothing where there is no index."""
    return {name: str(entry.get("sha256")) for name, entry in indexes.names(folder).items() if name.endswith(".conda")}


def publish(files: Iterable[Path], folder: Path) -> list[Path]:
    """Put packages (``.../<subdir>/<name>.conda``) into the channel ``folder`` and index it; a name that is there already stays as it is.

    Each file is copied under a temporary name and renamed, so a channel never shows half a package.
    """
    initialise(folder)
    published = []
    for file in files:
        target = folder / file.parent.name / file.name
        published.append(target)
        if target.is_file():
            continue
        temporary = target.with_name("." + target.name + ".new")
        shutil.copyfile(file, temporary)
        temporary.replace(target)
    reindex(folder)
    return published
