# SPDX-License-Identifier: Apache-2.0
"""The conda channels that feed a build."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from vllm_build.settings.choices import CHANNELS
from vllm_build.settings.value_kinds import checked, choice
from vllm_build.toolchain import channel_views
from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.settings.build_settings import Settings

LOCAL, CONDA_FORGE = CHANNELS


def choose(name: str | None, settings: Settings) -> str:
    """Choose the channel that feeds a build.

    Without a choice by the user, it is ``local`` (made here from PyPI and Debian packages) if apt
    exists, else ``conda-forge``.

    Args:
        name: the value of ``--channel``; None or empty: that of ``CHANNEL``.
        settings: the settings of the environment.

    Raises:
        ConfigurationError: ``name`` is neither of the two.
    """
    if name:
        return checked(
            "--channel",
            choice(*CHANNELS),
            name,
            "correct it, or leave it out to use CHANNEL or this machine's default",
        )
    return settings.channel or (LOCAL if shutil.which("apt-get") else CONDA_FORGE)


def url(name: str, root: Path | None = None) -> str:
    """The address of a channel for solvers.

    ``local`` contains exactly the packages that the source tree ``root`` makes; None is this tree.

    Raises:
        ConfigurationError: a recipe of the toolchain or its lock is malformed.
    """
    return channel_views.view_of(root or paths.source_root()).as_uri() if name == LOCAL else name
