# SPDX-License-Identifier: Apache-2.0
"""Signed statements: their content, and any input as one."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    load_pem_public_key,
)
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON
from reuse_files import DIGEST, OUTPUT, Build
from reuse_keys import Signer, envelope, pae, payload_of, signer
from reuse_stores import attestations, document_bytes, reuse

from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import (
    signed_statement,
    store_check,
    store_entry,
    store_publish,
)
from vllm_build.settings.build_settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Cache(tmp_path / "cache"))


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return signer(tmp_path_factory.mktemp("own"))


@pytest.fixture
def store(ctx: Context, own: Signer, tmp_path: Path) -> Path:
    """A signed store with kernels from a folder."""
    store_publish.publish(Build().unpacked(tmp_path / "built"), tmp_path / "store", ctx, own.key)
    return tmp_path / "store"


def test_the_statement_about_a_document(own: Signer, store: Path) -> None:
    """The test reads and verifies the statement without the library."""
    ((sha256, text),) = attestations(store).items()
    assert sha256 == hashlib.sha256(document_bytes(store)).hexdigest()
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
    # Readers do not need that statement: the signed document has the package's sha256.
    assert reuse(ctx, Settings(precompiled_stores=(str(folder),), precompiled_key=own.public))


def test_fields_that_in_toto_does_not_define_are_ignored(own: Signer) -> None:
    about = signed_statement.of_document(OUTPUT, DIGEST, b"x")
    said = json.loads(about.payload())
    said["subject"][0]["uri"] = said["extra"] = said["predicate"]["more"] = "x"
    text = json.dumps({**envelope(json.dumps(said).encode(), own.key), "more": 1}).encode()
    signed_statement.verify(text, about, own.key.public, "here")


def test_damages_of_statements_are_found(
    ctx: Context, own: Signer, store: Path, tmp_path: Path
) -> None:
    (sha256,) = attestations(store)
    path = store / store_entry.attestation_path(sha256)
    path.write_text(
        signed_statement.sign(
            signed_statement.of_document("vllm-flashmla", DIGEST, document_bytes(store)), own.key
        ),
        encoding="utf-8",
    )
    report = store_check.check(store, ctx)
    assert len(report.problems) == 1
    assert "the predicate is {'output': 'vllm-flashmla'" in report.problems[0]
    assert store_entry.attestation_path(sha256) in report.unused
    store_publish.publish(Build().unpacked(tmp_path / "built"), tmp_path / "plain", ctx)
    (problem,) = store_check.check(tmp_path / "plain", ctx, own.key.public).problems
    assert "the store is not signed" in problem


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
