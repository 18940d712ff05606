# SPDX-License-Identifier: Apache-2.0
"""Sorts builds of the channel so that each comes after the builds that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.toolchain import wheel_table
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vllm_build.toolchain.toolchain_builds import Build


def _by_id(builds: Iterable[Build]) -> dict[str, Build]:
    by_id: dict[str, Build] = {}
    for build in builds:
        if build.id in by_id:
            raise ConfigurationError(
                f"{build.where}: build {build.id!r} also exists in {by_id[build.id].where}"
            )
        by_id[build.id] = build
    for build in by_id.values():
        for need in (*build.needs, *build.runs):
            if need not in by_id:
                raise ConfigurationError(
                    f"{build.where}: build {build.id!r} needs {need!r}, which no recipe makes",
                    expected="one of " + ", ".join(sorted(by_id)),
                )
    return by_id


def ordered(builds: Iterable[Build]) -> list[Build]:
    """Sort ``builds`` by id, but each after the builds that it needs.

    Raises:
        ConfigurationError: two builds have the same id, one needs an unknown build, or builds need
            each other in a cycle.
    """
    by_id = _by_id(builds)
    result: list[Build] = []
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            cycle = " -> ".join((*trail[trail.index(name) :], name))
            raise ConfigurationError(
                f"{by_id[name].where}: builds need each other in a cycle: {cycle}"
            )
        if name not in done:
            for need in sorted({*by_id[name].needs, *by_id[name].runs}):
                visit(need, (*trail, name))
            done.add(name)
            result.append(by_id[name])

    for name in sorted(by_id):
        visit(name, ())
    return result


def used(build: Build, by_id: Mapping[str, Build]) -> set[str]:
    """The builds whose packages are in the environments of ``build``: its needs and what they run.

    Args:
        build: the build.
        by_id: a selection that has everything that ``build`` needs.
    """
    found, stack = set[str](), list(build.needs)
    python = build.python or wheel_table.DEFAULT_PYTHON
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            # A selection lacks the packages for other interpreters.
            stack.extend(
                n for n in by_id[name].runs if n in by_id and by_id[n].python in ("", python)
            )
    return found


def split(builds: Sequence[Build]) -> tuple[list[Build], list[Build]]:
    """Split ``builds`` into the recipes with everything that they need, and the other wheels.

    Both keep the order.
    """
    by_id = {build.id: build for build in builds}
    first = {build.id for build in builds if build.wheel is None}
    for name in tuple(first):
        first |= used(by_id[name], by_id)
    return (
        [build for build in builds if build.id in first],
        [build for build in builds if build.id not in first],
    )
