# SPDX-License-Identifier: Apache-2.0
"""Requests and resumed downloads."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import ssl
import time
from typing import TYPE_CHECKING

import pytest
import reuse_server
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.x509.oid import NameOID
from reuse_files import elf
from reuse_server import Server, serving

from vllm_build.reuse.net import download
from vllm_build.reuse.net.http_answer import BrokenError
from vllm_build.reuse.net.transport import AbsentError, Transport
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_build.reuse.net.http_answer import Validator

QUICK = Transport(timeout=0.5, attempts=3, pause=0.01)
DATA = elf(7, 300_000)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        state.files["/data"] = DATA
        yield state


def version(server: Server, path: str = "/data") -> Validator:
    return QUICK.ask(server.url + path).validator


def test_a_window_resumes_after_a_broken_connection(server: Server, tmp_path: Path) -> None:
    server.script = [reuse_server.breaks(100_000), reuse_server.breaks(100_000)]
    got: list[int] = []
    download.fetch_window(
        QUICK, server.url + "/data", tmp_path / "part", 1000, 299_000, version(server), got.append
    )
    assert (tmp_path / "part").read_bytes() == DATA[1000:299_000]
    assert sum(got) == 298_000, "no byte is fetched twice"
    assert next(window for _, window in server.asked if window) == "bytes=1000-298999"


def test_a_window_of_another_process_is_resumed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA[1000:5000])
    download.fetch_window(
        QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server)
    )
    assert (tmp_path / "part").read_bytes() == DATA[1000:6000]
    assert server.asked[-1] == ("/data", "bytes=5000-5999")
    count = len(server.asked)
    download.fetch_window(
        QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server)
    )
    assert len(server.asked) == count + 1, "the only request is for the version"


def test_a_part_that_is_too_long_is_removed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"x" * 10_000)
    download.fetch_window(
        QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server)
    )
    assert (tmp_path / "part").read_bytes() == DATA[1000:6000]


def test_a_server_that_sends_less_than_the_range(server: Server, tmp_path: Path) -> None:
    server.script = [
        None,
        reuse_server.says(
            206, DATA[1000:1100], Content_Range=f"bytes 1000-1099/{len(DATA)}", Content_Length="100"
        ),
    ]
    download.fetch_window(
        QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server)
    )
    assert (tmp_path / "part").read_bytes() == DATA[1000:6000]


def test_a_server_that_sends_more_than_the_range(server: Server, tmp_path: Path) -> None:
    server.script = [None, reuse_server.says(206, DATA[1000:9000], Content_Length="8000")]
    with pytest.raises(RefusedError, match="more than the 5000 bytes"):
        download.fetch_window(
            QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server)
        )


@pytest.mark.parametrize("after", [0, 100_000, 299_999])
def test_a_whole_file_resumes_after_a_broken_connection(
    server: Server, tmp_path: Path, after: int
) -> None:
    server.script = [reuse_server.breaks(after)]
    part, found = download.fetch_whole(QUICK, server.url + "/data", lambda _: tmp_path / "part")
    assert part.read_bytes() == DATA
    assert found.size == len(DATA)
    assert server.sent <= len(DATA) + 1


def test_a_whole_file_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.script = [None, reuse_server.breaks(1000)]
    assert (
        download.fetch_whole(QUICK, server.url + "/data", lambda _: tmp_path / "part")[
            0
        ].read_bytes()
        == DATA
    )


def test_a_whole_file_of_another_process_is_resumed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA[:299_000])
    assert (
        download.fetch_whole(QUICK, server.url + "/data", lambda _: tmp_path / "part")[
            0
        ].read_bytes()
        == DATA
    )
    assert server.asked[-1] == ("/data", "bytes=299000-299999")


def test_small_files(server: Server) -> None:
    assert download.fetch_small(QUICK, server.url + "/data", 300_000) == DATA
    assert download.fetch_small(QUICK, server.url + "/nothing", 10) is None
    server.script = [reuse_server.breaks(10)]
    assert download.fetch_small(QUICK, server.url + "/data", 300_000) == DATA
    with pytest.raises(RefusedError, match="sends too much"):
        download.fetch_small(QUICK, server.url + "/data", 1000)


def test_pauses_grow_and_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    server.script = [reuse_server.status(503)] * 9
    with pytest.raises(FetchError, match="4 failed attempts in a row"):
        download.fetch_small(Transport(attempts=4, pause=8.0), server.url + "/data", 10)
    assert [pause for pause in pauses if pause] == [8.0, 16.0, 20.0], "the server's pauses are 0"


def test_a_closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    with pytest.raises(BrokenError, match="refused"):
        QUICK.ask("http://127.0.0.1:9/data")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a b", "http://127.0.0.1:x/", "http://" + "a" * 70 + "/"]
)
def test_addresses_that_no_parser_agrees_on(url: str) -> None:
    with pytest.raises(RefusedError):
        QUICK.ask(url)


def test_a_slow_server_counts_as_broken(server: Server) -> None:
    answer = QUICK.ask(server.url + "/data")
    answer.slowest = 0.0

    class Slow:
        def read1(self, _: int) -> bytes:
            time.sleep(0.05)
            return b"x"

        def close(self) -> None:
            pass

    answer.close()
    answer.response = Slow()
    with pytest.raises(BrokenError, match="1 bytes in"):
        list(answer.chunks(10))


def test_redirects_are_followed(server: Server) -> None:
    for code in (301, 302, 303, 307, 308):
        server.script = [reuse_server.status(code, Location="/data")]
        answer = QUICK.ask(server.url + "/moved", "0-9")
        assert (answer.url, answer.length, answer.ranged) == (server.url + "/data", 10, True)
        answer.close()
    server.script = [reuse_server.status(302)]
    with pytest.raises(FetchError, match="302"):
        QUICK.ask(server.url + "/moved")


def test_a_condition_is_sent(server: Server) -> None:
    """A server that knows If-Range sends the whole new file, whose tag shows the change."""
    before = version(server)
    server.files["/data"] = DATA[:-1]
    with pytest.raises(RefusedError, match="changed between"):
        QUICK.ask(server.url + "/data", "0-9", before)
    with pytest.raises(AbsentError):
        QUICK.ask(server.url + "/nothing")


def test_encodings_and_lengths(server: Server) -> None:
    server.script = [reuse_server.says(200, Content_Length="x")]
    answer = Transport(timeout=0.5).ask(server.url + "/data")
    assert (answer.length, answer.validator.size) == (None, None)
    answer.close()


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a key and a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, SHA256())
    )
    private, public = folder / "key.pem", folder / "certificate.pem"
    private.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(signed.public_bytes(Encoding.PEM))
    return private, public


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("https_proxy", raising=False)
    private, public = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    with serving(context) as server:
        server.files["/data"] = DATA
        url = server.url + "/data"
        assert url.startswith("https:")
        trusting = dataclasses.replace(QUICK, certificates=str(public))
        assert download.fetch_small(trusting, url, len(DATA)) == DATA
        with pytest.raises(BrokenError, match="CERTIFICATE_VERIFY_FAILED"):
            QUICK.ask(url)
        missing = dataclasses.replace(QUICK, certificates=str(tmp_path / "none.pem"))
        with pytest.raises(FetchError, match=r"none\.pem: .*No such file"):
            missing.ask(url)
