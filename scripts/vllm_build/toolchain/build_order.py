# SPDX-License-Identifier: Apache-2.0
"""Sorts builds of the channel so that each comes after the builds that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

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
