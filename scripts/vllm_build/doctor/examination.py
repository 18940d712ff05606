# SPDX-License-Identifier: Apache-2.0
"""Collects all facts about a build on this machine, without changing or building anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.doctor import (
    machine_facts,
    package_facts,
    program_facts,
    target_facts,
    variable_facts,
)
from vllm_build.doctor.fact import CONTRADICTION, MISSING, Fact
from vllm_build.settings import build_settings
from vllm_build.util.errors import ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["CONTRADICTION", "MISSING", "Fact", "examine", "exit_code"]


def examine(root: Path, environ: Mapping[str, str]) -> list[Fact]:
    """Examine everything that a build of the tree at ``root`` would use with these variables."""
    env = dict(environ)
    facts = variable_facts.malformed(env)
    # Continue without the malformed variables, so that one report lists all problems.
    names = {variable.name for variable in build_settings.variables()}
    sound = {
        name: text
        for name, text in env.items()
        if name not in names or not build_settings.problems({name: text})
    }
    asked = build_settings.Settings.from_environ(sound)
    target, about_target = target_facts.examine(root, asked)
    facts += variable_facts.contradictions(asked)
    facts += about_target
    facts += program_facts.examine(asked, target)
    facts += machine_facts.examine(root, asked, target)
    return facts + package_facts.examine(root, env, asked)


def exit_code(facts: Sequence[Fact]) -> int:
    """The exit status of the command.

    It is 0 without problems, that of a configuration error for contradictions, and that of a
    toolchain error if something is only missing.
    """
    problems = {fact.problem for fact in facts}
    if CONTRADICTION in problems:
        return ConfigurationError.exit_code
    return ToolchainError.exit_code if MISSING in problems else 0
