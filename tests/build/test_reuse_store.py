# SPDX-License-Identifier: Apache-2.0
"""Publishing, verifying a store, and the commands."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import DIGEST, LIBRARIES, MACHINE, OUTPUT, RECORD, Build, elf, snapshot, write_zip
from reuse_server import serving
from rich.console import Console as RichConsole

from vllm_build import cli
from vllm_build.reuse import preparation
from vllm_build.reuse.lookup import decisions, offers
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records import fitness
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_check, store_entry, store_publish
from vllm_build.settings.build_settings import Settings
from vllm_build.target.device import Target
from vllm_build.util import files, paths
from vllm_build.util.console import Console
from vllm_build.util.errors import ConfigurationError, FetchError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = f"{OUTPUT} {DIGEST}"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Cache(tmp_path / "cache"))


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (folder / store_entry.digest_path(DIGEST)).read_text(encoding="utf-8")
    )
    return found


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
        # All is in the cache: whether the archive is still there does not matter.
        assert decision.offer.libraries(decision.record) == files
        source.close()
    for path in ctx.cache.root.glob("blobs/*/*"):
        path.unlink()
    with ctx.cache.in_use(), pytest.raises(FetchError):
        decision.offer.libraries(decision.record)


def test_a_store_without_what_it_lists(ctx: Context, tmp_path: Path) -> None:
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


def test_another_platform_stands_beside(ctx: Context, tmp_path: Path) -> None:
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
    with pytest.raises(RefusedError, match="another build") as caught:
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
def test_a_folder_that_is_no_store_is_left_alone(ctx: Context, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mail"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("dear", encoding="utf-8")
    before = everything(folder)
    with pytest.raises(ConfigurationError, match="something else than a store"):
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


def test_what_a_killed_publisher_left_is_removed(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    (folder / "incoming" / "tmpx").mkdir(parents=True)
    store_publish.publish(Build().unpacked(tmp_path / "b"), folder, ctx)
    assert not (folder / "incoming").exists()


@pytest.mark.parametrize("name", [f"digests/.{DIGEST}.json.", ".store.json."])
def test_a_document_that_a_killed_publisher_did_not_finish_is_no_fault(
    ctx: Context, tmp_path: Path, name: str
) -> None:
    folder, built = tmp_path / "store", Build().unpacked(tmp_path / "a")
    store_publish.publish(built, folder, ctx)
    before = store_check.check(folder, ctx)
    # Named as write_text names its temporary files.
    target = folder / name
    handle, left = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    os.write(handle, b'{"out')
    os.close(handle)
    assert store_check.check(folder, ctx) == before
    store_publish.publish(built, folder, ctx)
    assert not Path(left).exists()
    assert store_check.check(folder, ctx) == before


def test_write_text_uses_the_temporary_names_that_are_ignored(
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
def test_another_file_among_the_documents_is_a_fault_and_stays(
    ctx: Context, tmp_path: Path, name: str
) -> None:
    folder, built = tmp_path / "store", Build().unpacked(tmp_path / "a")
    store_publish.publish(built, folder, ctx)
    (folder / "digests" / name).write_text("dear", encoding="utf-8")
    store_publish.publish(built, folder, ctx)
    (problem,) = store_check.check(folder, ctx).problems
    assert name in problem
    assert (folder / "digests" / name).is_file()


def test_a_file_is_no_store(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is a file"):
        store_publish.publish(Build().unpacked(tmp_path / "a"), tmp_path / "file", ctx)


def test_a_folder_that_is_something_else(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.tex").touch()
    with pytest.raises(ConfigurationError, match="something else than a store"):
        store_publish.publish(Build().unpacked(tmp_path / "a"), tmp_path / "store", ctx)
    with pytest.raises(ConfigurationError, match="is no store"):
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
    with pytest.raises(RefusedError, match="as a moment ago"):
        store_publish.publish(built, tmp_path / "store", ctx)
    assert not (tmp_path / "store" / "digests").exists()


def member(folder: Path, number: int = 1) -> Path:
    return folder / store_entry.member_path(
        document(folder)["builds"][0]["members"][number]["sha256"]
    )


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found = document(folder)
    change(found)
    (folder / store_entry.digest_path(DIGEST)).write_text(json.dumps(found), encoding="utf-8")


def swap_record(folder: Path) -> None:
    """An archive beside the record of another build."""
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
        "no JSON",
        lambda folder: (folder / store_entry.digest_path(DIGEST)).write_text("?", encoding="utf-8"),
    ),
    "odd name": ("no digest", lambda folder: (folder / "digests" / "x.json").touch()),
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


def test_an_archive_beside_the_record_of_another(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_publish.publish(Build().wheel(tmp_path / "a"), folder, ctx)
    swap_record(folder)
    (problem,) = store_check.check(folder, ctx).problems
    assert "another record" in problem


def test_files_that_nothing_refers_to(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_publish.publish(Build().unpacked(tmp_path / "a"), folder, ctx)
    (folder / "members" / "00").mkdir(exist_ok=True)
    (folder / "members" / "00" / "odd").touch()
    assert store_check.check(folder, ctx).unused == ("members/00/odd",)
    (folder / store_entry.digest_path(DIGEST)).unlink()
    (folder / "digests").rmdir()
    assert store_check.check(folder, ctx).digests == 0


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    folder, built = str(tmp_path / "store"), Build().unpacked(tmp_path / "built")
    monkeypatch.setattr(paths, "source_root", lambda: built)
    assert cli.main(["publish", "--store", folder]) == 0
    assert f"{KEY}: added" in capsys.readouterr().err
    assert cli.main(["publish", "--store", folder, str(built), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == {KEY: False}
    assert cli.main(["store", "check", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 3
    (tmp_path / "store" / "members" / "odd").touch()
    member(tmp_path / "store").unlink()
    assert cli.main(["store", "check", folder]) == IntegrityError.exit_code
    said = capsys.readouterr().err
    assert "nothing refers to members/odd" in said
    assert "1 problems" in said


def test_the_cache_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path))
    (tmp_path / "reuse" / "blobs").mkdir(parents=True)
    (tmp_path / "reuse" / "blobs" / "x").write_bytes(b"123")
    assert cli.main(["cache", "info"]) == 0
    assert "blobs" in capsys.readouterr().err
    assert cli.main(["cache", "clean", "--older-than", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"][0]["files"] == 0
    assert cli.main(["cache", "clean", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"] == [
        {"folder": "removed", "files": 1, "size": 3}
    ]
    for days in ("x", "-1", "nan", "inf", "1_0", "1e3", "\u0663", "\u00b2", ""):
        assert cli.main(["cache", "clean", f"--older-than={days}"]) == ConfigurationError.exit_code


def test_the_reuse_command(
    root: Path,
    bare: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bare.is_dir()
    (wanted,) = preparation.wanted(
        root, preparation.planned(root, Settings(), Target("cpu", "why"))
    )
    facts = {"build_digest": wanted.digest, "platform": fitness.sysconfig.get_platform()}
    build = Build({name: elf() for name in wanted.libraries}, facts)
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    with serving() as server:
        server.folder = build.wheel(tmp_path / "wheels").parent
        monkeypatch.setenv(
            "VLLM_PRECOMPILED_WHEEL_LOCATION", f"{server.url}/vllm-0.1.0-py3-none-any.whl"
        )
        assert cli.main(["reuse"]) == 0
        said = capsys.readouterr().err
        assert "    vllm-kernels\n        action  reuse\n        where   http://" in said
        assert "fetched 0.0 MB" in said
        assert cli.main(["reuse", "--fetch", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["action"] for row in answer["outputs"]] == ["reuse"]
    assert sorted(answer["files"]) == ["vllm/_C.abi3.so", RECORD]
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(Build().wheel(tmp_path)))
    assert cli.main(["reuse"]) == IntegrityError.exit_code


def test_transfers_on_a_terminal_and_in_a_pipe(console: Console) -> None:
    with console.transfer("x") as counter:
        counter.advance(5)
    stream = io.StringIO()
    shown = Console(_rich=RichConsole(file=stream, force_terminal=True, width=120))
    with shown.transfer("kernels") as counter:
        counter.advance(2_500_000)
    assert "2.5/? MB" in stream.getvalue()
