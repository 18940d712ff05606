# SPDX-License-Identifier: Apache-2.0
"""CMake's configure step: its variables, and whether it has to run again."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.native import (
    cmake,
    compiler_cache,
    highway_lookup,
    hip_targets,
    logged_process,
    toolkit_variables,
    unit_times,
)
from vllm_build.native.build_configuration import ABI3
from vllm_build.sources import plan_inputs, stable_inputs
from vllm_build.target import torch_files
from vllm_build.util import clock
from vllm_build.util.files import write_text
from vllm_build.util.redaction import redact, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_build.native.build_configuration import Configuration
    from vllm_build.native.job_count import Jobs

#: CMake reads these variables only when it first configures a folder, so a change of one needs a
#: fresh configuration.
_READ_ONCE = (
    *(
        "CC",
        "CXX",
        "CUDACXX",
        "CUDAHOSTCXX",
        "HIPCXX",
        "CFLAGS",
        "CXXFLAGS",
        "CUDAFLAGS",
        "HIPFLAGS",
        "LDFLAGS",
    ),
    *(
        "CMAKE_PREFIX_PATH",
        "CMAKE_TOOLCHAIN_FILE",
        "CONDA_PREFIX",
        "hwy_DIR",
        "hwy_ROOT",
        "SDKROOT",
        "MACOSX_DEPLOYMENT_TARGET",
    ),
)
#: Absolute run paths would tie a library to one prefix. Relative ones ($ORIGIN) are deliberate and
#: stay.
_RUN_PATH = re.compile(r"(?<!\S)-Wl,(-rpath|-R|--rpath)[,=](?!'?\$ORIGIN)\S+")
#: Folder of the sources and headers that CMake reads, in the build folder.
INPUTS = "inputs"
_STAMP = "configured.json"
_STAMP_KEYS = {"root", "generator", "program", "cmake", "definitions", "arguments", "read_once"}


def _identity(program: str | None) -> list[Any]:
    """Facts that identify a compiler without running it.

    The path alone is not enough: a system update replaces the file.
    """
    if not program:
        return []
    path = Path(program).resolve()
    if not path.is_file():
        return [program]
    facts = path.stat()
    return [str(path), facts.st_size, facts.st_mtime_ns]


def _host_compilers(inherited: Mapping[str, str]) -> dict[str, str | None]:
    """The programs that CMake takes for C and C++."""
    return {
        name: shutil.which(inherited.get(variable) or name)
        for variable, name in (("CC", "cc"), ("CXX", "c++"))
    }


def launcher() -> str:
    """The prefix of every compile command.

    CMake copies it into command lines unchanged, except that it replaces ``<OBJECT>`` by the quoted
    path of the object file.
    """
    command = [sys.executable, "-I", "-S", str(unit_times.LAUNCHER), unit_times.RECORD]
    return f"{shlex.join(command)} <OBJECT>"


def definitions(config: Configuration, heavy_jobs: int = 1) -> dict[str, str]:
    """All CMake variables of a configuration; creates the inputs that they point to.

    Raises:
        ToolchainError: torch's headers are missing.
        ConfigurationError, FetchError, IntegrityError: third-party sources are wrong or missing.
    """
    inputs = config.folder / INPUTS
    torch = torch_files.find()
    say(f"torch: {torch.version}, {torch.origin}\n")
    abi3 = config.abi == ABI3
    return {
        "CMAKE_BUILD_TYPE": config.build_type,
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "VLLM_PLAN": str(config.folder / "plan.json"),
        "VLLM_TORCH_INCLUDE_DIRS": str(
            stable_inputs.mirror(
                torch.include,
                inputs / "torch-include",
                stable_inputs.TORCH_HEADERS,
                change=stable_inputs.without_leak,
            )
        ),
        "VLLM_TORCH_CPU_LIBRARY": str(
            stable_inputs.link(inputs / "torch-lib", torch.library.parent) / torch.library.name
        ),
        "VLLM_PYTHON_INCLUDE_DIR": str(
            stable_inputs.link(inputs / "python-include", Path(sysconfig.get_path("include")))
        ),
        "VLLM_EXT_SUFFIX": config.suffix,
        "VLLM_ABI3": "ON" if abi3 else "OFF",
        "VLLM_COMPILE_LAUNCHER": launcher(),
        "VLLM_WERROR": "ON" if config.settings.werror else "OFF",
        # It depends on the memory that is free now. Without heavy units it must not make CMake run
        # again.
        "VLLM_HEAVY_JOBS": str(heavy_jobs if config.plan.heavy_sources else 1),
        **toolkit_variables.of_target(config.target, config.settings),
        **highway_lookup.link(config, inputs),
        **plan_inputs.prepare(config.root, config.settings, config.plan, inputs),
        **cmake.launchers(config.settings),
    }


def _recorded(told: Any) -> Any:
    """The configuration as it is stored for comparisons: secrets are replaced by a sha256."""
    if isinstance(told, str):
        shown = redact(told)
        if shown == told:
            return told
        digest = hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()
        return f"{shown} sha256:{digest}"
    if isinstance(told, dict):
        return {name: _recorded(value) for name, value in told.items()}
    return [_recorded(item) for item in told] if isinstance(told, list) else told


def _names(stamp: Mapping[str, Any]) -> set[str]:
    """Names of the variables that a configure step was given, and its other arguments."""
    words = (
        re.sub(r"^(-D\w+)(:\w+)?=.*", r"\1", argument, flags=re.DOTALL)
        for argument in stamp["arguments"]
    )
    return {*stamp["definitions"], *words}


def _fresh_needed(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> bool:
    """Whether CMake's cache of the folder would take precedence over the new configuration."""
    if old is None:
        return True
    return any(old[key] != new[key] for key in ("root", "generator", "read_once")) or not _names(
        old
    ) <= _names(new)


def _stamp_of(folder: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and set(stamp) == _STAMP_KEYS else None


def run(config: Configuration, heavy_jobs: int = 1) -> bool:
    """Write the plan, and configure the folder if something has changed; returns whether CMake ran.

    If the configuration contains a secret, such as a password in ``CMAKE_ARGS``, only the owner can
    read the folder afterwards.

    Args:
        config: what is built.
        heavy_jobs: units of the memory class ``heavy`` that may compile at once.

    Raises:
        BuildError: CMake failed.
        ConfigurationError: the build folder cannot be written, or a file has a time in the future.
        ToolchainError: cmake, a generator or torch's headers are missing, or the HIP compiler
            cannot compile for an architecture of the plan.
    """
    folder = config.prepare_folder()
    clock.require_past(config.root, folder)
    plan_file, text = folder / "plan.json", config.plan.to_json()
    if not plan_file.is_file() or plan_file.read_text(encoding="utf-8") != text:
        write_text(plan_file, text)
    program, generator = (
        cmake.find_cmake(config.settings.search_path),
        cmake.find_generator(config.settings),
    )
    env = config.settings.inherited
    compilers = {name: _identity(program) for name, program in _host_compilers(env).items()}
    new: dict[str, Any] = {
        "root": str(config.root),
        "generator": generator.name,
        "program": generator.program,
        "cmake": program,
        "definitions": definitions(config, heavy_jobs),
        "arguments": list(config.settings.cmake_args),
        "read_once": {**{name: env.get(name, "") for name in _READ_ONCE}, **compilers},
    }
    stamp = _recorded(new)
    old = _stamp_of(folder)
    if stamp != new:
        # CMake writes its arguments into files such as CMakeCache.txt and build.ninja.
        folder.chmod(0o700)
    if old == stamp and any((folder / name).is_file() for name in ("build.ninja", "Makefile")):
        return False
    (folder / _STAMP).unlink(missing_ok=True)
    if config.target.toolkit and config.plan.device == "rocm":
        hip_targets.require(config.plan, config.target.toolkit, config.settings)
    command = [
        program,
        "-S",
        new["root"],
        "-B",
        str(folder),
        "-G",
        generator.name,
        "--no-warn-unused-cli",
    ]
    if (folder / "CMakeCache.txt").exists() and _fresh_needed(old, stamp):
        command.append("--fresh")
    if generator.program:
        command.append(f"-DCMAKE_MAKE_PROGRAM={generator.program}")
    command += [f"-D{key}={value}" for key, value in sorted(new["definitions"].items())]
    command += new["arguments"]
    log, verbose = folder / "configure.log", config.settings.verbose
    logged_process.run(
        command,
        cwd=folder,
        env=environment(config),
        what="cmake's configure step",
        log=log,
        verbose=verbose,
    )
    write_text(folder / _STAMP, json.dumps(stamp, indent=2, sort_keys=True) + "\n")
    return True


def without_run_paths(flags: str) -> str:
    """Linker flags without absolute run paths."""
    return _RUN_PATH.sub("", flags)


def environment(config: Configuration, jobs: Jobs | None = None) -> dict[str, str]:
    """The environment of CMake, the generator and the compilers.

    It is the caller's, with additions that make builds reproducible. The user's variables stay.

    - Messages are English, because the search for the first error reads them and because compiler
      caches include the language in their keys.
    - ccache treats paths below the tree as relative, except in messages, so another clone hits the
      cache. It ignores the path in ``-ffile-prefix-map``, but does not recognise that option where
      nvcc passes it to the host compiler; ``CCACHE_IGNOREOPTIONS`` covers that case.
    - ccache's results belong to compilers at these paths (:func:`compiler_cache.namespace`).
    - Absolute run paths in ``LDFLAGS``, which activated conda environments contain, are removed.
      The libraries have their own, and a folder of this machine is useless on another.
    """
    inherited = config.settings.inherited
    flags = inherited.get("LDFLAGS")
    base = inherited.get("CCACHE_BASEDIR") or str(config.root)
    toolkit = config.target.toolkit
    used = [*_host_compilers(inherited).values(), str(toolkit.compiler) if toolkit else None]
    namespace = compiler_cache.namespace(filter(None, used), base)
    return {
        "CCACHE_BASEDIR": base,
        **namespace,
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_ABSSTDERR": "1",
        "CCACHE_IGNOREOPTIONS": "-Xcompiler=-ffile-prefix-map=*",
        **inherited,
        **({"LDFLAGS": without_run_paths(flags)} if flags else {}),
        **(jobs.environment(inherited) if jobs else {}),
        "LC_ALL": "C.UTF-8",
        "NINJA_STATUS": "[%f/%t] ",
    }
