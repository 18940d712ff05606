# SPDX-License-Identifier: Apache-2.0
"""The setuptools commands that compile the extensions: plan, configure, build, install, record."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import Extension
from setuptools.command.build_ext import build_ext

from vllm_build import build_info, cmake, digest, jobs, kernels_table, plan, torch_files, version
from vllm_build.device import target_device
from vllm_build.errors import ConfigurationError, IntegrityError
from vllm_build.settings import Settings

#: The libtorch release whose stable ABI the extensions are written against; every later one loads them.
TORCH_TARGET = "2.11"


def free_threaded() -> bool:
    """Whether this CPython has no GIL; such interpreters have no limited API before 3.15."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def _stable_path(build: Path, name: str, target: Path) -> Path:
    """A link in the build directory to ``target``, which may lie in a temporary environment of pip with another path in every build."""
    link = build / "inputs" / name
    if not link.is_symlink() or link.readlink() != target:
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return link


class CMakeExtension(Extension):
    """An extension that CMake builds: a name for setuptools, no sources of its own.

    Attributes:
        cmake_lists_dir: the folder with CMakeLists.txt.
    """

    def __init__(self, name: str, cmake_lists_dir: str = ".", **options: Any) -> None:
        super().__init__(name, sources=[], py_limited_api=not free_threaded(), **options)
        self.cmake_lists_dir = str(Path(cmake_lists_dir).resolve())


class cmake_build_ext(build_ext):  # noqa: N801 - setuptools commands are named in lower case
    """Builds all :class:`CMakeExtension` of the distribution with one CMake project."""

    def _root(self) -> Path:
        return Path(__file__).resolve().parents[2]

    def _build_dir(self, settings: Settings, device: str) -> Path:
        """One folder per configuration, outside pip's temporary folders, kept between calls."""
        abi = "abi3" if not free_threaded() else sysconfig.get_config_var("SOABI")
        root = settings.build_root or self._root() / "build"
        return root / f"{device}-{abi}-{self._build_type(settings).lower()}"

    def _build_type(self, settings: Settings) -> str:
        return settings.build_type or ("Debug" if self.debug else "RelWithDebInfo")

    def compute_num_jobs(self) -> tuple[int, int | None]:
        """Compile jobs at once, and threads per compiler where the compiler has such an option."""
        settings = Settings.from_environ()
        resolved = plan.resolve(kernels_table.load(self._root()), target_device(settings))
        chosen = jobs.decide(settings.max_jobs, unit_bytes=resolved.unit_bytes)
        sys.stderr.write(f"jobs: {chosen.count} ({'; '.join(chosen.why)})\n")
        return chosen.count, None

    def configure(self, ext: CMakeExtension) -> None:
        """Write the plan and run CMake's configure step for the project of ``ext``."""
        settings, root = Settings.from_environ(), self._root()
        device = target_device(settings)
        build = self._build_dir(settings, device)
        build.mkdir(parents=True, exist_ok=True)
        resolved = plan.resolve(kernels_table.load(root), device)
        plan_file, text = build / "plan.json", resolved.to_json()
        if not plan_file.is_file() or plan_file.read_text(encoding="utf-8") != text:
            plan_file.write_text(text, encoding="utf-8")
        torch = torch_files.find()
        sys.stderr.write(f"device: {device}; torch {torch.version} headers from {torch.origin}\n")
        definitions = {
            "CMAKE_BUILD_TYPE": self._build_type(settings),
            "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
            "VLLM_PLAN": str(plan_file),
            "VLLM_TORCH_INCLUDE_DIRS": str(_stable_path(build, "torch-include", torch.include)),
            "VLLM_TORCH_CPU_LIBRARY": str(torch.library),
            "VLLM_PYTHON_INCLUDE_DIR": str(_stable_path(build, "python-include", Path(sysconfig.get_path("include")))),
            "VLLM_EXT_SUFFIX": ".so" if free_threaded() else ".abi3.so",
            "VLLM_ABI3": "OFF" if free_threaded() else "ON",
            "VLLM_WERROR": "ON" if settings.werror else "OFF",
        }
        if settings.highway_source:
            definitions["HIGHWAY_SRC_DIR"] = str(settings.highway_source)
        if launcher := cmake.compiler_launcher(settings, os.environ):
            definitions |= {"CMAKE_C_COMPILER_LAUNCHER": launcher, "CMAKE_CXX_COMPILER_LAUNCHER": launcher}
        command = cmake.configure_command(Path(ext.cmake_lists_dir), build, definitions, settings)
        cmake.run(command, cwd=build, env=os.environ, what="cmake configure", verbose=settings.verbose)

    def build_extensions(self) -> None:
        """Compile what is out of date, install each component below ``build_lib`` and write its ``build_info``."""
        extensions = [ext for ext in self.extensions if isinstance(ext, CMakeExtension)]
        if not extensions:
            return
        settings, root = Settings.from_environ(), self._root()
        found = digest.kernel_digest(root)
        if settings.kernel_digest and settings.kernel_digest not in (found, found[: digest.SHORT]):
            raise IntegrityError(
                f"the kernel sources have the digest {found[: digest.SHORT]}, the caller announced {settings.kernel_digest}",
                expected="recipe/variants.yaml in step with the tree",
                remedy="vllm-build stamp",
            )
        device = target_device(settings)
        resolved = plan.resolve(kernels_table.load(root), device)
        build = self._build_dir(settings, device)
        self.configure(extensions[0])
        count, _ = self.compute_num_jobs()
        command = [cmake.find_program("cmake"), "--build", str(build), "--parallel", str(count)]
        cmake.run(command, cwd=build, env=os.environ, what="the build", verbose=settings.verbose)
        target = root if self.inplace else Path(self.build_lib).absolute()
        for component in resolved.components:
            install = [cmake.find_program("cmake"), "--install", str(build), "--component", component, "--prefix", str(target)]
            cmake.run(install, cwd=build, env=os.environ, what=f"installing {component}", verbose=settings.verbose)
            self._record(component, resolved, build, target, found)

    def _record(self, component: str, resolved: plan.Plan, build: Path, target: Path, kernel_digest: str) -> None:
        settings, root = Settings.from_environ(), self._root()
        suffix = ".so" if free_threaded() else ".abi3.so"
        built = []
        for extension in resolved.extensions:
            if extension.component != component:
                continue
            path = target / extension.output_file(suffix)
            if not path.is_file():
                raise ConfigurationError(f"CMake installed no {path}", expected=f"the library of {extension.name}")
            built.append(build_info.describe(extension.name, path, target, tuple(k.name for k in extension.kernels)))
        document = {
            "component": component,
            "version": version.full_version(root, settings, resolved.device),
            "device": resolved.device,
            "kernel_digest": kernel_digest,
            "torch_target": TORCH_TARGET,
            "torch_headers": torch_files.find().version,
            "python_abi": "abi3" if not free_threaded() else sysconfig.get_config_var("SOABI"),
            "build_type": self._build_type(settings),
            "compiler": build_info.compiler_of(build),
        }
        build_info.write(target / "vllm" / "_build_info" / f"{component}.json", document, tuple(built))

    def copy_extensions_to_source(self) -> None:
        """Editable installs: setuptools builds apart and copies libraries back by name; their ``build_info`` belongs beside them."""
        build_py = self.get_finalized_command("build_py")
        build_py.ensure_finalized()
        for built in self.get_outputs():
            target = self._root() / Path(built).relative_to(self.build_lib)
            target.parent.mkdir(parents=True, exist_ok=True)
            # A library that is mapped into a running process is replaced, never overwritten.
            temporary = target.with_name(target.name + ".new")
            shutil.copy2(built, temporary)
            temporary.replace(target)

    def get_outputs(self) -> list[str]:
        """Files this command adds to a distribution: libraries and their ``build_info``."""
        base = Path(self.build_lib)
        return [str(path) for pattern in ("vllm/**/*.so", "vllm/_build_info/*.json") for path in sorted(base.glob(pattern))]
