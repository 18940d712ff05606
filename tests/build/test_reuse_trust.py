# SPDX-License-Identifier: Apache-2.0
"""Signed stores: publishing, reuse and verification.

The tests of forged statements are in hostile/test_signatures.py.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from reuse_files import DIGEST, LIBRARIES, OUTPUT, Build, elf, snapshot, write_channel
from reuse_keys import Signer, signer
from reuse_server import serving
from reuse_stores import attestations, document_bytes, reuse

from vllm_build import cli
from vllm_build.reuse.lookup import kernel_channel
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import (
    signer_keys,
    store_check,
    store_entry,
    store_publish,
)
from vllm_build.settings.build_settings import Settings
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = f"{OUTPUT} {DIGEST}"
OTHER_PLATFORM = Build(facts={"platform": "linux-s390x"})


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Cache(tmp_path / "cache"))


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return signer(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return signer(tmp_path_factory.mktemp("other"), 2)


@pytest.fixture
def store(ctx: Context, own: Signer, tmp_path: Path) -> Path:
    """A signed store with kernels from a folder."""
    store_publish.publish(Build().unpacked(tmp_path / "built"), tmp_path / "store", ctx, own.key)
    return tmp_path / "store"


@pytest.mark.parametrize("kind", ["wheel", "conda", "unpacked"])
def test_publish_reuse_and_check(ctx: Context, own: Signer, tmp_path: Path, kind: str) -> None:
    built, folder = getattr(Build(), kind)(tmp_path / "built"), tmp_path / "store"
    assert store_publish.publish(built, folder, ctx, own.key) == {KEY: True}
    before = snapshot(folder)
    assert store_publish.publish(built, folder, ctx, own.key) == {KEY: False}
    assert snapshot(folder) == before
    with serving() as server:
        server.folder = folder
        for number, location in enumerate((str(folder), server.url)):
            fresh = Context(Cache(tmp_path / f"cache-{number}"))
            found = reuse(
                fresh, Settings(precompiled_stores=(location,), precompiled_key=own.public)
            )
            assert found == Build().libraries
        asked = [path for path, _ in server.asked if "attestations" in path]
        assert asked == [
            f"/{store_entry.attestation_path(hashlib.sha256(document_bytes(folder)).hexdigest())}"
        ]
    statements = 2 if kind == "conda" else 1
    for key in (None, own.key.public):
        report = store_check.check(folder, ctx, key)
        assert (report.problems, report.unused, report.signer) == ((), (), own.key.public.keyid)
        assert report.files == (3 if kind == "unpacked" else 2) + statements
    assert len(attestations(folder)) == statements


def test_a_digest_has_builds_for_two_platforms(
    ctx: Context, own: Signer, store: Path, tmp_path: Path
) -> None:
    (before,) = attestations(store)
    store_publish.publish(OTHER_PLATFORM.unpacked(tmp_path / "b"), store, ctx, own.key)
    report = store_check.check(store, ctx, own.key.public)
    # The previous signature is kept for clients that already read the previous document.
    assert (report.problems, report.unused) == ((), (store_entry.attestation_path(before),))
    assert reuse(ctx, Settings(precompiled_stores=(str(store),), precompiled_key=own.public))


def test_a_changed_document_is_not_signed_again(
    ctx: Context, own: Signer, store: Path, tmp_path: Path
) -> None:
    path = store / store_entry.digest_path(DIGEST)
    path.write_bytes(path.read_bytes() + b" ")
    before = snapshot(store)
    for build in (OTHER_PLATFORM, Build()):
        with pytest.raises(RefusedError, match="no statement") as caught:
            store_publish.publish(
                build.unpacked(tmp_path / build.facts.get("platform", "same")), store, ctx, own.key
            )
        assert caught.value.check == "signature"
    assert snapshot(store) == before


def test_a_statement_is_written_before_its_document(
    ctx: Context, own: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher is killed between the two, and the next one completes the store."""
    package, folder, real = (
        Build().conda(tmp_path / "built"),
        tmp_path / "store",
        store_publish.write_text,
    )

    def dies(path: Path, content: str) -> None:
        if path.parent.name == "digests":
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(store_publish, "write_text", dies)
    with pytest.raises(KeyboardInterrupt):
        store_publish.publish(package, folder, ctx, own.key)
    assert len(attestations(folder)) == 2
    before, report = snapshot(folder / "attestations"), store_check.check(folder, ctx)
    assert (report.digests, report.problems) == (0, ())
    monkeypatch.setattr(store_publish, "write_text", real)
    store_publish.publish(package, folder, ctx, own.key)
    assert snapshot(folder / "attestations") == before
    assert store_check.check(folder, ctx).unused == ()


def test_only_the_signer_may_publish(
    ctx: Context, own: Signer, other: Signer, store: Path, tmp_path: Path
) -> None:
    built, plain = Build().unpacked(tmp_path / "built"), tmp_path / "plain"
    store_publish.publish(built, plain, ctx)
    before = snapshot(store, plain)
    for folder, key, words, remedy in (
        (store, None, "no key was given", "--key"),
        (store, other.key, "is signed with the key", "another folder"),
        (plain, own.key, "without signatures", "another folder"),
    ):
        with pytest.raises(ConfigurationError, match=words) as caught:
            store_publish.publish(built, folder, ctx, key)
        assert remedy in (caught.value.remedy or "")
        assert caught.value.expected
    assert snapshot(store, plain) == before


def test_a_store_without_builds_becomes_a_signed_one(
    ctx: Context, own: Signer, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigurationError):
        store_publish.publish(tmp_path / "nothing", tmp_path / "store", ctx)
    store_publish.publish(Build().unpacked(tmp_path / "built"), tmp_path / "store", ctx, own.key)
    assert store_check.check(tmp_path / "store", ctx).signer == own.key.public.keyid


def test_no_trust_on_first_use(ctx: Context, own: Signer, store: Path) -> None:
    for partial in (True, False):
        with pytest.raises(RefusedError) as caught:
            reuse(ctx, Settings(precompiled_stores=(str(store),)), partial=partial)
        assert caught.value.check == "signature"
        assert own.key.public.keyid in caught.value.message
        assert "VLLM_PRECOMPILED_KEY" in (caught.value.remedy or "")


def test_unsigned_sources_are_refused_if_a_key_is_named(
    ctx: Context, own: Signer, tmp_path: Path
) -> None:
    wheel, plain = Build().wheel(tmp_path / "wheels"), tmp_path / "plain"
    store_publish.publish(wheel, plain, ctx)
    Build().conda(tmp_path / kernel_channel.subdir())
    write_channel(tmp_path, kernel_channel.subdir(), {})
    for settings in (
        Settings(precompiled_stores=(str(plain),)),
        Settings(precompiled_stores=(str(tmp_path),)),
        Settings(precompiled_stores=(str(wheel),)),
        Settings(precompiled_location=str(wheel)),
    ):
        with pytest.raises(
            RefusedError, match="is not signed, and VLLM_PRECOMPILED_KEY names a key"
        ) as caught:
            reuse(ctx, Settings(**{**vars(settings), "precompiled_key": own.public}), partial=True)
        assert caught.value.check == "signature"
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert reuse(
        ctx,
        Settings(
            precompiled_location=str(wheel), precompiled_sha256=sha256, precompiled_key=own.public
        ),
    )


def test_the_user_trusts_another_key(ctx: Context, own: Signer, other: Signer, store: Path) -> None:
    with pytest.raises(RefusedError, match="is signed with the key") as caught:
        reuse(ctx, Settings(precompiled_stores=(str(store),), precompiled_key=other.public))
    assert (caught.value.check, own.key.public.keyid in caught.value.message) == ("signature", True)
    assert other.key.public.keyid in (caught.value.expected or "")
    (problem,) = store_check.check(store, ctx, other.key.public).problems
    assert "is signed with the key" in problem


def test_a_missing_library_is_named(
    ctx: Context, own: Signer, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(signer_keys.importlib, "import_module", absent)
    settings = Settings(precompiled_stores=(str(store),), precompiled_key=own.public)
    needing: list[Callable[[], object]] = [
        lambda: signer_keys.load_private(own.private),
        lambda: reuse(ctx, settings),
        lambda: store_check.check(store, ctx),
    ]
    for work in needing:
        with pytest.raises(ConfigurationError, match="No module named 'securesystemslib") as caught:
            work()
        assert caught.value.remedy == "pip install 'securesystemslib[crypto]'"
    store_publish.publish(Build().unpacked(tmp_path / "built"), tmp_path / "plain", ctx)
    assert reuse(ctx, Settings(precompiled_stores=(str(tmp_path / "plain"),)))
    with pytest.raises(RefusedError, match="no trusted key was given"):
        reuse(ctx, Settings(precompiled_stores=(str(store),)))


def test_the_commands(
    own: Signer,
    other: Signer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    folder = str(tmp_path / "store")
    monkeypatch.setattr(paths, "source_root", lambda: Build().unpacked(tmp_path / "built"))
    assert cli.main(["publish", "--store", folder, "--key", str(own.private)]) == 0
    assert cli.main(["publish", "--store", folder]) == ConfigurationError.exit_code
    assert "add --key FILE" in capsys.readouterr().err
    assert cli.main(["store", "check", folder]) == 0
    said = capsys.readouterr().err
    assert f"signed by the key {own.key.public.keyid}, which the store declares itself" in said
    assert cli.main(["store", "check", folder, "--key", str(own.public)]) == 0
    assert "which --key names" in capsys.readouterr().err
    assert cli.main(["store", "check", folder, "--key", str(own.public), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signer"] == own.key.public.keyid
    assert (
        cli.main(["store", "check", folder, "--key", str(other.public)]) == IntegrityError.exit_code
    )
    assert (
        cli.main(["store", "check", folder, "--key", str(own.private)])
        == ConfigurationError.exit_code
    )


def test_different_bytes_with_a_published_digest(
    ctx: Context, own: Signer, store: Path, tmp_path: Path
) -> None:
    before = snapshot(store)
    with pytest.raises(RefusedError, match="a different build"):
        store_publish.publish(
            Build({name: elf(80) for name in LIBRARIES}).unpacked(tmp_path / "b"),
            store,
            ctx,
            own.key,
        )
    assert snapshot(store) == before
