# SPDX-License-Identifier: Apache-2.0
"""A table of the digests that an edit of each tracked file changes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vllm_build.digests import digest_rules, kernel_inputs, tree_digests, tree_files
from vllm_build.toolchain import channel_build, toolchain_builds

ROOT = Path(__file__).resolve().parents[2]

#: Every output with libraries; one of them at least; the noarch package; how every conda package is
#: packed; how one is packed; the toolchain channel.
LIBRARIES, SOME_LIBRARY, PACKAGE, RECIPE, ONE_RECIPE, CHANNEL = (
    "libraries",
    "some library",
    "package",
    "recipe",
    "one recipe",
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
    "third_party/patches/": frozenset({SOME_LIBRARY}),
    "third_party/licenses/": frozenset({PACKAGE, RECIPE}),
    "vllm/": frozenset({PACKAGE}),
    "requirements/": frozenset({PACKAGE}),
    "pyproject.toml": frozenset({PACKAGE}),
    "LICENSE": frozenset({PACKAGE, RECIPE}),
    "README.md": frozenset({PACKAGE}),
    "recipe/": frozenset({RECIPE}),
    "recipe/vllm/": frozenset({ONE_RECIPE}),
    "recipe/vllm-flash-attn/": frozenset({ONE_RECIPE}),
    "recipe/vllm-flashmla/": frozenset({ONE_RECIPE}),
    "recipe/vllm-kernels/": frozenset({ONE_RECIPE}),
    "requirements/tools.txt": frozenset({RECIPE}),
    "toolchain/recipes/": frozenset({CHANNEL}),
    "toolchain/wheels/": frozenset({CHANNEL}),
    "scripts/vllm_build/__init__.py": frozenset({LIBRARIES, PACKAGE}),
    "scripts/vllm_build/backend.py": frozenset({PACKAGE}),
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
    "recipe/vllm-flash-attn/variants.yaml": "a link to recipe/variants.yaml",
    "recipe/vllm-flashmla/variants.yaml": "a link to recipe/variants.yaml",
    "recipe/vllm-kernels/variants.yaml": "a link to recipe/variants.yaml",
    "requirements/dev.txt": "pins tools of the tests",
    "requirements/docs.txt": "pins tools of the documentation",
    "scripts/pyproject.toml": "installs vllm-build",
    "scripts/bin/": "starts vllm-build",
    "scripts/lint/": "checks prose",
    "tests/": "tests of the tree; the recipe's own tests lie in recipe/",
    "variants/": "rattler-build hashes the values that the recipe reads into the build string",
    "scripts/vllm_build/__main__.py": "starts the command line",
    "scripts/vllm_build/checks/": "checks libraries without changing them",
    "scripts/vllm_build/cli.py": "parses the command line",
    "scripts/vllm_build/commands/": "the command line; the modules that it calls count themselves",
    "scripts/vllm_build/digests/recipe_stamp.py": ("writes the digests into recipe/variants.yaml"),
    "scripts/vllm_build/doctor/": "reports what the machine has",
    "scripts/vllm_build/entry.py": "starts the command line",
    "scripts/vllm_build/kernels/op_table.py": "reads the list of ops for the checks",
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
    "third_party/lock.toml": (*_SHA256, frozenset({SOME_LIBRARY})),
    "toolchain/lock.toml": (*_SHA256, frozenset({CHANNEL})),
    "toolchain/wheels.toml": ("BSD-3-Clause", "BSD-2-Clause", frozenset({CHANNEL})),
}


def inputs(root: Path) -> dict[str, dict[str, str]]:
    """Entries of every digest except that of the channel, by name."""
    return {
        **{
            component: kernel_inputs.of(root, component)
            for component in kernel_inputs.components(root)
        },
        PACKAGE: tree_digests.package_inputs(root),
        **{
            f"{RECIPE} {package}": tree_digests.recipe_inputs(root, package)
            for package in digest_rules.conda_packages(root)
        },
    }


def summary(root: Path, moved: set[str]) -> frozenset[str]:
    libraries = set(kernel_inputs.components(root))
    some = {LIBRARIES} if moved >= libraries else {SOME_LIBRARY} if moved & libraries else set()
    recipes = {f"{RECIPE} {package}" for package in digest_rules.conda_packages(root)}
    assert len(moved & recipes) in (0, 1, len(recipes))
    packed = {RECIPE} if moved >= recipes else {ONE_RECIPE} if moved & recipes else set()
    return frozenset((moved - libraries - recipes) | some | packed)


def expected(file: str) -> frozenset[str]:
    """The digests that the tables assign to a file.

    Raises:
        LookupError: the tables do not cover the file.
    """
    known = {**TABLE, **dict.fromkeys(UNNAMED, NOTHING)}
    fitting = [
        prefix
        for prefix in known
        if file == prefix or (prefix.endswith("/") and file.startswith(prefix))
    ]
    if not fitting:
        raise LookupError(
            f"{file}: write down which names it moves, in TABLE or in UNNAMED with the reason"
        )
    return known[max(fitting, key=len)]


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout: the list of tracked files is git's")
    return [name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_every_tracked_file_moves_the_names_that_the_table_says(
    root: Path, tracked: list[str]
) -> None:
    found, wrong = inputs(root), []
    for file in tracked:
        if file in RECORDS or file.startswith("toolchain/"):
            continue
        names = {name for name, entries in found.items() if file in entries}
        # An entry is the digest of the file's bytes, so an edit of the file changes each of these.
        assert all(found[name][file] == tree_files.digest_of(root / file) for name in names), file
        got, want = summary(root, names), expected(file)
        if got != want and not (want == {SOME_LIBRARY} and got == {LIBRARIES}):
            wrong.append(
                f"{file}: moves {sorted(got) or 'nothing'}, the table says "
                f"{sorted(want) or 'nothing'}"
            )
    assert wrong == []


def test_no_row_of_the_table_is_dead(tracked: list[str]) -> None:
    rows = [*TABLE, *UNNAMED]
    assert [
        row
        for row in rows
        if not any(file == row or (row.endswith("/") and file.startswith(row)) for file in tracked)
    ] == []


@pytest.mark.parametrize("name", ["NEITHER", "NOT_IN_LIBRARIES", "NOT_IN_PACKAGE", "NOT_IN_RECIPE"])
def test_no_exclusion_is_dead(root: Path, name: str) -> None:
    table = getattr(digest_rules, name)
    assert all(table.values())
    assert [
        entry for entry in table if not (root / digest_rules.BUILD_LIBRARY / entry).exists()
    ] == []


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "tree"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".git", ".venv", "output", "*.so"))
    return copy


def channel_digest(root: Path) -> str:
    return channel_build.channel_digest(root, [build.id for build in toolchain_builds.load(root)])


def digests(root: Path) -> dict[str, str]:
    return {
        **{name: tree_digests.of_entries(entries) for name, entries in inputs(root).items()},
        CHANNEL: channel_digest(root),
    }


def test_an_edit_of_one_file_of_each_row_moves_its_names(tree: Path, tracked: list[str]) -> None:
    wrong, before = [], digests(tree)
    # The test above checks the entries of every module. One edit shows that digests follow entries.
    rows = [
        row for row in (*TABLE, *UNNAMED) if not re.fullmatch(r"scripts/vllm_build/[\w/]+\.py", row)
    ]
    for row in (*rows, "scripts/vllm_build/native/cmake_configure.py"):
        file = next(
            name
            for name in tracked
            if (name == row or (row.endswith("/") and name.startswith(row))) and name not in RECORDS
        )
        path, content = tree / file, (tree / file).read_bytes()
        path.write_bytes(content + b"\n# edited\n")
        after = digests(tree)
        path.write_bytes(content)
        got, want = (
            summary(tree, {name for name in after if after[name] != before[name]}),
            expected(file),
        )
        if got != want and not (want == {SOME_LIBRARY} and got == {LIBRARIES}):
            wrong.append(f"{file}: moves {sorted(got)}, the table says {sorted(want)}")
    assert wrong == []
    assert digests(tree) == before


def test_every_file_of_a_toolchain_recipe_moves_the_channel(tree: Path, tracked: list[str]) -> None:
    still, before = [], channel_digest(tree)
    for file in tracked:
        # The digest covers the locked files and the variant in sources.toml, not its bytes.
        if not file.startswith(("toolchain/recipes/", "toolchain/wheels/")) or file.endswith(
            "/sources.toml"
        ):
            continue
        path, content = tree / file, (tree / file).read_bytes()
        path.write_bytes(content + b"\n# edited\n")
        if channel_digest(tree) == before:
            still.append(file)
        path.write_bytes(content)
    assert still == []


@pytest.mark.parametrize("file", RECORDS)
def test_an_edited_record_moves_its_names(tree: Path, file: str) -> None:
    pattern, new, want = RECORDS[file]
    before, path = digests(tree), tree / file
    text = path.read_text(encoding="utf-8")
    assert re.search(pattern, text)
    path.write_text(re.sub(pattern, new, text), encoding="utf-8")
    after = digests(tree)
    got = summary(tree, {name for name in after if after[name] != before[name]})
    assert got == want or (want == {SOME_LIBRARY} and got == {LIBRARIES})
    path.write_text(text + "\n# a comment\n", encoding="utf-8")
    assert digests(tree) == before


def test_a_new_module_counts_until_somebody_says_why_not(tree: Path) -> None:
    before = digests(tree)
    (tree / digest_rules.BUILD_LIBRARY / "new_module.py").write_text("x = 1\n", encoding="utf-8")
    after = digests(tree)
    assert {name for name in after if after[name] != before[name]} == {
        *kernel_inputs.components(tree),
        PACKAGE,
    }
    (tree / digest_rules.BUILD_LIBRARY / "conda" / "new_module.py").write_text(
        "x = 1\n", encoding="utf-8"
    )
    moved = {name for name, value in digests(tree).items() if value != after[name]}
    assert moved == {f"{RECIPE} {package}" for package in digest_rules.conda_packages(tree)}


@pytest.mark.parametrize("package", digest_rules.conda_packages(ROOT))
def test_an_edited_recipe_moves_the_name_of_its_own_package_alone(tree: Path, package: str) -> None:
    before, path = digests(tree), tree / "recipe" / package / "recipe.yaml"
    path.write_bytes(path.read_bytes() + b"\n# edited\n")
    after = digests(tree)
    assert {name for name in after if after[name] != before[name]} == {f"{RECIPE} {package}"}


def test_the_digests_of_a_clean_tree_are_those_of_its_copy(root: Path, tree: Path) -> None:
    (tree / digest_rules.BUILD_LIBRARY / "__pycache__").mkdir(exist_ok=True)
    (tree / digest_rules.BUILD_LIBRARY / "__pycache__" / "x.pyc").write_bytes(b"\0")
    assert digests(root) == digests(tree)
