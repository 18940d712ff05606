# SPDX-License-Identifier: Apache-2.0
"""What this machine has for a build, what it lacks, and what contradicts what; nothing is changed and nothing is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build import settings
from vllm_build.doctor import _machine, _packages, _programs, _target, _variables
from vllm_build.doctor._fact import CONTRADICTION, MISSING, Fact
from vllm_build.errors import ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["CONTRADICTION", "MISSING", "Fact", "examine", "exit_code"]


def examine(root: Path, environ: Mapping[str, str]) -> list[Fact]:
    """Look at everything a build of the tree at ``root`` would use, under the variables of ``environ``."""
    env = dict(environ)
    facts = _variables.malformed(env)
    # The rest goes on with what is left: one report, not one problem at a time.
    names = {variable.name for variable in settings.variables()}
    sound = {name: text for name, text in env.items() if name not in names or not settings.problems({name: text})}
    asked = settings.Settings.from_environ(sound)
    target, about_target = _target.examine(root, asked)
    facts += _variables.contradictions(asked)
    facts += about_target
    facts += _programs.examine(asked, target)
    facts += _machine.examine(root, asked, target)
    return facts + _packages.examine(root, env, asked)


def exit_code(facts: Sequence[Fact]) -> int:
    """0 when nothing needs a remedy, a configuration error's status for contradictions, a toolchain error's for what is missing."""
    problems = {fact.problem for fact in facts}
    if CONTRADICTION in problems:
        return ConfigurationError.exit_code
    return ToolchainError.exit_code if MISSING in problems else 0
