# SPDX-License-Identifier: Apache-2.0
"""One configuration of a native build, and the folder that is its own (build contract, section 4)."""

from __future__ import annotations

import errno
import hashlib
import re
import sysconfig
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.native import cmake
from vllm_build.target import device
from vllm_build.util import removal
from vllm_build.util.errors import ConfigurationError, ResourceError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.device import Target

ABI3 = "abi3"
#: Longer architecture lists enter a folder's name by their hash.
_LONGEST_ARCHS = 24


def free_threaded() -> bool:
    """Whether this CPython has no GIL; such interpreters have no limited API before 3.15."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def python_abi() -> str:
    """What the extensions are bound to: ``abi3``, or this very interpreter's SOABI where there is no limited API.

    Raises:
        ConfigurationError: the interpreter does not say what its ABI is called.
    """
    if not free_threaded():
        return ABI3
    soabi = sysconfig.get_config_var("SOABI")
    if not soabi:
        raise ConfigurationError(
            "this interpreter has no SOABI in its configuration",
            expected="CPython as its sources build it",
        )
    return str(soabi)


def plan_for(root: Path, settings: Settings, target: Target) -> Plan:
    """What a build for ``target`` compiles.

    Raises:
        ConfigurationError, NothingToDoError, ToolchainError: of the table, the architectures and
        the toolkit.
    """
    return plan_resolver.for_settings(
        kernels_table.load(root), target.name, target.release, settings
    )


@dataclass(frozen=True)
class Configuration:
    """What tells one native build from another.

    Attributes:
        root: of the source tree.
        settings: of the environment.
        target: what the build is for.
        plan: what is compiled.
        build_type: as CMake will take it.
        abi: of :func:`python_abi`.
    """

    root: Path
    settings: Settings
    target: Target
    plan: Plan
    build_type: str
    abi: str

    @classmethod
    def of(
        cls, root: Path, settings: Settings, target: Target | None = None, *, debug: bool = False
    ) -> Configuration:
        """The configuration that the environment asks for.

        Args:
            root: of the source tree.
            settings: of the environment.
            target: what the build is for; None resolves the device.
            debug: setuptools' ``--debug``; counts when no build type is set.

        Raises:
            ConfigurationError, NothingToDoError, ToolchainError: of the device and the plan.
        """
        target = target or device.resolve(settings)
        return cls.for_target(root, settings, target, plan_for(root, settings, target), debug=debug)

    @classmethod
    def for_target(
        cls, root: Path, settings: Settings, target: Target, chosen: Plan, *, debug: bool = False
    ) -> Configuration:
        """The configuration of a plan that has been made already.

        Raises:
            ConfigurationError: the interpreter does not say what its ABI is called.
        """
        # CMAKE_ARGS go last on CMake's command line, so a build type in them is the one that
        # counts.
        named = cmake.definition(settings.cmake_args, "CMAKE_BUILD_TYPE") or settings.build_type
        return cls(
            root,
            settings,
            target,
            chosen,
            named or ("Debug" if debug else "RelWithDebInfo"),
            python_abi(),
        )

    @property
    def suffix(self) -> str:
        """File name suffix of the extensions."""
        return f".{ABI3}.so" if self.abi == ABI3 else ".so"

    @property
    def key(self) -> str:
        """Name of the build folder: readable, and different for every two configurations that could disturb one another."""
        archs = "_".join(self.plan.targets)
        if len(archs) > _LONGEST_ARCHS:
            archs = hashlib.sha256(archs.encode()).hexdigest()[:10]
        chosen = self.settings.flash_attention_set
        parts = [
            f"{self.plan.device}{self.target.release or ''}",
            archs,
            f"fa_{chosen}" if chosen else "",
            "+".join(sorted(self.settings.components)),
            self.abi,
            self.build_type.lower(),
        ]
        return "-".join(re.sub(r"[^A-Za-z0-9._+]", "_", part) for part in parts if part)

    @property
    def folder(self) -> Path:
        """The build folder, kept between calls and outside pip's temporary folders."""
        return (self.settings.build_root or self.root / "build") / self.key

    def prepare_folder(self) -> Path:
        """Make the build folder; returns it.

        Raises:
            ConfigurationError: it cannot be made or written to, or holds something else.
            ResourceError: the disk is full.
        """
        try:
            removal.claim(
                self.folder,
                "the build folder (VLLM_BUILD_ROOT)",
                ("*",),
                ("plan.json", "CMakeCache.txt", ".writable"),
            )
            probe = self.folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceError(
                    f"no space left for the build folder {self.folder}",
                    remedy="free some space, or set VLLM_BUILD_ROOT to another disk",
                ) from error
            raise ConfigurationError(
                f"the build folder {self.folder} cannot be written: {error.strerror}",
                expected="a folder of one's own, kept between builds",
                remedy="make it writable, or set VLLM_BUILD_ROOT to a folder that is",
            ) from error
        return self.folder

    def libraries(self, below: Path) -> list[Path]:
        """Paths of the extension libraries in a folder that they were installed to."""
        return [below / extension.output_file(self.suffix) for extension in self.plan.extensions]
