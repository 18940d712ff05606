# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.toolchain import toolchain_builds, toolchain_lock
from vllm_build.toolchain.toolchain_lock import Lock, LockedFile
from vllm_build.util.errors import ConfigurationError

HERE = Path("lock.toml")
texts = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)
files = st.builds(
    LockedFile,
    build=st.sampled_from(["a", "b", "c-3.13t"]),
    position=st.integers(0, 9),
    type=st.sampled_from(toolchain_lock.TYPES),
    name=texts,
    version=texts,
    filename=st.from_regex(r"[a-z0-9][\w.+~%-]{0,20}", fullmatch=True),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    size=st.integers(0, 2**40),
    suite=st.sampled_from(["", "bookworm"]),
    python=st.sampled_from(["", "3.11"]),
    abi=st.sampled_from(["", "cp313t"]),
    requires=st.sampled_from([(), ("one>=1",), ('one>=1; python_version < "3.12"', "two[x]!=2.*")]),
    requires_python=st.sampled_from(["", ">=3.10", "!=3.14.1,>=3.11"]),
)


@given(st.lists(files, max_size=8))
def test_a_written_lock_is_read_and_written_unchanged(entries: list[LockedFile]) -> None:
    lock = Lock.of(entries)
    text = toolchain_lock.dumps(lock)
    assert toolchain_lock.parse(text, HERE) == lock
    assert toolchain_lock.dumps(Lock.of(reversed(entries))) == text


@given(st.text(max_size=200))
def test_any_text_is_a_lock_or_one_clear_error(text: str) -> None:
    caught: ConfigurationError | None = None
    try:
        toolchain_lock.parse(text, HERE)
    except ConfigurationError as error:
        caught = error
    assert caught is None or (
        str(HERE) in caught.message and caught.remedy == toolchain_lock.UPDATE_COMMAND
    )


ENTRY = {
    "build": "a",
    "position": 0,
    "type": "pypi",
    "name": "n",
    "version": "1",
    "filename": "n.whl",
    "sha256": "0" * 64,
}


def dump(entry: dict[str, object]) -> str:
    return "[[file]]\n" + "".join(
        f"{key} = {value if isinstance(value, int) else repr(value)}\n"
        for key, value in entry.items()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 63}, "sha256 is malformed"),
        ({"sha256": "A" * 64}, "sha256 is malformed"),
        ({"type": "git"}, "unknown type 'git'"),
        ({"choice": "first"}, "unknown key 'choice'"),
        ({"filename": "../n.whl"}, "not a plain file name"),
        ({"filename": ".hidden"}, "not a plain file name"),
        ({"position": -1}, "'position' is not a number"),
        ({"size": "big"}, "'size' is not a number"),
        ({"name": 3}, "'name' is not a string"),
        ({"url": "u"}, "unknown key 'url'"),
    ],
)
def test_bad_entries(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        toolchain_lock.parse(dump(ENTRY) + dump(ENTRY | change), HERE)
    assert message in caught.value.message
    assert "number 2" in caught.value.message


@pytest.mark.parametrize("key", sorted(ENTRY))
def test_incomplete_entries(key: str) -> None:
    entry = {name: value for name, value in ENTRY.items() if name != key}
    with pytest.raises(ConfigurationError, match=f"'{key}' is missing"):
        toolchain_lock.parse(dump(entry), HERE)


def test_other_content() -> None:
    with pytest.raises(ConfigurationError, match="unknown content"):
        toolchain_lock.parse("version = 1\n", HERE)


def test_a_build_that_is_not_locked_names_the_command() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Lock().of_build("cmake")
    assert "vllm-build toolchain --update cmake" in str(caught.value)


def test_a_tree_without_a_lock_has_an_empty_one(tmp_path: Path) -> None:
    assert toolchain_lock.read(tmp_path) == Lock()


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock.of([LockedFile(**ENTRY)])  # type: ignore[arg-type]
    toolchain_lock.write(tmp_path, lock)
    assert toolchain_lock.read(tmp_path) == lock

    def broken(_self: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(KeyboardInterrupt):
        toolchain_lock.write(tmp_path, Lock())
    assert toolchain_lock.read(tmp_path) == lock
    assert [path.name for path in (tmp_path / "toolchain").iterdir()] == ["lock.toml"]


def test_the_lock_of_this_tree_is_complete_and_has_no_address(root: Path) -> None:
    text = toolchain_lock.path_of(root).read_text(encoding="utf-8")
    assert not re.search(r"://|\.org|\.com|file:|/home|/opt", text)
    lock = toolchain_lock.parse(text, HERE)
    assert toolchain_lock.dumps(lock) == text
    for build in toolchain_builds.load(root):
        if not build.sources:
            continue
        locked = {
            (file.type, file.name.lower().replace("_", "-")) for file in lock.of_build(build.id)
        }
        for source in build.sources:
            if isinstance(source, toolchain_builds.AptSource):
                wanted = {("apt", name) for name in source.packages}
            elif isinstance(source, toolchain_builds.AptSourcePackage):
                wanted = {("apt-source", source.package)}
            else:
                wanted = {("pypi", source.requirement.partition("=")[0].lower().replace("_", "-"))}
            assert wanted <= locked, (
                f"{build.id}: run {toolchain_lock.UPDATE_COMMAND} --only {build.id}"
            )
