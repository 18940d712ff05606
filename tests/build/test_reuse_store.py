# SPDX-License-Identifier: Apache-2.0
"""Publishing to a store, and finding in it what was published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import DIGEST, LIBRARIES, MACHINE, OUTPUT, RECORD, Build, elf, snapshot, write_zip
from reuse_server import serving
from reuse_stores import document, member

from vllm_build.reuse.lookup import decisions, offers
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_check, store_publish
from vllm_build.util.errors import ConfigurationError, FetchError

if TYPE_CHECKING:
    from pathlib import Path

KEY = f"{OUTPUT} {DIGEST}"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Cache(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["wheel", "conda", "unpacked"])
def test_publish_and_check(ctx: Context, tmp_path: Path, kind: str) -> None:
    built, folder = getattr(Build(), kind)(tmp_path / "built"), tmp_path / "store"
    assert store_publish.publish(built, folder, ctx) == {KEY: True}
    before = snapshot(folder)
    assert store_publish.publish(built, folder, ctx) == {KEY: False}
    assert snapshot(folder) == before
    report = store_check.check(folder, ctx)
    assert (report.digests, report.problems, report.unused) == (1, (), ())
    assert report.files == (3 if kind == "unpacked" else 2)
    (build,) = document(folder)["builds"]
    assert [file["name"] for file in build["members"]] == [RECORD, *LIBRARIES]
    assert bool(build["archive"]) == (kind != "unpacked")


@pytest.mark.parametrize("kind", ["wheel", "conda", "unpacked"])
@pytest.mark.parametrize("remote", [True, False])
def test_what_was_published_is_found(
    ctx: Context, tmp_path: Path, kind: str, *, remote: bool
) -> None:
    build, folder = (
        Build({name: elf(n, 200_000) for n, name in enumerate(LIBRARIES)}),
        tmp_path / "store",
    )
    store_publish.publish(
        getattr(build, kind)(tmp_path / "built"), folder, Context(Cache(tmp_path / "other"))
    )
    with serving() as server, ctx.cache.in_use():
        server.folder = folder
        source = offers.recognise(ctx, server.url if remote else str(folder))
        (decision,) = decisions.make([build.wanted()], [source], MACHINE, partial=False)
        assert decision.offer is not None
        assert decision.record is not None
        files = decision.offer.libraries(decision.record)
        assert {name: path.read_bytes() for name, path in files.items()} == build.libraries
        assert len([path for path, _ in server.asked if path.startswith("/archives/")]) <= 3
        for path in [*folder.glob("archives/*/*/*"), *folder.glob("members/*/*")]:
            path.unlink()
        # All files are in the cache, so the archive is no longer needed.
        assert decision.offer.libraries(decision.record) == files
        source.close()
    for path in ctx.cache.root.glob("blobs/*/*"):
        path.unlink()
    with ctx.cache.in_use(), pytest.raises(FetchError):
        decision.offer.libraries(decision.record)


def test_a_store_that_lacks_a_listed_file(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_publish.publish(Build().unpacked(tmp_path / "built"), folder, ctx)
    member(folder).unlink()
    ctx.cache.clean()
    with serving() as server, ctx.cache.in_use():
        server.folder = folder
        for location in (str(folder), server.url):
            offer = offers.recognise(ctx, location).find(Build().wanted(), MACHINE)
            assert offer is not None
            with pytest.raises(FetchError, match="the index lists it") as caught:
                offer.libraries(offer.record())
            assert "store check" in (caught.value.remedy or "")


def test_a_digest_has_builds_for_two_platforms(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    store_publish.publish(
        Build(facts={"platform": "linux-s390x"}).unpacked(tmp_path / "b"), folder, ctx
    )
    assert len(document(folder)["builds"]) == 2
    assert store_check.check(folder, ctx).problems == ()


def test_other_bytes_of_the_same_digest_are_refused(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    before = snapshot(folder)
    with pytest.raises(RefusedError, match="a different build") as caught:
        store_publish.publish(
            Build({name: elf(80) for name in LIBRARIES}).unpacked(tmp_path / "b"), folder, ctx
        )
    assert "publish to another store" in (caught.value.remedy or "")
    assert snapshot(folder) == before


@pytest.mark.parametrize("kind", ["nothing", "text", "empty wheel", "damaged"])
def test_what_cannot_be_published(ctx: Context, tmp_path: Path, kind: str) -> None:
    built = tmp_path / "built"
    built.mkdir()
    if kind == "text":
        built = built / "x.txt"
        built.touch()
    elif kind == "empty wheel":
        built = write_zip(built / "x.whl", {"vllm/__init__.py": b""})
    elif kind == "damaged":
        Build().unpacked(built)
        (built / LIBRARIES[0]).write_bytes(b"?")
        (built / "vllm" / "_build_info" / "Odd.json").touch()
    expected = RefusedError if kind in ("damaged", "empty wheel") else ConfigurationError
    with pytest.raises(expected):
        store_publish.publish(built, tmp_path / "store", ctx)
    assert not (tmp_path / "store" / "digests").exists()
    assert not (tmp_path / "store" / "incoming").exists() or not list(
        (tmp_path / "store" / "incoming").iterdir()
    )


def everything(folder: Path) -> dict[str, str | None]:
    return {
        p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize(
    "name",
    ["incoming/letter.txt", "incoming/deep/letter.txt", "digests/letter.txt", "store.json.bak"],
)
def test_a_folder_that_is_not_a_store_is_left_alone(
    ctx: Context, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "mail"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("dear", encoding="utf-8")
    before = everything(folder)
    with pytest.raises(ConfigurationError, match="is not a store, and has other files"):
        store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    assert everything(folder) == before


def test_a_document_of_another_kind_does_not_make_a_store(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    (folder / "incoming").mkdir(parents=True)
    (folder / "incoming" / "order").write_text("x", encoding="utf-8")
    (folder / "store.json").write_text('{"schema": 1, "kind": "bicycles"}', encoding="utf-8")
    with pytest.raises(RefusedError, match="another kind of store"):
        store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    assert (folder / "incoming" / "order").is_file()


def test_a_link_in_a_store_is_not_followed(ctx: Context, tmp_path: Path) -> None:
    folder, target = tmp_path / "store", tmp_path / "target"
    store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    target.mkdir()
    (target / "letter.txt").touch()
    (folder / "incoming").symlink_to(target)
    store_publish.publish(
        Build(facts={"platform": "linux-s390x"}).unpacked(tmp_path / "b"), folder, ctx
    )
    assert (target / "letter.txt").is_file()
    assert not (folder / "incoming").is_symlink()


def test_files_of_a_killed_publisher_are_removed(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    (folder / "incoming" / "tmpx").mkdir(parents=True)
    store_publish.publish(Build().unpacked(tmp_path / "b"), folder, ctx)
    assert not (folder / "incoming").exists()


def test_a_file_is_not_a_store(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is a file"):
        store_publish.publish(Build().unpacked(tmp_path / "a"), tmp_path / "file", ctx)


def test_a_folder_with_other_files(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.tex").touch()
    with pytest.raises(ConfigurationError, match="is not a store, and has other files"):
        store_publish.publish(Build().unpacked(tmp_path / "a"), tmp_path / "store", ctx)
    with pytest.raises(ConfigurationError, match="is not a store"):
        store_check.check(tmp_path / "store", ctx)


def test_a_file_that_changes_while_it_is_published(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Build().unpacked(tmp_path / "a")
    real = store_publish.shutil.copyfileobj

    def copy(source: Any, target: Any, size: int) -> None:
        real(source, target, size)
        target.write(b"?")

    monkeypatch.setattr(store_publish.shutil, "copyfileobj", copy)
    with pytest.raises(RefusedError, match="it changed while it was copied"):
        store_publish.publish(built, tmp_path / "store", ctx)
    assert not (tmp_path / "store" / "digests").exists()
