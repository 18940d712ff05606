# SPDX-License-Identifier: Apache-2.0
"""Compares the packages of the toolchain channel with what the engine requires."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vllm_build.engine import engine_requirements
from vllm_build.toolchain import wheel_table
from vllm_build.util.files import read_text

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.engine.engine_requirements import EngineRequirements
    from vllm_build.engine.engine_source import Engine


def differences(root: Path, table: EngineRequirements, engine: Engine) -> list[str]:
    """Packages of the channel that do not fit the engine, and packages that it lacks.

    A requirement that our table changes is compared as changed.

    Args:
        root: the source tree.
        table: our requirements.
        engine: the engine.

    Raises:
        ConfigurationError: a table of the tree is malformed.
        IntegrityError: the engine's requirements are malformed.
    """
    path = engine.folder / "requirements" / f"{engine_requirements.COMMON}.txt"
    upstream = engine_requirements.of_upstream(read_text(path))
    left_out = {canonicalize_name(name) for name in table.left_out}
    wanted = {name: spec for name, spec in upstream.items() if name not in left_out}
    for changes in (table.changed, table.also):
        wanted |= {canonicalize_name(name): specifier for name, specifier in changes.items()}
    pins = wheel_table.read(root)
    pinned = {wheel.distribution: wheel for wheel in pins.wheels}
    others = {canonicalize_name(name) for name in pins.names}
    found = []
    for name, specifier in sorted(wanted.items()):
        wheel = pinned.get(name)
        if wheel is None:
            if name not in others and not (root / "toolchain" / "recipes" / name).is_dir():
                found.append(f"the channel has no {name}, and the engine requires it")
        elif not SpecifierSet(specifier).contains(wheel.version, prereleases=True):
            found.append(
                f"{wheel.where}: {wheel.name} {wheel.version} is in the channel, and the engine "
                f"requires {specifier}"
            )
    return found
