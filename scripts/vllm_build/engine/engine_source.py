# SPDX-License-Identifier: Apache-2.0
"""The locked sources of the engine in the cache, and what its own project file says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm_build.sources import third_party
from vllm_build.util import toml
from vllm_build.util.errors import ConfigurationError, FetchError, IntegrityError
from vllm_build.util.files import read_text

if TYPE_CHECKING:
    from pathlib import Path

#: Name of the engine in the lock, of its distribution, and of the package in its sources.
NAME = "vllm"
UPDATE_COMMAND = "vllm-build engine --update"


@dataclass(frozen=True)
class Engine:
    """The engine's sources.

    Attributes:
        version: upstream's version.
        sha256: of the source distribution.
        folder: the extracted sources; the modules are in its folder ``vllm``.
    """

    version: str
    sha256: str
    folder: Path

    @property
    def package(self) -> Path:
        """The folder of the Python package."""
        return self.folder / NAME


@dataclass(frozen=True)
class Metadata:
    """The parts of the engine's project file that the distribution repeats.

    Attributes:
        requires_python: the interpreters that it supports.
        scripts: commands, as name → ``module:function``.
        entry_points: group → name → ``module:object``.
    """

    requires_python: str
    scripts: dict[str, str]
    entry_points: dict[str, dict[str, str]]


def locked(root: Path) -> third_party.Source:
    """The entry of the engine in the lock.

    Raises:
        ConfigurationError: the lock has none, or it is malformed, or its keys contradict each
            other.
    """
    found = third_party.read(root).get(NAME)
    if found is None:
        raise ConfigurationError(
            f"{third_party.LOCK} has no {NAME!r}", expected="the engine's source distribution"
        )
    # Without this, an entry that somebody edited could give one release the name of another.
    wanted = {"type": "pypi-sdist", "package": NAME, "version": found.version}
    if found.filename != f"{NAME}-{found.version}.tar.gz" or dict(found.get) != wanted:
        raise ConfigurationError(
            f"{third_party.LOCK}: {NAME} {found.version} comes from {found.filename}, "
            f"get = {dict(found.get)!r}",
            expected=f"{NAME}-{found.version}.tar.gz, get = {wanted!r}",
            remedy=f"{UPDATE_COMMAND} {found.version}",
        )
    return found


def find(root: Path) -> Engine:
    """The engine in the cache, compared with the lock.

    Raises:
        ConfigurationError: the lock is malformed.
        FetchError: the sources have not been fetched.
        IntegrityError: the fetched sources were changed.
    """
    source = locked(root)
    folder = source.cached()
    if folder is None:
        raise FetchError(
            f"the engine, vllm {source.version}, is not in the cache",
            expected=f"the sources that {third_party.LOCK} names",
            remedy=f"run `vllm-build fetch {NAME}`",
        )
    return Engine(source.version, source.sha256, folder)


def _words(table: Any, where: str) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise IntegrityError(
            f"{where} of the engine's pyproject.toml is {table!r}", expected="a table of strings"
        )
    return dict(table)


def metadata(engine: Engine) -> Metadata:
    """Read the engine's ``pyproject.toml``.

    Raises:
        IntegrityError: it has another layout than this function knows.
    """
    path = engine.folder / "pyproject.toml"
    try:
        project: dict[str, Any] = toml.loads(read_text(path))["project"]
        groups = project.get("entry-points", {})
        return Metadata(
            str(project["requires-python"]),
            _words(project.get("scripts", {}), "[project.scripts]"),
            {name: _words(group, f"entry point group {name}") for name, group in groups.items()},
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"{path} cannot be used: {error!r}", expected="the project file of the engine"
        ) from error
