# SPDX-License-Identifier: Apache-2.0
"""Reads the build's environment variables into one typed, frozen object.

The fields of :class:`Settings` are the only table of variables, with the type, default and
documentation of each. ``docs/settings.md`` and ``vllm-build settings`` are generated from it. An
empty variable counts as unset. A malformed value is a configuration error that names the variable:
a build must not silently ignore it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.settings.compile_settings import CompileSettings
from vllm_build.settings.machine_settings import MachineSettings
from vllm_build.settings.reuse_settings import ReuseSettings
from vllm_build.settings.target_settings import TargetSettings
from vllm_build.settings.variable import SECTIONS, Variable
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


# A dataclass lists the fields of its last base first: the order of the documentation.
@dataclass(frozen=True)
class Settings(MachineSettings, ReuseSettings, CompileSettings, TargetSettings):
    """The settings that the environment gives a build; ``Settings()`` is an empty environment.

    Attributes:
        inherited: all variables of this process, from which compilers and other programs start. It
            is no setting, and it may contain passwords.
    """

    inherited: Mapping[str, str] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read ``environ``, and keep all of it as ``inherited``.

        Raises:
            ConfigurationError: values are malformed; the message names all of them.
        """
        require(environ)
        values = ((variable.field, variable.read(environ)) for variable in variables())
        return cls(
            **{field: value for field, value in values if value is not None},
            inherited=dict(environ),
        )


def variables() -> Iterator[Variable]:
    """Every variable of the build, in the order of the documentation."""
    section = ""
    for field in dataclasses.fields(Settings):
        if "variable" not in field.metadata:
            continue
        section = SECTIONS.get(field.name, section)
        name, kind, default, doc = field.metadata["variable"]
        yield Variable(name, field.name, section, kind, default, doc)


def problems(environ: Mapping[str, str]) -> list[ConfigurationError]:
    """One error for each malformed variable."""
    found = []
    for variable in variables():
        try:
            variable.read(environ)
        except ConfigurationError as error:
            found.append(error)
    return found


def require(environ: Mapping[str, str]) -> None:
    """Refuse an environment with malformed variables.

    Raises:
        ConfigurationError: variables are malformed; the message names all of them.
    """
    found = problems(environ)
    if len(found) == 1:
        raise found[0]
    if found:
        listed = "\n".join(f"    {error.message}; expected: {error.expected}" for error in found)
        raise ConfigurationError(
            f"{len(found)} environment variables are not valid:\n{listed}",
            expected="the values that docs/settings.md lists",
            remedy="correct or unset these variables; vllm-build settings shows all variables",
        )
