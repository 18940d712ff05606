# SPDX-License-Identifier: Apache-2.0
"""A table of the digests that an edit of each tracked file changes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from digest_table import (
    CHANNEL,
    ENGINES_RECIPES,
    LIBRARIES,
    NOTHING,
    ONE_RECIPE,
    PACKAGE,
    RECIPE,
    RECORDS,
    SOME_LIBRARY,
    TABLE,
    UNNAMED,
)
from trees import copy_tree

from vllm_build.digests import digest_rules, kernel_inputs, tree_digests, tree_files
from vllm_build.toolchain import channel_digests, toolchain_builds, toolchain_lock

ROOT = Path(__file__).resolve().parents[2]


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
    kinds = {0: set(), 1: {ONE_RECIPE}, 2: {ENGINES_RECIPES}, len(recipes): {RECIPE}}
    packed = kinds[len(moved & recipes)]
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
def tree(tmp_path: Path) -> Path:
    return copy_tree(tmp_path / "tree")


def channel_digest(root: Path) -> str:
    builds, lock = toolchain_builds.load(root), toolchain_lock.read(root)
    return channel_digests.combined(channel_digests.build_digests(root, builds, lock))


def digests(root: Path) -> dict[str, str]:
    return {
        **{name: tree_digests.of_entries(entries) for name, entries in inputs(root).items()},
        CHANNEL: channel_digest(root),
    }


def first_of(row: str, tracked: list[str]) -> str:
    """The first tracked file of a row of the tables."""
    return next(
        name
        for name in tracked
        if (name == row or (row.endswith("/") and name.startswith(row))) and name not in RECORDS
    )


def test_edits_move_the_names_of_their_rows(tree: Path, tracked: list[str]) -> None:
    """Digests follow the entries, which the first test compares with the table."""
    before = digests(tree)
    rows = [row for row in TABLE if CHANNEL in TABLE[row]]
    for row in (*rows, "scripts/vllm_build/native/cmake_configure.py"):
        file = first_of(row, tracked)
        path, content = tree / file, (tree / file).read_bytes()
        path.write_bytes(content + b"\n# edited\n")
        after = digests(tree)
        path.write_bytes(content)
        moved = {name for name in after if after[name] != before[name]}
        assert summary(tree, moved) == expected(file), file
    assert digests(tree) == before
    for row in TABLE:
        if CHANNEL not in TABLE[row]:
            with (tree / first_of(row, tracked)).open("ab") as stream:
                stream.write(b"\n# edited\n")
    after = digests(tree)
    assert {name for name in after if after[name] != before[name]} == before.keys() - {CHANNEL}


def test_an_edit_of_all_files_that_no_digest_covers_moves_nothing(
    tree: Path, tracked: list[str]
) -> None:
    before = digests(tree)
    for file in {first_of(row, tracked) for row in UNNAMED}:
        if expected(file) == NOTHING:  # a row of TABLE may be longer
            with (tree / file).open("ab") as stream:
                stream.write(b"\n# edited\n")
    assert digests(tree) == before


def test_every_file_of_a_toolchain_recipe_moves_the_channel(tree: Path, tracked: list[str]) -> None:
    # Neither the builds nor the lock are read from the files that are edited.
    builds, lock = toolchain_builds.load(tree), toolchain_lock.read(tree)
    still, before = [], channel_digests.build_digests(tree, builds, lock)
    for file in tracked:
        # The digest covers the locked files and the variant in sources.toml, not its bytes.
        if not file.startswith(("toolchain/recipes/", "toolchain/wheels/")) or file.endswith(
            "/sources.toml"
        ):
            continue
        path, content = tree / file, (tree / file).read_bytes()
        path.write_bytes(content + b"\n# edited\n")
        if channel_digests.build_digests(tree, builds, lock) == before:
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


def test_another_engine_renames_the_packages_with_it_alone(tree: Path) -> None:
    """Its entry in the lock, its tables, its license texts and the code that merges it."""
    before, lock = digests(tree), tree / "third_party" / "lock.toml"
    head, _, entry = lock.read_text(encoding="utf-8").partition('name = "vllm"')
    lock.write_text(
        head + 'name = "vllm"' + re.sub(r'(?m)^version = ".*"', 'version = "9.9"', entry), "utf-8"
    )
    for file in (
        "third_party/engine.toml",
        "third_party/engine-ops.toml",
        "third_party/licenses/vllm/LICENSE",
        "requirements/engine.toml",
        "scripts/vllm_build/engine/faces.py",
        "scripts/vllm_build/engine/engine_source.py",
        "scripts/vllm_build/wheels/distribution.py",
    ):
        (tree / file).write_bytes((tree / file).read_bytes() + b"\n# edited\n")
    after = digests(tree)
    assert {name for name in after if after[name] != before[name]} == {
        PACKAGE,
        f"{RECIPE} vllm",
        # It contains the same license texts.
        f"{RECIPE} vllm-engine-kernels",
    }


@pytest.mark.parametrize(
    "file",
    [
        "third_party/engine.toml",
        "requirements/engine.toml",
        "scripts/vllm_build/engine/faces.py",
        "scripts/vllm_build/engine/engine_source.py",
        "scripts/vllm_build/engine/engine_requirements.py",
        "scripts/vllm_build/sources/archive_members.py",
        "scripts/vllm_build/sources/third_party.py",
        "scripts/vllm_build/wheels/distribution.py",
        "scripts/vllm_build/wheels/package_commands.py",
        "scripts/vllm_build/project/distribution_version.py",
        "vllm/_kernels/engine/__init__.py",
    ],
)
def test_what_makes_the_package_with_the_engine_counts(root: Path, file: str) -> None:
    assert file in tree_digests.package_inputs(root)
    assert "third_party/lock.toml [vllm]" in tree_digests.package_inputs(root)


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
