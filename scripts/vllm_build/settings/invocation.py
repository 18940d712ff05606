# SPDX-License-Identifier: Apache-2.0
"""The environment of one run of a command."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vllm_build.settings.build_settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Invocation:
    """The environment of one run of a command.

    Attributes:
        environ: the variables, for child processes and for warnings that name them.
    """

    environ: Mapping[str, str]

    @cached_property
    def settings(self) -> Settings:
        """The typed settings of the build.

        Raises:
            ConfigurationError: a variable is malformed.
        """
        return Settings.from_environ(self.environ)
