# SPDX-License-Identifier: Apache-2.0
"""What one run of a command is given beside its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vllm_build.settings.build_settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Invocation:
    """What one run of a command is given beside its arguments.

    Attributes:
        environ: the variables, for programs that are started and for warnings that name them.
    """

    environ: Mapping[str, str]

    @cached_property
    def settings(self) -> Settings:
        """The variables of the build, each as its type.

        Raises:
            ConfigurationError: one is malformed.
        """
        return Settings.from_environ(self.environ)
