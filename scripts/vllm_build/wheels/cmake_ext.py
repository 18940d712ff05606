# SPDX-License-Identifier: Apache-2.0
"""The setuptools commands that compile or reuse the extensions.

They only call other modules, which do the work.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setuptools import Extension
from setuptools.command.build_ext import build_ext

from vllm_build.native import cmake, cmake_configure, job_count, native_build
from vllm_build.native.build_configuration import Configuration, free_threaded
from vllm_build.reuse import placement, preparation
from vllm_build.reuse.net.reuse_context import Context, Meter
from vllm_build.settings import other_variables
from vllm_build.settings.build_settings import Settings
from vllm_build.sources import folder_digest
from vllm_build.target import device
from vllm_build.util import environ, locks, paths
from vllm_build.util.redaction import say

if TYPE_CHECKING:
    from vllm_build.target.device import Target


@dataclass(frozen=True)
class Asked:
    """The settings that setup.py read from the environment, and the target that it resolved."""

    settings: Settings
    target: Target


class CMakeExtension(Extension):
    """An extension that CMake builds. setuptools sees its name and no sources.

    Attributes:
        cmake_lists_dir: the folder with CMakeLists.txt.
        asked: settings and target of the build. If it is None, as in an extension that another
            setup.py created, the commands read the environment.
    """

    asked: Asked | None = None

    def __init__(self, name: str, cmake_lists_dir: str = ".", **options: Any) -> None:
        options.setdefault("py_limited_api", not free_threaded())
        super().__init__(name, sources=[], **options)
        self.cmake_lists_dir = str(Path(cmake_lists_dir).resolve())


class cmake_build_ext(build_ext):  # noqa: N801 - setuptools commands are named in lower case
    """Builds every :class:`CMakeExtension` of the distribution with one CMake project."""

    def _asked(self) -> Asked:
        modules = self.distribution.ext_modules or ()
        bound = next(
            (ext.asked for ext in modules if isinstance(ext, CMakeExtension) and ext.asked), None
        )
        if bound is not None:
            return bound
        settings = Settings.from_environ(environ.snapshot())
        return Asked(settings, device.resolve(settings))

    def _configuration(self, ext: CMakeExtension | None = None) -> Configuration:
        root, asked = Path(ext.cmake_lists_dir) if ext else paths.source_root(), self._asked()
        return Configuration.of(root, asked.settings, asked.target, debug=bool(self.debug))

    def _jobs(self, config: Configuration) -> job_count.Jobs:
        pools = cmake.find_generator(config.settings).name == "Ninja"
        return job_count.of_plan(config.plan, config.settings, config.target.release, pools=pools)

    def compute_num_jobs(self) -> tuple[int, int | None]:
        """Number of jobs, and threads per nvcc or None (build contract, section 4)."""
        chosen = self._jobs(self._configuration())
        return chosen.jobs, chosen.nvcc_threads

    def configure(self, ext: CMakeExtension) -> None:
        """Write the plan and configure the project of ``ext``, unless nothing has changed.

        Raises:
            VllmBuildError: as :func:`vllm_build.native.cmake_configure.run`.
        """
        config = self._configuration(ext)
        cmake_configure.run(config, self._jobs(config).heavy_jobs)

    def build_extensions(self) -> None:
        """Compile what is out of date, check it, and install it below ``build_lib``.

        Each component gets a ``build_info``.

        Raises:
            VllmBuildError: one class per kind of failure; :class:`BusyError` if another build uses
                the same folder.
        """
        extensions = [ext for ext in self.extensions if isinstance(ext, CMakeExtension)]
        if not extensions:
            return
        folder_digest.forget()  # a build verifies the sources that it compiles
        config = self._configuration(extensions[0])
        job_count.require_memory(self._jobs(config), config.plan)
        digests = native_build.announced_digest(config)
        other_variables.warn(config.settings.inherited, config.target.name)
        influences = native_build.announced_influences(config)
        folder = config.prepare_folder()
        toolkit = f"; {config.target.toolkit}" if config.target.toolkit else ""
        say(f"device: {config.target.name} ({config.target.reason}){toolkit}\n")
        with locks.exclusive(folder, "this build folder"):
            self.configure(extensions[0])
            chosen = self._jobs(config)
            say(f"jobs: {chosen.jobs} ({'; '.join(chosen.why)})\n")
            native_build.compile_and_link(config, chosen)
            native_build.check(config)
            native_build.install(config, Path(self.build_lib).absolute(), digests, influences)

    def _built(self) -> list[Path]:
        base = Path(self.build_lib)
        return [
            path
            for pattern in ("vllm/**/*.so", "vllm/_build_info/*.json")
            for path in sorted(base.glob(pattern))
        ]

    def get_outputs(self) -> list[str]:
        """Files that this command adds to a distribution: libraries and their ``build_info``."""
        return [str(path) for path in self._built()]

    def get_output_mapping(self) -> dict[str, str]:
        """Built file -> path in the tree, for editable installs."""
        if not self.inplace and not self.editable_mode:
            return {}
        return {
            str(path): str(paths.source_root() / path.relative_to(self.build_lib))
            for path in self._built()
        }

    def copy_extensions_to_source(self) -> None:
        """Copy libraries and their ``build_info`` into the tree, for editable installs.

        setuptools itself would copy only the libraries. Files of an earlier build of another
        configuration are removed, because Python would load its libraries, too.
        """
        root, base = paths.source_root(), Path(self.build_lib)
        placement.place({path.relative_to(base).as_posix(): path for path in self._built()}, root)


class precompiled_build_ext(cmake_build_ext):  # noqa: N801 - as above
    """Puts precompiled libraries in place instead of compiling (build contract, section 7).

    Attributes:
        left: outputs without reusable libraries, which are compiled
            (``VLLM_PRECOMPILED_PARTIAL=1``).
    """

    left: tuple[str, ...] = ()

    def _asked(self) -> Asked:
        asked = super()._asked()
        settings = (
            dataclasses.replace(asked.settings, components=self.left)
            if self.left
            else asked.settings
        )
        return dataclasses.replace(asked, settings=settings)

    def build_extensions(self) -> None:
        """Find, check and fetch the libraries of each output, and put them below ``build_lib``.

        Outputs without reusable libraries are compiled.

        Raises:
            RefusedError: an output cannot be reused; ``build_lib`` is unchanged.
            FetchError: an output cannot be downloaded; ``build_lib`` is unchanged.
            VllmBuildError: the settings are wrong, or the compilation failed.
        """
        base = Path(self.build_lib).absolute()
        meter, asked = Meter(), self._asked()
        other_variables.warn(asked.settings.inherited)
        with preparation.prepare(
            paths.source_root(),
            asked.settings,
            Context.of_settings(asked.settings, meter),
            target=asked.target,
        ) as reuse:
            files = reuse.fetch()
            meter.report()
            say(reuse.report)
            for decision in reuse.decisions:
                say(
                    f"{decision.wanted.output}: {decision.action}: "
                    f"{decision.where or decision.why}\n"
                )
            self.left = reuse.compiled
            if self.left:
                super().build_extensions()
            compiled = {name: base / name for name in reuse.compiled_files}
            placement.place({**files, **compiled}, base)
