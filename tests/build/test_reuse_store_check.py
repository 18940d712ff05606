# SPDX-License-Identifier: Apache-2.0
"""Verification of a store: every damage and every foreign file is found."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import DIGEST, Build, elf
from reuse_stores import document, member

from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.stores import store_check, store_entry, store_publish
from vllm_build.util import files

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Cache(tmp_path / "cache"))


@pytest.mark.parametrize("name", [f"digests/.{DIGEST}.json.", ".store.json."])
def test_an_unfinished_document_is_not_a_problem(ctx: Context, tmp_path: Path, name: str) -> None:
    folder, built = tmp_path / "store", Build().unpacked(tmp_path / "a")
    store_publish.publish(built, folder, ctx)
    before = store_check.check(folder, ctx)
    # The name has the form of write_text's temporary files.
    target = folder / name
    handle, left = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    os.write(handle, b'{"out')
    os.close(handle)
    assert store_check.check(folder, ctx) == before
    store_publish.publish(built, folder, ctx)
    assert not Path(left).exists()
    assert store_check.check(folder, ctx) == before


def test_temporary_names_of_write_text_are_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(Path, "replace", lambda self, target: written.append((self, target)))
    files.write_text(tmp_path / f"{DIGEST}.json", "{}")
    ((temporary, target),) = written
    assert files.unfinished(temporary.name) == target.name
    assert store_entry.is_unfinished(temporary)
    assert not store_entry.is_unfinished(target)


@pytest.mark.parametrize(
    "name",
    [
        ".letter.txt",
        ".letter.json.abcdefgh",
        f".{DIGEST}.json",
        f".{DIGEST}.json.abc",
        f"{DIGEST}.json.abcdefgh",
    ],
)
def test_another_file_among_the_documents_is_a_problem_and_stays(
    ctx: Context, tmp_path: Path, name: str
) -> None:
    folder, built = tmp_path / "store", Build().unpacked(tmp_path / "a")
    store_publish.publish(built, folder, ctx)
    (folder / "digests" / name).write_text("dear", encoding="utf-8")
    store_publish.publish(built, folder, ctx)
    (problem,) = store_check.check(folder, ctx).problems
    assert name in problem
    assert (folder / "digests" / name).is_file()


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found = document(folder)
    change(found)
    (folder / store_entry.digest_path(DIGEST)).write_text(json.dumps(found), encoding="utf-8")


def swap_record(folder: Path) -> None:
    """Replace the record by that of another build than the archive's."""
    other = Build(facts={"device": "rocm"}).record()
    sha256 = hashlib.sha256(other).hexdigest()
    (folder / store_entry.member_path(sha256)).parent.mkdir(parents=True, exist_ok=True)
    (folder / store_entry.member_path(sha256)).write_bytes(other)
    rewrite(
        folder,
        lambda found: found["builds"][0]["members"][0].update(sha256=sha256, size=len(other)),
    )


def replace_by_a_link(folder: Path) -> None:
    member(folder).rename(folder / "x")
    member(folder).symlink_to(folder / "x")


DAMAGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "missing member": ("no such file", lambda folder: member(folder).unlink()),
    "shorter member": ("bytes", lambda folder: member(folder).write_bytes(b"")),
    "other member": ("sha256", lambda folder: member(folder).write_bytes(elf(77))),
    "missing record": ("no such file", lambda folder: member(folder, 0).unlink()),
    "link": ("no such file", replace_by_a_link),
    "no document": (
        "not JSON",
        lambda folder: (folder / store_entry.digest_path(DIGEST)).write_text("?", encoding="utf-8"),
    ),
    "odd name": ("not a digest", lambda folder: (folder / "digests" / "x.json").touch()),
    "another kind": (
        "another kind",
        lambda folder: (folder / store_entry.MARKER).write_text("{}", encoding="utf-8"),
    ),
    "contradiction": (
        "contradict",
        lambda folder: rewrite(
            folder, lambda found: found["builds"][0].update(platform="linux-s390x")
        ),
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damages_are_found(ctx: Context, tmp_path: Path, case: str) -> None:
    words, damage = DAMAGES[case]
    folder = tmp_path / "store"
    store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    damage(folder)
    (problem,) = store_check.check(folder, ctx).problems
    assert words in problem


def test_an_archive_with_the_record_of_another_build(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_publish.publish(Build().wheel(tmp_path / "a"), folder, ctx)
    swap_record(folder)
    (problem,) = store_check.check(folder, ctx).problems
    assert "a different record" in problem


def test_files_that_no_document_names(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    (folder / "members" / "00").mkdir(exist_ok=True)
    (folder / "members" / "00" / "odd").touch()
    assert store_check.check(folder, ctx).unused == ("members/00/odd",)
    (folder / store_entry.digest_path(DIGEST)).unlink()
    (folder / "digests").rmdir()
    assert store_check.check(folder, ctx).digests == 0
