# SPDX-License-Identifier: Apache-2.0
"""Signed stores: publishing, reuse, verification, keys.

What is forged is in hostile/test_signatures.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_public_key,
)
from hypothesis import given
from hypothesis import strategies as st
from reuse_files import DIGEST, LIBRARIES, MACHINE, OUTPUT, Build, elf, snapshot, write_channel
from reuse_keys import Signer, envelope, pae, payload_of, signer, write_pem
from reuse_server import serving

from vllm_build import cli
from vllm_build.reuse.lookup import decisions, kernel_channel, offers
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import (
    signed_statement,
    signer_keys,
    store_check,
    store_entry,
    store_publish,
    trust,
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


def document(store: Path) -> bytes:
    return (store / store_entry.digest_path(DIGEST)).read_bytes()


def attestations(store: Path) -> dict[str, str]:
    """Statements by the sha256 of their subjects."""
    return {path.stem: path.read_text(encoding="utf-8") for path in store.glob("attestations/*/*")}


def reuse(ctx: Context, settings: Settings, *, partial: bool = False) -> dict[str, bytes]:
    with ctx.cache.in_use():
        opened = offers.of_settings(ctx, settings)
        try:
            (decision,) = decisions.make([Build().wanted()], opened, MACHINE, partial=partial)
            assert decision.offer is not None
            assert decision.record is not None
            return {
                name: path.read_bytes()
                for name, path in decision.offer.libraries(decision.record).items()
            }
        finally:
            for source in opened:
                source.close()


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
            f"/{store_entry.attestation_path(hashlib.sha256(document(folder)).hexdigest())}"
        ]
    statements = 2 if kind == "conda" else 1
    for key in (None, own.key.public):
        report = store_check.check(folder, ctx, key)
        assert (report.problems, report.unused, report.signer) == ((), (), own.key.public.keyid)
        assert report.files == (3 if kind == "unpacked" else 2) + statements
    assert len(attestations(folder)) == statements


def test_the_statement_about_a_document(own: Signer, store: Path) -> None:
    """Read and verified here without the library."""
    ((sha256, text),) = attestations(store).items()
    assert sha256 == hashlib.sha256(document(store)).hexdigest()
    assert payload_of(text) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"digests/{DIGEST}.json", "digest": {"sha256": sha256}}],
        "predicateType": "https://github.com/vllm-project/vllm/attestations/kernels/v1",
        "predicate": {"output": OUTPUT, "buildDigest": DIGEST},
    }
    found = json.loads(text)
    (signature,) = found["signatures"]
    public: Any = load_pem_public_key(own.public.read_bytes())
    public.verify(
        base64.b64decode(signature["sig"]),
        pae(base64.b64decode(found["payload"]), "application/vnd.in-toto+json"),
    )
    marker = json.loads((store / store_entry.MARKER).read_text(encoding="utf-8"))
    assert marker["signer"]["keyid"] == signature["keyid"]
    assert marker["signer"]["keyval"]["public"] == public.public_bytes_raw().hex()


def test_the_statement_about_a_conda_package(ctx: Context, own: Signer, tmp_path: Path) -> None:
    package, folder = Build().conda(tmp_path / "built"), tmp_path / "store"
    store_publish.publish(package, folder, ctx, own.key)
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    assert payload_of(attestations(folder)[sha256]) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": package.name, "digest": {"sha256": sha256}}],
        "predicateType": "https://schemas.conda.org/attestations-publish-1.schema.json",
    }
    (folder / store_entry.attestation_path(sha256)).unlink()
    (problem,) = store_check.check(folder, ctx).problems
    assert f"no statement about {package.name}" in problem
    # Readers have the package's sha256 from the document, which is signed.
    assert reuse(ctx, Settings(precompiled_stores=(str(folder),), precompiled_key=own.public))


def test_fields_that_in_toto_does_not_know(own: Signer) -> None:
    about = signed_statement.of_document(OUTPUT, DIGEST, b"x")
    said = json.loads(about.payload())
    said["subject"][0]["uri"] = said["extra"] = said["predicate"]["more"] = "x"
    text = json.dumps({**envelope(json.dumps(said).encode(), own.key), "more": 1}).encode()
    signed_statement.verify(text, about, own.key.public, "here")


def test_another_platform_stands_beside(
    ctx: Context, own: Signer, store: Path, tmp_path: Path
) -> None:
    (before,) = attestations(store)
    store_publish.publish(OTHER_PLATFORM.unpacked(tmp_path / "b"), store, ctx, own.key)
    report = store_check.check(store, ctx, own.key.public)
    # For who has read the document before; the next one may go.
    assert (report.problems, report.unused) == ((), (store_entry.attestation_path(before),))
    assert reuse(ctx, Settings(precompiled_stores=(str(store),), precompiled_key=own.public))


def test_a_document_that_somebody_changed_is_not_signed_with_what_is_added(
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


def test_a_statement_is_there_before_its_document(
    ctx: Context, own: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher that dies between the two, and the next one."""
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


def test_who_may_publish(
    ctx: Context, own: Signer, other: Signer, store: Path, tmp_path: Path
) -> None:
    built, plain = Build().unpacked(tmp_path / "built"), tmp_path / "plain"
    store_publish.publish(built, plain, ctx)
    before = snapshot(store, plain)
    for folder, key, words, remedy in (
        (store, None, "no key was given", "--key"),
        (store, other.key, "is signed by the key", "another folder"),
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


def test_what_is_not_signed_is_refused_where_a_signature_is_asked_for(
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


def test_another_key_than_the_store_s(
    ctx: Context, own: Signer, other: Signer, store: Path
) -> None:
    with pytest.raises(RefusedError, match="is signed by the key") as caught:
        reuse(ctx, Settings(precompiled_stores=(str(store),), precompiled_key=other.public))
    assert (caught.value.check, own.key.public.keyid in caught.value.message) == ("signature", True)
    assert other.key.public.keyid in (caught.value.expected or "")
    (problem,) = store_check.check(store, ctx, other.key.public).problems
    assert "is signed by the key" in problem


def test_damages_of_statements_are_found(
    ctx: Context, own: Signer, store: Path, tmp_path: Path
) -> None:
    (sha256,) = attestations(store)
    path = store / store_entry.attestation_path(sha256)
    path.write_text(
        signed_statement.sign(
            signed_statement.of_document("vllm-flashmla", DIGEST, document(store)), own.key
        ),
        encoding="utf-8",
    )
    report = store_check.check(store, ctx)
    assert len(report.problems) == 1
    assert "the predicate says" in report.problems[0]
    assert store_entry.attestation_path(sha256) in report.unused
    store_publish.publish(Build().unpacked(tmp_path / "built"), tmp_path / "plain", ctx)
    (problem,) = store_check.check(tmp_path / "plain", ctx, own.key.public).problems
    assert "the store is not signed" in problem


def public_of(key: Any) -> Callable[[Path], Path]:
    return lambda folder: write_pem(folder, "x", key)[1]


def private_of(key: Any, encryption: Any = None) -> Callable[[Path], Path]:
    return lambda folder: write_pem(folder, "x", key, encryption)[0]


def rsa_pair(folder: Path) -> tuple[Path, Path]:
    return write_pem(folder, "x", rsa.generate_private_key(65537, 2048))


def text(content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "x").write_text(content, encoding="utf-8")
        return folder / "x"

    return make


ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
EC = ec.generate_private_key(ec.SECP256R1())
#: Words of the error, and the file.
NO_PUBLIC_KEYS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "private": ("belongs to its signer alone", private_of(ED25519)),
    "elliptic curve": ("for ecdsa", public_of(EC)),
    "RSA": ("for rsa", lambda folder: rsa_pair(folder)[1]),
    "key exchange": ("no public key that signs", public_of(x25519.X25519PrivateKey.generate())),
    "another curve of Edwards": (
        "no public key that signs",
        public_of(ed448.Ed448PrivateKey.generate()),
    ),
    "text": ("no public key that signs", text("ssh-ed25519 AAAA")),
    "damaged": (
        "no public key that signs",
        text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
    ),
    "too large": ("at most 16384", text("x" * 100_000)),
    "absent": ("No such file", lambda folder: folder / "absent"),
    "folder": ("it is a folder", lambda folder: folder),
}
NO_PRIVATE_KEYS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "public": ("no private key that signs", public_of(ED25519)),
    "elliptic curve": ("for ecdsa", private_of(EC)),
    "RSA": ("for rsa", lambda folder: rsa_pair(folder)[0]),
    "key exchange": ("no private key that signs", private_of(x25519.X25519PrivateKey.generate())),
    "encrypted": ("is encrypted", private_of(ED25519, BestAvailableEncryption(b"word"))),
    "text": ("no private key that signs", text("")),
    "absent": ("No such file", lambda folder: folder / "absent"),
}


@pytest.mark.parametrize("case", NO_PUBLIC_KEYS)
def test_files_without_a_public_key(tmp_path: Path, case: str) -> None:
    words, make = NO_PUBLIC_KEYS[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        trust.pinned(Settings(precompiled_key=make(tmp_path)))
    assert caught.value.message.startswith("VLLM_PRECOMPILED_KEY: ")
    assert "openssl" in (caught.value.remedy or "")


@pytest.mark.parametrize("case", NO_PRIVATE_KEYS)
def test_files_without_a_private_key(tmp_path: Path, case: str) -> None:
    words, make = NO_PRIVATE_KEYS[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        signer_keys.load_private(make(tmp_path))
    assert caught.value.message.startswith("--key: ")


def test_keys(own: Signer, other: Signer) -> None:
    found = signer_keys.load_public(own.public)
    assert found == own.key.public != other.key.public
    assert found.keyid == own.key.signer.public_key.keyid, "the id that securesystemslib gives"
    assert signer_keys.parse(found.declared(), "here") == found
    assert signer_keys.parse(json.loads(json.dumps(found.declared())), "here") == found


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_keys_as_the_documentation_makes_them(tmp_path: Path) -> None:
    for command in (
        "genpkey -algorithm ed25519 -out private.pem",
        "pkey -in private.pem -pubout -out public.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    assert signer_keys.load_private(tmp_path / "private.pem").public == signer_keys.load_public(
        tmp_path / "public.pem"
    )


def test_a_missing_library_is_named_where_it_is_needed(
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
    with pytest.raises(RefusedError, match="nothing says that this key is trusted"):
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


def test_a_published_build_of_other_bytes(
    ctx: Context, own: Signer, store: Path, tmp_path: Path
) -> None:
    before = snapshot(store)
    with pytest.raises(RefusedError, match="another build"):
        store_publish.publish(
            Build({name: elf(80) for name in LIBRARIES}).unpacked(tmp_path / "b"),
            store,
            ctx,
            own.key,
        )
    assert snapshot(store) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
ABOUT = signed_statement.of_document(OUTPUT, DIGEST, b"x")


@given(st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_as_a_statement(own: Signer, data: bytes) -> None:
    with pytest.raises(RefusedError):
        signed_statement.verify(data, ABOUT, own.key.public, "here")
    with pytest.raises(RefusedError):
        signed_statement.verify(
            json.dumps(envelope(data, own.key)).encode(), ABOUT, own.key.public, "here"
        )


@given(st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig"]), JSON)
def test_any_value_in_an_envelope(own: Signer, key: str, value: Any) -> None:
    document = envelope(ABOUT.payload(), own.key)
    (document if key in document else document["signatures"][0])[key] = value
    with pytest.raises(RefusedError):
        signed_statement.verify(json.dumps(document).encode(), ABOUT, own.key.public, "here")


@given(st.sampled_from(["_type", "subject", "predicateType", "predicate"]), JSON)
def test_any_value_in_a_statement(own: Signer, key: str, value: Any) -> None:
    said = {**json.loads(ABOUT.payload()), key: value}
    with pytest.raises(RefusedError):
        signed_statement.verify(
            json.dumps(envelope(json.dumps(said).encode(), own.key)).encode(),
            ABOUT,
            own.key.public,
            "here",
        )


@given(st.sampled_from(["keyid", "keytype", "scheme", "keyval", "more"]), JSON)
def test_any_value_in_a_declared_signer(own: Signer, key: str, value: Any) -> None:
    with pytest.raises(RefusedError):
        signer_keys.parse({**own.key.public.declared(), key: value}, "here")
    with pytest.raises(RefusedError):
        signer_keys.parse(value, "here")
