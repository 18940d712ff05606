# SPDX-License-Identifier: Apache-2.0
"""Signers' keys: PEM files, ids and declared keys."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
)
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON
from reuse_keys import Signer, signer, write_pem

from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import (
    signer_keys,
    trust,
)
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return signer(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return signer(tmp_path_factory.mktemp("other"), 2)


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
    "private": ("only its signer should have", private_of(ED25519)),
    "elliptic curve": ("for ecdsa", public_of(EC)),
    "RSA": ("for rsa", lambda folder: rsa_pair(folder)[1]),
    "key exchange": ("no public key for signatures", public_of(x25519.X25519PrivateKey.generate())),
    "another curve of Edwards": (
        "no public key for signatures",
        public_of(ed448.Ed448PrivateKey.generate()),
    ),
    "text": ("no public key for signatures", text("ssh-ed25519 AAAA")),
    "damaged": (
        "no public key for signatures",
        text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
    ),
    "too large": ("at most 16384", text("x" * 100_000)),
    "absent": ("No such file", lambda folder: folder / "absent"),
    "folder": ("it is a folder", lambda folder: folder),
}
NO_PRIVATE_KEYS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "public": ("no private key for signatures", public_of(ED25519)),
    "elliptic curve": ("for ecdsa", private_of(EC)),
    "RSA": ("for rsa", lambda folder: rsa_pair(folder)[0]),
    "key exchange": (
        "no private key for signatures",
        private_of(x25519.X25519PrivateKey.generate()),
    ),
    "encrypted": ("is encrypted", private_of(ED25519, BestAvailableEncryption(b"word"))),
    "text": ("no private key for signatures", text("")),
    "absent": ("No such file", lambda folder: folder / "absent"),
}


@pytest.mark.parametrize("case", NO_PUBLIC_KEYS)
def test_files_without_a_public_key(tmp_path: Path, case: str) -> None:
    words, make = NO_PUBLIC_KEYS[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        trust.load_pinned_key(Settings(precompiled_key=make(tmp_path)))
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


@given(st.sampled_from(["keyid", "keytype", "scheme", "keyval", "more"]), JSON)
def test_any_value_in_a_declared_signer(own: Signer, key: str, value: Any) -> None:
    with pytest.raises(RefusedError):
        signer_keys.parse({**own.key.public.declared(), key: value}, "here")
    with pytest.raises(RefusedError):
        signer_keys.parse(value, "here")
