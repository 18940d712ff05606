# SPDX-License-Identifier: Apache-2.0
"""The digests that an edit of each tracked file changes, for tests/build/test_digest_rules.py."""

from __future__ import annotations

#: Every output with libraries; one of them at least; the noarch package; how every conda package is
#: packed; how one is packed; how the two with the engine's files are; the toolchain channel.
LIBRARIES, SOME_LIBRARY, PACKAGE, RECIPE, ONE_RECIPE, ENGINES_RECIPES, CHANNEL = (
    "libraries",
    "some library",
    "package",
    "recipe",
    "one recipe",
    "the engine's recipes",
    "channel",
)
NOTHING: frozenset[str] = frozenset()

#: Prefix → the digests that change. The longest prefix that matches a file applies.
TABLE: dict[str, frozenset[str]] = {
    "CMakeLists.txt": frozenset({LIBRARIES}),
    "cmake/": frozenset({LIBRARIES}),
    "csrc/": frozenset({SOME_LIBRARY}),
    "setup.py": frozenset({LIBRARIES, PACKAGE}),
    "VERSION": frozenset({LIBRARIES, PACKAGE}),
    "third_party/engine.toml": frozenset({PACKAGE}),
    "third_party/patches/": frozenset({SOME_LIBRARY}),
    "third_party/licenses/": frozenset({PACKAGE, RECIPE}),
    "third_party/licenses/vllm/": frozenset({PACKAGE, ENGINES_RECIPES}),
    "vllm/": frozenset({PACKAGE}),
    "requirements/": frozenset({PACKAGE}),
    "pyproject.toml": frozenset({PACKAGE}),
    "LICENSE": frozenset({PACKAGE, RECIPE}),
    "README.md": frozenset({PACKAGE}),
    "recipe/": frozenset({RECIPE}),
    "recipe/vllm/": frozenset({ONE_RECIPE}),
    "recipe/vllm-engine-kernels/": frozenset({ONE_RECIPE}),
    "recipe/vllm-flash-attn/": frozenset({ONE_RECIPE}),
    "recipe/vllm-flashmla/": frozenset({ONE_RECIPE}),
    "recipe/vllm-kernels/": frozenset({ONE_RECIPE}),
    "requirements/tools.txt": frozenset({RECIPE}),
    "toolchain/recipes/": frozenset({CHANNEL}),
    "toolchain/wheels/": frozenset({CHANNEL}),
    "scripts/vllm_build/__init__.py": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/backend.py": frozenset({PACKAGE}),
    "scripts/vllm_build/engine/": frozenset({PACKAGE}),
    "scripts/vllm_build/util/": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/settings/": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/target/": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/architectures/": frozenset({LIBRARIES}),
    "scripts/vllm_build/target/requested_archs.py": frozenset({LIBRARIES}),
    "scripts/vllm_build/target/toolkits/": frozenset({LIBRARIES}),
    "scripts/vllm_build/target/torch_files.py": frozenset({LIBRARIES}),
    "scripts/vllm_build/project/": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/kernels/": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/kernels/build_plan.py": frozenset({LIBRARIES}),
    "scripts/vllm_build/kernels/kernel_choice.py": frozenset({LIBRARIES}),
    "scripts/vllm_build/kernels/plan_resolver.py": frozenset({LIBRARIES}),
    "scripts/vllm_build/sources/": frozenset({LIBRARIES}),
    "scripts/vllm_build/sources/archive_members.py": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/sources/third_party.py": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/digests/": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/digests/influence.py": frozenset({LIBRARIES}),
    "scripts/vllm_build/native/": frozenset({LIBRARIES}),
    "scripts/vllm_build/wheels/": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/wheels/distribution.py": frozenset({PACKAGE}),
    "scripts/vllm_build/wheels/requirements.py": frozenset({PACKAGE}),
    "scripts/vllm_build/conda/": frozenset({RECIPE}),
    "scripts/vllm_build/packing/": frozenset({RECIPE}),
}

#: Files that change no digest, each with a reason.
UNNAMED: dict[str, str] = {
    ".ci/": "runs the tests",
    ".clang-format": "formats sources, which count by themselves",
    ".git-blame-ignore-revs": "lists commits that only move or format",
    ".gitignore": "lists what builds leave",
    ".pre-commit-config.yaml": "checks sources",
    ".yamllint.yaml": "checks sources",
    ".github/": "templates, and workflows that run the tests",
    "CHANGELOG.md": "documentation",
    "CMakePresets.json": "starts CMake by hand, without setup.py",
    "CODE_OF_CONDUCT.md": "documentation",
    "CONTRIBUTING.md": "documentation",
    "MANIFEST.in": "chooses the files of the sdist; each counts where it is used",
    "Makefile": "starts vllm-build",
    "SECURITY.md": "documentation",
    "benchmarks/": "measures what was built",
    "docs/": "documentation",
    "examples/": "shows how the packages are built and used",
    "recipe/variants.yaml": "holds the digests themselves",
    "recipe/vllm/variants.yaml": "a link to recipe/variants.yaml",
    "recipe/vllm-engine-kernels/variants.yaml": "a link to recipe/variants.yaml",
    "recipe/vllm-flash-attn/variants.yaml": "a link to recipe/variants.yaml",
    "recipe/vllm-flashmla/variants.yaml": "a link to recipe/variants.yaml",
    "recipe/vllm-kernels/variants.yaml": "a link to recipe/variants.yaml",
    "requirements/dev.txt": "pins tools of the tests",
    "requirements/docs.txt": "pins tools of the documentation",
    "requirements/gfx.txt": "pins the tables of a test's emulator",
    "scripts/pyproject.toml": "installs vllm-build",
    "scripts/bin/": "starts vllm-build",
    "scripts/engine_demo/": "shows the installed engine, with a model of its own",
    "scripts/lint/": "checks prose",
    "tests/": "tests of the tree; the recipe's own tests lie in recipe/",
    "third_party/engine-ops.toml": "explains ops that are missing, for the tests",
    "variants/": "rattler-build hashes the values that the recipe reads into the build string",
    "scripts/vllm_build/__main__.py": "starts the command line",
    "scripts/vllm_build/checks/": "checks libraries without changing them",
    "scripts/vllm_build/cli.py": "parses the command line",
    "scripts/vllm_build/commands/": "the command line; the modules that it calls count themselves",
    "scripts/vllm_build/digests/recipe_stamp.py": ("writes the digests into recipe/variants.yaml"),
    "scripts/vllm_build/doctor/": "reports what the machine has",
    "scripts/vllm_build/entry.py": "starts the command line",
    "scripts/vllm_build/kernels/op_table.py": "reads the list of ops for the checks",
    "scripts/vllm_build/sources/op_registrations.py": "reads the list of ops for the checks",
    "scripts/vllm_build/native/build_progress.py": "says how long the rest of a build takes",
    "scripts/vllm_build/native/unit_estimates.py": "estimates the time of a build",
    "scripts/vllm_build/native/compile_launcher.py": (
        "runs the compiler's command line unchanged and measures it"
    ),
    "scripts/vllm_build/native/compiler_cache.py": (
        "probes compiler caches, which return the compiler's output"
    ),
    "scripts/vllm_build/native/job_count.py": "decides how many compilers run at once",
    "scripts/vllm_build/native/logged_process.py": "runs CMake and shows its output",
    "scripts/vllm_build/native/machine_limits.py": (
        "reads the machine's memory and CPUs, for the number of jobs"
    ),
    "scripts/vllm_build/native/unit_times.py": "records compile times outside the libraries",
    "scripts/vllm_build/py.typed": "a marker for type checkers",
    "scripts/vllm_build/reuse/": (
        "installs libraries of other builds, each verified by its record's sha256"
    ),
    "scripts/vllm_build/settings/invocation.py": "passes the environment to the command line",
    "scripts/vllm_build/settings/other_variables.py": "warns about variables that have no effect",
    "scripts/vllm_build/settings/settings_page.py": "writes documentation",
    "scripts/vllm_build/toolchain/": "builds the toolchain channel; the channel digest covers it",
    "scripts/vllm_build/util/clock.py": "refuses files with a time in the future",
    "scripts/vllm_build/util/console.py": "prints",
    "scripts/vllm_build/util/errors.py": "messages and exit statuses",
    "scripts/vllm_build/util/failures.py": "turns exceptions into messages",
    "scripts/vllm_build/util/locks.py": "waits for other processes",
    "scripts/vllm_build/util/path_rules.py": "refuses folders",
    "scripts/vllm_build/util/processes/": "starts and ends programs",
    "scripts/vllm_build/util/redaction.py": "hides secrets in messages and logs",
    "scripts/vllm_build/util/removal.py": "removes folders",
    "scripts/vllm_build/util/streams.py": "opens the streams of the command line",
    "scripts/vllm_build/util/text_table.py": "lays tables out",
    "scripts/vllm_build/conda/engine_demo.py": "runs the engine of installed packages",
    "scripts/vllm_build/conda/environments/": (
        "installs packages and compares environments with them"
    ),
    "scripts/vllm_build/conda/package_checks.py": "checks packages without changing them",
    "scripts/vllm_build/conda/reused_packages.py": (
        "takes packages of other channels, each verified by its index and record"
    ),
    "scripts/vllm_build/packing/channel_index.py": "reads indexes of channels",
    "scripts/vllm_build/packing/index_check.py": "compares packages with their index",
}

#: Digests of these files cover records and not bytes, so a comment changes none. File → an edit
#: (pattern, replacement) that changes records.
_SHA256 = (r'(?<=sha256 = ")[0-9a-f]{8}', "0" * 8)
RECORDS: dict[str, tuple[str, str, frozenset[str]]] = {
    "csrc/kernels.toml": (
        "FLASHATTENTION_DISABLE_DROPOUT",
        "FLASHATTENTION_X",
        frozenset({SOME_LIBRARY}),
    ),
    "third_party/lock.toml": (*_SHA256, frozenset({SOME_LIBRARY, PACKAGE})),
    "toolchain/lock.toml": (*_SHA256, frozenset({CHANNEL})),
    "toolchain/wheels.toml": ("BSD-3-Clause", "BSD-2-Clause", frozenset({CHANNEL})),
}
