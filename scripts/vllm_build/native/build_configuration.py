# SPDX-License-Identifier: Apache-2.0
"""One configuration of a native build, and its build folder (build contract, section 4)."""

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
#: Characters of an architecture list in a folder's name; a longer list is replaced by its hash.
_LONGEST_ARCHS = 24


def free_threaded() -> bool:
    """Whether this CPython has no GIL. Such interpreters have no limited API before 3.15."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def python_abi() -> str:
    """The ABI of the extensions: ``abi3``, or the interpreter's SOABI if it has no limited API.

    Raises:
        ConfigurationError: the interpreter does not name its ABI.
    """
    if not free_threaded():
        return ABI3
    soabi = sysconfig.get_config_var("SOABI")
    if not soabi:
        raise ConfigurationError(
            "this interpreter has no SOABI in its configuration",
            expected="an unmodified CPython",
        )
    return str(soabi)


def plan_for(root: Path, settings: Settings, target: Target) -> Plan:
    """The plan of a build for ``target``.

    Raises:
        ConfigurationError, NothingToDoError, ToolchainError: the table, the architectures or the
            toolkit do not allow a build.
    """
    return plan_resolver.for_settings(
        kernels_table.load(root), target.name, target.release, settings
    )


@dataclass(frozen=True)
class Configuration:
    """Everything that distinguishes one native build from another.

    Attributes:
        root: the source tree.
        settings: the settings from the environment.
        target: what the build is for.
        plan: what is compiled.
        build_type: CMake's build type.
        abi: result of :func:`python_abi`.
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
            root: the source tree.
            settings: the settings from the environment.
            target: what the build is for; None resolves the device.
            debug: setuptools' ``--debug``, which applies if no build type is set.

        Raises:
            ConfigurationError, NothingToDoError, ToolchainError: the device cannot be resolved, or
                the plan is not possible.
        """
        target = target or device.resolve(settings)
        return cls.for_target(root, settings, target, plan_for(root, settings, target), debug=debug)

    @classmethod
    def for_target(
        cls, root: Path, settings: Settings, target: Target, chosen: Plan, *, debug: bool = False
    ) -> Configuration:
        """The configuration of an existing plan.

        Raises:
            ConfigurationError: the interpreter does not name its ABI.
        """
        # CMAKE_ARGS come last on CMake's command line, so a build type in them takes precedence.
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
        """Readable name of the build folder; configurations that would conflict differ in it."""
        archs = "_".join(self.plan.targets)
        if len(archs) > _LONGEST_ARCHS:
            archs = hashlib.sha256(archs.encode()).hexdigest()[:10]
        chosen = self.settings.flash_attention_set
        parts = [
            f"{self.plan.device}{self.target.release or ''}",
            archs,
            f"fa_{chosen}" if chosen else "",
            f"engine_{self.settings.kernel_set or ''}" if self.settings.kernels == "engine" else "",
            "+".join(sorted(self.settings.components)),
            self.abi,
            self.build_type.lower(),
        ]
        return "-".join(re.sub(r"[^A-Za-z0-9._+]", "_", part) for part in parts if part)

    @property
    def folder(self) -> Path:
        """The build folder, which is kept between calls and is outside pip's temporary folders."""
        return (self.settings.build_root or self.root / "build") / self.key

    def prepare_folder(self) -> Path:
        """Create the build folder; returns it.

        Raises:
            ConfigurationError: it cannot be created or written to, or contains foreign files.
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
                expected="a writable folder that is kept between builds",
                remedy="make it writable, or set VLLM_BUILD_ROOT to a folder that is",
            ) from error
        return self.folder

    def libraries(self, below: Path) -> list[Path]:
        """Paths of the extension libraries after their installation below a folder."""
        return [below / extension.output_file(self.suffix) for extension in self.plan.extensions]
