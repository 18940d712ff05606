# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.toolchain import channel_digests, toolchain_builds
from vllm_build.toolchain.toolchain_lock import Lock, LockedFile

if TYPE_CHECKING:
    from pathlib import Path


def locked(version: str, kind: str = "apt") -> LockedFile:
    return LockedFile("b", 0, kind, "n", version, "n", "0" * 64)


@pytest.mark.parametrize(
    ("version", "kind", "expected"),
    [
        ("3.11.2-6+deb12u6", "apt", "3.11.2"),
        ("1:1.2.11.dfsg-2+deb11u2", "apt", "1.2.11.dfsg"),
        ("12.2.0-14+deb12u1", "apt", "12.2.0"),
        ("1.0.3+ds-3", "apt-source", "1.0.3"),
        ("2.31-13+deb11u11", "apt", "2.31"),
        ("6.2+20201114-2+deb11u2", "apt", "6.2"),
        ("5.2.5~beta1-1", "apt", "5.2.5_beta1"),
        ("2.13.0+cpu", "pypi", "2.13.0"),
        ("26.3", "pypi", "26.3"),
        ("1.0", "apt", "1.0"),
    ],
)
def test_upstream_versions(version: str, kind: str, expected: str) -> None:
    assert locked(version, kind).upstream_version == expected


@given(st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~]{0,12}(-[A-Za-z0-9.+~]{1,8})?", fullmatch=True))
def test_an_upstream_version_is_one_word_of_a_package_name(version: str) -> None:
    found = locked(version).upstream_version
    assert found
    assert not set(found) & set("-:~+ ")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        folder = tmp_path / "toolchain" / "recipes" / name
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text("schema_version: 1\n", encoding="utf-8")
        (folder / "build.sh").write_text(
            ". common/used.sh\n" if name == "one" else "true\n", encoding="utf-8"
        )
        needs = 'needs = ["one"]\n' if name == "two" else ""
        text = (
            f'[[build]]\nid = "{name}"\n{needs}[[build.source]]\ntype = "pypi"\n'
            f'requirement = "{name}==1"\n'
        )
        (folder / "sources.toml").write_text(text, encoding="utf-8")
    common = tmp_path / "toolchain" / "recipes" / "common"
    common.mkdir()
    (common / "used.sh").write_text(". deeper.sh\n", encoding="utf-8")
    (common / "deeper.sh").write_text("true\n", encoding="utf-8")
    (common / "unused.sh").write_text("true\n", encoding="utf-8")
    return tmp_path


LOCK = Lock.of(
    [LockedFile(name, 0, "pypi", name, "1", f"{name}.whl", "0" * 64) for name in ("one", "two")]
)


def of(tree: Path, lock: Lock = LOCK) -> dict[str, str]:
    return channel_digests.build_digests(tree, toolchain_builds.load(tree), lock)


def test_a_digest_is_the_same_anywhere(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = of(tree)
    assert all(len(digest) == channel_digests.SHORT for digest in before.values())
    moved = tmp_path_factory.mktemp("elsewhere") / "tree"
    tree.rename(moved)
    assert of(moved) == before


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("one/recipe.yaml", {"one", "two"}),
        ("one/build.sh", {"one", "two"}),
        ("two/build.sh", {"two"}),
        ("common/used.sh", {"one", "two"}),
        ("common/deeper.sh", {"one", "two"}),
        ("common/unused.sh", set()),
        ("two/sources.toml", set()),
    ],
)
def test_a_change_affects_the_builds_that_depend_on_it(
    tree: Path, name: str, changed: set[str]
) -> None:
    before = of(tree)
    with (tree / "toolchain" / "recipes" / name).open("a", encoding="utf-8") as stream:
        stream.write("# more\n")
    after = of(tree)
    assert {build for build in before if before[build] != after[build]} == changed
    assert (channel_digests.combined(before) != channel_digests.combined(after)) == bool(changed)


def test_a_new_file_or_mode_counts(tree: Path) -> None:
    before = of(tree)
    (tree / "toolchain" / "recipes" / "two" / "fix.patch").write_text("x", encoding="utf-8")
    second = of(tree)
    (tree / "toolchain" / "recipes" / "two" / "build.sh").chmod(0o755)
    third = of(tree)
    assert len({before["two"], second["two"], third["two"]}) == 3
    assert before["one"] == third["one"]


@pytest.mark.parametrize(
    "change", [{"sha256": "1" * 64}, {"version": "2"}, {"filename": "other.whl"}]
)
def test_a_lock_entry_counts(tree: Path, change: dict[str, str]) -> None:
    entry = replace(LOCK.files["one"][0], **change)  # type: ignore[arg-type]
    after = of(tree, LOCK.replaced("one", [entry]))
    assert after["one"] != of(tree)["one"]
    assert after["two"] != of(tree)["two"]


def test_how_packages_are_made_counts(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of(tree)
    changed = tmp_path / "normalise.py"
    changed.write_bytes(channel_digests._NORMALISE.read_bytes() + b"# more\n")
    monkeypatch.setattr(channel_digests, "_NORMALISE", changed)
    second = of(tree)
    real = channel_digests.importlib.metadata.version
    monkeypatch.setattr(
        channel_digests.importlib.metadata,
        "version",
        lambda name: "0.0" if name == "zstandard" else real(name),
    )
    third = of(tree)
    assert all(len({before[name], second[name], third[name]}) == 3 for name in before)
