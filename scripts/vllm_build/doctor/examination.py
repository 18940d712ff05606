# SPDX-License-Identifier: Apache-2.0
"""What this machine has for a build, what it lacks, and what contradicts what; nothing is changed and nothing is built."""

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
    """Look at everything a build of the tree at ``root`` would use, under the variables of ``environ``."""
    env = dict(environ)
    facts = variable_facts.malformed(env)
    # The rest goes on with what is left: one report, not one problem at a time.
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
    """0 when nothing needs a remedy, a configuration error's status for contradictions, a toolchain error's for what is missing."""
    problems = {fact.problem for fact in facts}
    if CONTRADICTION in problems:
        return ConfigurationError.exit_code
    return ToolchainError.exit_code if MISSING in problems else 0
