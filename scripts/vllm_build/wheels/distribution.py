# SPDX-License-Identifier: Apache-2.0
"""Arguments of ``setup()`` that depend on the device, the interpreter or the command."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vllm_build.engine import engine_requirements, engine_source
from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.native import build_configuration, cmake
from vllm_build.project import distribution_version
from vllm_build.target import device
from vllm_build.util import path_rules
from vllm_build.wheels import cmake_ext, package_commands, requirements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.device import Target

#: The interpreters that the thin face supports.
PYTHON = ">=3.10"
#: Our entry points, in addition to the engine's: it asks the first one which platform to use.
ENTRY_POINTS = {"vllm.platform_plugins": {"kernels": "vllm._kernels.engine:platform"}}
#: Command of the engine → ours in its place, which calls it.
COMMANDS = {"vllm": "vllm._kernels.engine.command:main"}
#: Folder in which setuptools assembles a wheel; None means setuptools' default, ``build/``.
_staging: str | None = None
#: Whether setuptools is building a source distribution. Its command line does not always show that.
_for_sdist = False
#: Settings and target that a hook of the front end resolved before setuptools runs setup.py.
_resolved: tuple[Settings, Target] | None = None


@contextmanager
def staging() -> Iterator[None]:
    """Let setuptools assemble the wheel in a temporary folder.

    Its default, ``build/lib``, stays in the tree, so files of one build would get into the wheel of
    the next one, even for another device.
    """
    global _staging  # noqa: PLW0603 - setuptools runs setup.py in this process; there is no other way to pass it
    with tempfile.TemporaryDirectory(prefix="vllm-wheel-") as folder:
        before, _staging = _staging, folder
        try:
            yield
        finally:
            _staging = before


@contextmanager
def source_distribution() -> Iterator[None]:
    """Let setup.py build a source distribution, which is for every device, so none is resolved."""
    global _for_sdist  # noqa: PLW0603 - as above
    before, _for_sdist = _for_sdist, True
    try:
        yield
    finally:
        _for_sdist = before


def is_sdist(argv: Sequence[str]) -> bool:
    """Whether setup.py builds a source distribution: the command line or the hook says so."""
    return _for_sdist or "sdist" in argv[1:]


@contextmanager
def resolved(settings: Settings, target: Target) -> Iterator[None]:
    """Let setup.py use ``target`` instead of resolving the device, if its settings are the same."""
    global _resolved  # noqa: PLW0603 - as above
    before, _resolved = _resolved, (settings, target)
    try:
        yield
    finally:
        _resolved = before


def _target(settings: Settings) -> Target:
    if _resolved is not None and _resolved[0] == settings:
        return _resolved[1]
    return device.resolve(settings)


def extensions(root: Path, settings: Settings, target: Target) -> list[cmake_ext.CMakeExtension]:
    """The extensions of ``target``, bound to it and to ``settings``; none for pure devices.

    Raises:
        ConfigurationError, NothingToDoError, ToolchainError: the plan is not possible.
    """
    if target.name in plan_resolver.PURE_DEVICES:
        return []
    if not settings.precompiled or settings.precompiled_partial:
        # Checked in the first hook that a front end calls, because later ones download torch.
        path_rules.require_buildable(
            root, settings.build_root or root / "build", make=cmake.runs_make(settings)
        )
    if settings.precompiled:
        table = kernels_table.load(root)
        names = [
            e.name
            for e in table.extensions
            if any(k.extension == e.name and target.name in k.devices for k in table.kernels)
        ]
    else:
        names = [e.name for e in build_configuration.plan_for(root, settings, target).extensions]
    found = [cmake_ext.CMakeExtension(name, str(root)) for name in names]
    for extension in found:
        extension.asked = cmake_ext.Asked(settings, target)
    return found


def outputs(root: Path, settings: Settings, target: Target) -> tuple[str, ...]:
    """The recipe's outputs whose kernels are built or reused from these sources.

    Kernels of an official wheel come from other sources, so they do not count.

    Raises:
        ConfigurationError, NothingToDoError, ToolchainError: the plan is not possible.
    """
    if target.name in plan_resolver.PURE_DEVICES or (
        settings.precompiled and settings.accepts_foreign
    ):
        return ()
    return build_configuration.plan_for(root, settings, target).components


def _engine_arguments(
    root: Path, settings: Settings, target: Target, version: str
) -> dict[str, Any]:
    """What differs in a wheel with the engine; empty without it.

    Args:
        root: the source tree.
        settings: the settings.
        target: the target of the build.
        version: the version of the tree, which the kernels' Python code keeps.

    Raises:
        ConfigurationError, FetchError, IntegrityError: the engine or one of its tables is missing
            or not right.
    """
    if not settings.engine:
        return {}
    engine = engine_source.find(root)
    table, found = engine_requirements.read(root), engine_source.metadata(engine)
    groups = {**found.entry_points, "console_scripts": {**found.scripts, **COMMANDS}}
    return {
        "version": distribution_version.full_version(
            root, settings, target.name, target.release, base=engine.version
        ),
        "python_requires": found.requires_python,
        "install_requires": table.for_pip(),
        "extras_require": table.extras(),
        "entry_points": {
            group: [f"{name} = {place}" for name, place in entries.items()]
            for group, entries in (*groups.items(), *ENTRY_POINTS.items())
        },
        "build_py": package_commands.engine_build_py(version),
    }


def arguments(root: Path, settings: Settings, argv: Sequence[str]) -> dict[str, Any]:
    """The keyword arguments of ``setup()``.

    The device is resolved once, here; the extensions pass it to the commands.

    Args:
        root: the source tree.
        settings: the settings from the environment.
        argv: the command line of setup.py.

    Raises:
        VllmBuildError: the environment or the tree is wrong; one class per kind of failure.
    """
    sdist = is_sdist(argv)
    target = None if sdist else _target(settings)
    modules = extensions(root, settings, target) if target else []
    version = distribution_version.of_tree(root, settings, target, sdist=sdist)
    engine = _engine_arguments(root, settings, target, version) if target else {}
    options: dict[str, dict[str, Any]] = {}
    if _staging:
        options["build"] = {"build_base": _staging}
        # Outside the tree, so that a read-only tree can be built.
        options["egg_info"] = {"egg_base": _staging}
    if modules and not build_configuration.free_threaded():
        options["bdist_wheel"] = {"py_limited_api": "cp310"}
    command = engine.pop("build_py", package_commands.versioned_build_py)
    # An sdist has only the requirements common to all devices. The field is declared dynamic, so a
    # wheel adds those of its device.
    required = requirements.read(root, target.name if target else "empty")
    return {
        "version": version,
        "python_requires": PYTHON,
        **engine,
        "install_requires": [*required, *engine.get("install_requires", [])],
        "ext_modules": modules,
        "cmdclass": {
            "build_ext": cmake_ext.precompiled_build_ext
            if settings.precompiled
            else cmake_ext.cmake_build_ext,
            "build_py": command,
            "egg_info": package_commands.stamped_egg_info(
                outputs(root, settings, target) if target else ()
            ),
        },
        "options": options,
    }
