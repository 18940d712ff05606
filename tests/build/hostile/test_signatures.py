# SPDX-License-Identifier: Apache-2.0
"""Forged statements and wrongly signed stores: the named check refuses each."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from reuse_files import DIGEST, Build, elf
from reuse_keys import Signer, envelope, signer
from reuse_scene import SOUND, Scene, index, library, refused_by_store
from reuse_server import serving

from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records import bounds
from vllm_build.reuse.stores import signed_statement, store_entry, store_publish
from vllm_build.settings.build_settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Forge = Callable[[Path, Signer, Signer], None]


def about(store: Path) -> signed_statement.Statement:
    """The statement that must be signed about the current document."""
    return signed_statement.of_document(
        "vllm-kernels", DIGEST, (store / store_entry.digest_path(DIGEST)).read_bytes()
    )


def write(store: Path, data: bytes) -> None:
    (store / about(store).path).write_bytes(data)


def raw(data: bytes) -> Forge:
    return lambda store, _own, _other: write(store, data)


def wrapped(change: Callable[[dict[str, Any]], object]) -> Forge:
    """Alter the valid envelope."""

    def forge(store: Path, _own: Signer, _other: Signer) -> None:
        document = json.loads((store / about(store).path).read_bytes())
        change(document)
        write(store, json.dumps(document).encode())

    return forge


def signature(**change: Any) -> Forge:
    return wrapped(lambda document: document["signatures"][0].update(change))


def says(data: bytes) -> Forge:
    """Write a payload that the right key signed."""
    return lambda store, own, _: write(store, json.dumps(envelope(data, own.key)).encode())


def said(change: Callable[[dict[str, Any]], object]) -> Forge:
    """Write an altered statement that the right key signed."""

    def forge(store: Path, own: Signer, _: Signer) -> None:
        document = json.loads(about(store).payload())
        change(document)
        says(json.dumps(document).encode())(store, own, own)

    return forge


def marker(change: Callable[[dict[str, Any], Signer], object]) -> Forge:
    """Alter the signer that the store declares."""

    def forge(store: Path, _own: Signer, other: Signer) -> None:
        document = json.loads((store / store_entry.MARKER).read_text(encoding="utf-8"))
        change(document, other)
        (store / store_entry.MARKER).write_text(json.dumps(document), encoding="utf-8")

    return forge


def flipped(document: dict[str, Any]) -> None:
    sig = bytearray(base64.b64decode(document["signatures"][0]["sig"]))
    sig[7] ^= 1
    document["signatures"][0]["sig"] = base64.b64encode(sig).decode()


def other_payload(document: dict[str, Any]) -> None:
    """Combine a valid signature with another payload."""
    document["payload"] = base64.b64encode(
        base64.b64decode(document["payload"]).replace(b"vllm-kernels", b"vllm-flashmla")
    ).decode()


def by_another(store: Path, _: Signer, other: Signer) -> None:
    write(store, signed_statement.sign(about(store), other.key).encode())


def by_another_under_this_id(store: Path, own: Signer, other: Signer) -> None:
    by_another(store, own, other)
    signature(keyid=own.key.public.keyid)(store, own, other)


def by_an_elliptic_curve(store: Path, own: Signer, _: Signer) -> None:
    """Algorithm confusion: only the reader's key may decide how a signature is checked."""
    sig = ec.generate_private_key(ec.SECP256R1()).sign(about(store).payload(), ec.ECDSA(SHA256()))
    encoded = base64.b64encode(sig).decode()
    signature(sig=encoded, keytype="ecdsa", scheme="ecdsa-sha2-nistp256")(store, own, own)


def bare_payload(store: Path, own: Signer, _: Signer) -> None:
    payload = about(store).payload()
    write(store, json.dumps(envelope(payload, own.key, signed=payload)).encode())


def as_another_type(store: Path, own: Signer, _: Signer) -> None:
    """Sign the bytes with another type, and declare them as a statement."""
    document = envelope(about(store).payload(), own.key, "application/json")
    write(store, json.dumps({**document, "payloadType": signed_statement.PAYLOAD}).encode())


def of_another_type(store: Path, own: Signer, _: Signer) -> None:
    write(store, json.dumps(envelope(about(store).payload(), own.key, "application/json")).encode())


def changed_document(store: Path, _own: Signer, _other: Signer) -> None:
    """Replace a library, and the document consistently; the old document's statement stays."""
    library(store).write_bytes(elf(55))
    sha256 = hashlib.sha256(elf(55)).hexdigest()
    path = store / store_entry.member_path(sha256)
    path.parent.mkdir(exist_ok=True)
    library(store).rename(path)
    index(lambda document: document["builds"][0]["members"][1].update(sha256=sha256))(store)


def statement_of_the_document_before(store: Path, own: Signer, other: Signer) -> None:
    before = (store / about(store).path).read_bytes()
    changed_document(store, own, other)
    (store / about(store).path).parent.mkdir(exist_ok=True)
    write(store, before)


def document_of_another_digest(store: Path, own: Signer, _: Signer) -> None:
    """Replace the document by one for another digest, which the right key signed."""
    other = Build(facts={"build_digest": "0" * 64})
    store_publish.publish(
        other.unpacked(store.parent / "other"),
        store,
        Context(Cache(store.parent / "cache")),
        own.key,
    )
    (store / store_entry.digest_path("0" * 64)).replace(store / store_entry.digest_path(DIGEST))


SHORT_KEYS = ("a signer with a short key", "a signer with no key")
SIGNED: dict[str, tuple[str, Forge]] = {
    "no statement": ("signature", lambda store, _own, _other: (store / about(store).path).unlink()),
    "empty": ("document", raw(b"")),
    "no JSON": ("document", raw(b"{")),
    "a list": ("document", raw(b"[]")),
    "too deep": ("document", raw(b"[" * 10_000)),
    "too large": ("size-limit", raw(b" " * (bounds.STATEMENT + 1))),
    "no payload": ("document", wrapped(lambda document: document.pop("payload"))),
    "payload that is no text": ("document", wrapped(lambda document: document.update(payload=[1]))),
    "payload not in base64": (
        "document",
        wrapped(lambda document: document.update(payload="e30*")),
    ),
    "payload in half of base64": (
        "document",
        wrapped(lambda document: document.update(payload="e30")),
    ),
    "payload of no characters": (
        "document",
        wrapped(lambda document: document.update(payload="\ud800")),
    ),
    "signature not in base64": ("document", signature(sig="?")),
    "signature that is no text": ("document", signature(sig=1)),
    "signature without an id": ("document", signature(keyid=None)),
    "signatures that are none": (
        "document",
        wrapped(lambda document: document.update(signatures=[1])),
    ),
    "signatures by name": ("document", wrapped(lambda document: document.update(signatures={}))),
    "no signatures": ("signature", wrapped(lambda document: document.update(signatures=[]))),
    "the signature twice": (
        "signature",
        wrapped(lambda document: document.update(signatures=document["signatures"] * 2)),
    ),
    "a flipped bit": ("signature", wrapped(flipped)),
    "a short signature": ("signature", signature(sig="AAAA")),
    "a signature of nothing": ("signature", signature(sig=base64.b64encode(bytes(64)).decode())),
    "another payload": ("signature", wrapped(other_payload)),
    "another key": ("signature", by_another),
    "another key under this id": ("signature", by_another_under_this_id),
    "another algorithm": ("signature", by_an_elliptic_curve),
    "signed without its type": ("signature", bare_payload),
    "signed as another type": ("signature", as_another_type),
    "of another type": ("statement", of_another_type),
    "signed, and no JSON": ("document", says(b"?")),
    "signed, and a list": ("document", says(b"[]")),
    "another kind of statement": (
        "statement",
        said(lambda document: document.update(_type="https://in-toto.io/Statement/v0.1")),
    ),
    "no kind of statement": ("statement", said(lambda document: document.pop("_type"))),
    "another predicate": (
        "statement",
        said(lambda document: document.update(predicateType=signed_statement.PUBLISH)),
    ),
    "no predicate": ("statement", said(lambda document: document.pop("predicate"))),
    "a predicate that is a list": (
        "statement",
        said(lambda document: document.update(predicate=[])),
    ),
    "a predicate of another output": (
        "statement",
        said(lambda document: document["predicate"].update(output="vllm-flashmla")),
    ),
    "a predicate of another digest": (
        "statement",
        said(lambda document: document["predicate"].update(buildDigest="0" * 64)),
    ),
    "no subject": ("statement", said(lambda document: document.update(subject=[]))),
    "a subject that is none": ("statement", said(lambda document: document.update(subject=[1]))),
    "a subject by name": (
        "statement",
        said(lambda document: document.update(subject=document["subject"][0])),
    ),
    "two subjects": (
        "statement",
        said(lambda document: document.update(subject=document["subject"] * 2)),
    ),
    "a subject of another name": (
        "statement",
        said(lambda document: document["subject"][0].update(name="digests/x.json")),
    ),
    "a subject of another sha256": (
        "statement",
        said(lambda document: document["subject"][0].update(digest={"sha256": "0" * 64})),
    ),
    "a subject by another hash": (
        "statement",
        said(lambda document: document["subject"][0].update(digest={"md5": "0" * 32})),
    ),
    "a changed document": ("signature", changed_document),
    "a changed document and the statement before": ("statement", statement_of_the_document_before),
    "the document of another digest": ("statement", document_of_another_digest),
    "a store that hides its signer": (
        "signature",
        marker(lambda document, _: document.pop("signer")),
    ),
    "a store without a signer's key": (
        "document",
        marker(lambda document, _: document.update(signer=None)),
    ),
    "another signer": (
        "signature",
        marker(lambda document, other: document.update(signer=other.key.public.declared())),
    ),
    "the id of another signer": (
        "signature",
        marker(lambda document, other: document["signer"].update(keyid=other.key.public.keyid)),
    ),
    "a signer with another algorithm": (
        "signature",
        marker(lambda document, _: document["signer"].update(keytype="rsa")),
    ),
    "a signer with another scheme": (
        "signature",
        marker(lambda document, _: document["signer"].update(scheme="rsassa-pss-sha256")),
    ),
    "a signer with more to say": (
        "signature",
        marker(lambda document, _: document["signer"].update(threshold=0)),
    ),
    "a signer with a short key": (
        "document",
        marker(lambda document, _: document["signer"]["keyval"].update(public="00")),
    ),
    "a signer with no key": (
        "document",
        marker(lambda document, _: document["signer"].update(keyval="x")),
    ),
}


@pytest.fixture
def own(tmp_path: Path) -> Signer:
    return signer(tmp_path / "keys")


def forged(scene: Scene, own: Signer, case: str) -> tuple[str, Path]:
    """Forge a store; returns the check that must fail, and the store."""
    check, forge = SIGNED[case]
    store = scene.folder / "store"
    store_publish.publish(SOUND.unpacked(scene.folder / "built"), store, scene.context, own.key)
    forge(store, own, signer(own.public.parent, 2))
    return check, store


@pytest.mark.parametrize("case", SIGNED)
def test_signed_stores(scene: Scene, own: Signer, case: str) -> None:
    check, store = forged(scene, own, case)
    refused_by_store(scene, str(store), check, own.public)


@pytest.mark.parametrize("case", SIGNED)
def test_signed_stores_over_http(scene: Scene, own: Signer, case: str) -> None:
    check, store = forged(scene, own, case)
    with serving() as server:
        server.folder = store
        refused_by_store(scene, server.url, check, own.public)


@pytest.mark.parametrize("case", SIGNED)
def test_signed_stores_without_a_trusted_key(scene: Scene, own: Signer, case: str) -> None:
    """Without a key, every store that declares a signer is refused, in any altered form.

    A store that hides its signer is like any unsigned store.
    """
    _, store = forged(scene, own, case)
    if case == "a store that hides its signer":
        scene.reuse(Settings(precompiled_stores=(str(store),)))
    else:
        refused_by_store(
            scene,
            str(store),
            "document" if case in ("a store without a signer's key", *SHORT_KEYS) else "signature",
        )
