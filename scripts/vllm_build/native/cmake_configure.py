# SPDX-License-Identifier: Apache-2.0
"""CMake's configure step: what it is told, and whether it has to run again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.native import cmake, logged_process, unit_times
from vllm_build.native.build_configuration import ABI3
from vllm_build.sources import cutlass, flash_attention, stable_inputs, third_party
from vllm_build.target import torch_files
from vllm_build.util import clock
from vllm_build.util.files import write_text
from vllm_build.util.redaction import redact, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_build.native.build_configuration import Configuration
    from vllm_build.native.job_count import Jobs

#: CMake reads these when it first configures a folder and never again, so a change needs a fresh
#: start.
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
#: Absolute run paths would tie a library to one prefix; relative ones ($ORIGIN) are somebody's
#: decision and stay.
_RUN_PATH = re.compile(r"(?<!\S)-Wl,(-rpath|-R|--rpath)[,=](?!'?\$ORIGIN)\S+")
_STAMP = "configured.json"
_STAMP_KEYS = {"root", "generator", "program", "cmake", "definitions", "arguments", "read_once"}


def _identity(program: str | None) -> list[Any]:
    """What a compiler is known by, without running it: an update of the system puts another file at the same path."""
    if not program:
        return []
    path = Path(program).resolve()
    if not path.is_file():
        return [program]
    facts = path.stat()
    return [str(path), facts.st_size, facts.st_mtime_ns]


def _prefixes(config: Configuration) -> list[Path]:
    """Folders that the user has named as places of libraries, the closest first."""
    given = cmake.definition(config.settings.cmake_args, "CMAKE_PREFIX_PATH") or ""
    listed = [
        *given.split(";"),
        *config.settings.inherited.get("CMAKE_PREFIX_PATH", "").split(os.pathsep),
    ]
    conda = [config.settings.host_prefix, config.settings.conda_prefix, Path(sys.prefix)]
    return [*(Path(entry) for entry in listed if entry), *(prefix for prefix in conda if prefix)]


def highway(config: Configuration) -> dict[str, str]:
    """Find Highway, and write nothing.

    Returns CMake variables: none when CMake is to look by itself, or when the plan does not need
    it.

    In this order: ``HIGHWAY_SRC_DIR``; what ``CMAKE_ARGS`` or the environment say; an installed one
    in a prefix that the user named; the locked sources that ``vllm-build fetch`` brought. The
    system's own is CMake's last resort.
    """
    if "hwy" not in config.plan.libraries:
        return {}
    settings = config.settings
    if settings.highway_source:
        return {"HIGHWAY_SRC_DIR": str(settings.highway_source)}
    named = ("hwy_DIR", "hwy_ROOT", "HIGHWAY_SRC_DIR")
    if any(cmake.definition(settings.cmake_args, name) for name in named) or any(
        settings.inherited.get(name) for name in named[:2]
    ):
        return {}
    for prefix in _prefixes(config):
        for folder in ("lib", "lib64", f"lib/{sysconfig.get_config_var('MULTIARCH') or ''}"):
            if (prefix / folder / "cmake" / "hwy" / "hwy-config.cmake").is_file():
                return {"hwy_DIR": str(prefix / folder / "cmake" / "hwy")}
    if cached := third_party.read(config.root)["highway"].cached():
        return {"HIGHWAY_SRC_DIR": str(cached)}
    return {}


def _linked_highway(config: Configuration, inputs: Path) -> dict[str, str]:
    """As :func:`highway`; a link leads to the fetched sources, so that binaries do not hold the path of the cache (``__FILE__``)."""
    found = highway(config)
    if "HIGHWAY_SRC_DIR" in found and not config.settings.highway_source:
        return {
            "HIGHWAY_SRC_DIR": str(
                stable_inputs.link(inputs / "highway", Path(found["HIGHWAY_SRC_DIR"]))
            )
        }
    return found


def _toolkit(config: Configuration) -> dict[str, str]:
    """The compiler of the device, so that CMake does not choose another one than the plan was made for."""
    toolkit = config.target.toolkit
    if toolkit is None:
        return {}
    if toolkit.kind == "cuda":
        return {"CMAKE_CUDA_COMPILER": str(toolkit.compiler), "CUDAToolkit_ROOT": str(toolkit.root)}
    if toolkit.kind == "rocm":
        return {"CMAKE_HIP_COMPILER_ROCM_ROOT": str(toolkit.root)}
    return {}


def launcher() -> str:
    """What stands in front of every compile; CMake copies it into command lines as it is, and puts the quoted object for ``<OBJECT>``."""
    return f"{shlex.join([sys.executable, '-I', '-S', str(unit_times.LAUNCHER), unit_times.RECORD])} <OBJECT>"


def definitions(config: Configuration, heavy_jobs: int = 1) -> dict[str, str]:
    """All CMake variables of a configuration; makes the inputs they point at.

    Raises:
        ToolchainError: torch's headers are not there.
        ConfigurationError, FetchError, IntegrityError: of CUTLASS's and FlashAttention's sources.
    """
    inputs = config.folder / "inputs"
    torch = torch_files.find()
    say(f"torch: {torch.version}, {torch.origin}\n")
    abi3 = config.abi == ABI3
    return {
        "CMAKE_BUILD_TYPE": config.build_type,
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "VLLM_PLAN": str(config.folder / "plan.json"),
        "VLLM_TORCH_INCLUDE_DIRS": str(
            stable_inputs.mirror(
                torch.include, inputs / "torch-include", stable_inputs.TORCH_HEADERS
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
        # Follows from the memory that is free now; without heavy units it must not make CMake run
        # again.
        "VLLM_HEAVY_JOBS": str(heavy_jobs if config.plan.heavy_sources else 1),
        **_toolkit(config),
        **_linked_highway(config, inputs),
        **cutlass.prepare(config.root, config.settings, config.plan, inputs),
        **flash_attention.prepare(config.root, config.settings, config.plan, inputs),
        **cmake.launchers(config.settings),
    }


def _recorded(told: Any) -> Any:
    """What CMake was told, in the form that is kept for comparisons: a text with a secret is redacted, and its sha256 follows."""
    if isinstance(told, str):
        shown = redact(told)
        return (
            told
            if shown == told
            else f"{shown} sha256:{hashlib.sha256(told.encode(errors='surrogateescape')).hexdigest()}"
        )
    if isinstance(told, dict):
        return {name: _recorded(value) for name, value in told.items()}
    return [_recorded(item) for item in told] if isinstance(told, list) else told


def _names(stamp: Mapping[str, Any]) -> set[str]:
    """What a configure step was told, by name: variables, and other arguments as they stand."""
    words = (
        re.sub(r"^(-D\w+)(:\w+)?=.*", r"\1", argument, flags=re.DOTALL)
        for argument in stamp["arguments"]
    )
    return {*stamp["definitions"], *words}


def _fresh_needed(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> bool:
    """Whether what CMake remembers of the folder would win over what it is told now."""
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
    """Write the plan and configure the folder unless nothing has changed since it was configured; returns whether CMake ran.

    A folder whose configuration has a secret in it, as a password in ``CMAKE_ARGS``, becomes its
    owner's alone.

    Args:
        config: what is built.
        heavy_jobs: units of the memory class ``heavy`` that may compile at once.

    Raises:
        BuildError: CMake refused.
        ConfigurationError: the build folder cannot be written, or a file is newer than now.
        ToolchainError: cmake, a generator or torch's headers are missing.
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
    compilers = {
        name: _identity(shutil.which(env.get(variable) or name))
        for variable, name in (("CC", "cc"), ("CXX", "c++"))
    }
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
        # CMake writes its arguments into files of its own, CMakeCache.txt and build.ninja among
        # them.
        folder.chmod(0o700)
    if old == stamp and any((folder / name).is_file() for name in ("build.ninja", "Makefile")):
        return False
    (folder / _STAMP).unlink(missing_ok=True)
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
    """The environment of CMake, the generator and the compilers: the caller's, with what makes builds alike.

    Messages are English, as the search for the first error reads them, and compiler caches count
    the language among their inputs. ccache takes paths below the tree as relative ones, except in
    messages, so that a clone elsewhere hits; it knows which part of ``-ffile-prefix-map`` does not
    count, but not where nvcc hands it to the host compiler. What the user has set stays. Run paths
    in ``LDFLAGS``, as activated conda environments have them, are left out: the libraries have
    theirs, and a folder of this machine is of no use elsewhere.
    """
    inherited = config.settings.inherited
    flags = inherited.get("LDFLAGS")
    return {
        "CCACHE_BASEDIR": str(config.root),
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_ABSSTDERR": "1",
        "CCACHE_IGNOREOPTIONS": "-Xcompiler=-ffile-prefix-map=*",
        **inherited,
        **({"LDFLAGS": without_run_paths(flags)} if flags else {}),
        **(jobs.environment(inherited) if jobs else {}),
        "LC_ALL": "C.UTF-8",
        "NINJA_STATUS": "[%f/%t] ",
    }
