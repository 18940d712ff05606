# SPDX-License-Identifier: Apache-2.0
"""Members of a remote wheel, which benchmarks download without the rest of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from bench_modules import bench_modules  # noqa: F401 - a fixture

from vllm_build.util.console import Console
from vllm_build.util.errors import FetchError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMBER = "vllm/_C_stable_libtorch.abi3.so"


LIBRARY = bytes(range(256)) * 4096


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with a library between megabytes of other members."""
    path = tmp_path / "vllm-0.33.0-cp38-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vllm/before.bin", os.urandom(2 << 20))
        archive.writestr(MEMBER, LIBRARY)
        archive.writestr("vllm/after.bin", os.urandom(2 << 20))
    return path


class Index(BaseHTTPRequestHandler):
    """Serves one file; ``server.manner`` selects how."""

    def do_GET(self) -> None:
        server: Any = self.server
        data = server.data
        if server.manner.isdigit():
            self.send_error(int(server.manner))
            return
        span = self.headers.get("Range", "")
        if server.manner == "whole" or not span:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client does not read everything
                self.wfile.write(data)
            return
        first, last = (int(number) for number in span.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        # Only after the first request, which asks for one byte.
        self.wfile.write(
            part[: len(part) // 2] if server.manner == "short" and len(part) > 1 else part
        )

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def index(wheel: Path) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.data, server.manner = wheel.read_bytes(), "ranges"
    server.url = f"http://127.0.0.1:{server.server_address[1]}/{wheel.name}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def members() -> dict[str, str]:
    return {MEMBER: hashlib.sha256(LIBRARY).hexdigest()}


def test_a_member_costs_its_own_bytes(
    kernels: Any, index: Any, members: dict[str, str], tmp_path: Path
) -> None:
    remote = kernels.remote_wheel
    remote.CHUNK, before = 1 << 16, remote.CHUNK
    try:
        with remote.open_wheel(index.url) as archive:
            remote.extract(archive, members, tmp_path)
            assert archive.fp.raw.received < 1 << 20
            received = archive.fp.raw.received
            remote.extract(archive, members, tmp_path)
            assert archive.fp.raw.received == received, "what is there is not read again"
    finally:
        remote.CHUNK = before
    assert (tmp_path / "_C_stable_libtorch.abi3.so").read_bytes() == LIBRARY


def test_bytes_that_differ_from_the_pinned_hash(
    kernels: Any, index: Any, members: dict[str, str], tmp_path: Path
) -> None:
    remote = kernels.remote_wheel
    with remote.open_wheel(index.url) as archive:
        with pytest.raises(
            IntegrityError, match=rf"{MEMBER} of the wheel has sha256 {members[MEMBER]}"
        ):
            remote.extract(archive, {MEMBER: "0" * 64}, tmp_path)
        with pytest.raises(IntegrityError, match="vllm/none of the wheel cannot be read"):
            remote.extract(archive, {"vllm/none": "0" * 64}, tmp_path)
    assert not list(tmp_path.glob("*.so"))
    index.data = index.data[:-1000]
    with pytest.raises(IntegrityError, match="no wheel"), remote.open_wheel(index.url):
        pass


@pytest.mark.parametrize(
    ("manner", "words"),
    [("whole", "does not send parts"), ("401", "wants a password"), ("403", "wants a password")],
)
def test_an_index_without_ranges(kernels: Any, index: Any, manner: str, words: str) -> None:
    index.manner = manner
    with (
        pytest.raises(kernels.remote_wheel.NoRangesError, match=words),
        kernels.remote_wheel.open_wheel(index.url),
    ):
        pass


@pytest.mark.parametrize(
    ("manner", "words"),
    [("500", "answers with status 500"), ("short", "bytes, expected|connection .* broke")],
)
def test_an_index_that_fails(kernels: Any, index: Any, manner: str, words: str) -> None:
    index.manner = manner
    with (
        pytest.raises(FetchError, match=words) as found,
        kernels.remote_wheel.open_wheel(index.url),
    ):
        pass
    assert not isinstance(found.value, kernels.remote_wheel.NoRangesError)


def test_an_index_that_is_gone(kernels: Any, index: Any) -> None:
    index.shutdown()
    index.server_close()
    with (
        pytest.raises(FetchError, match="does not answer"),
        kernels.remote_wheel.open_wheel(index.url),
    ):
        pass


def test_the_whole_wheel_where_there_are_no_ranges(
    kernels: Any,
    index: Any,
    wheel: Path,
    members: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    official = kernels.official_gpu
    asked: list[Any] = []

    def download(items: Any, folder: Path, **_: object) -> None:
        asked.extend(items)
        (folder / wheel.name).write_bytes(wheel.read_bytes())

    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(official.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(official, "MEMBERS", {"_C": (MEMBER, members[MEMBER])})
    monkeypatch.setattr(official.remote_wheel, "locate", lambda *_: index.url)
    monkeypatch.setattr(official.pypi, "download", download)
    index.manner = "whole"
    (library,) = official.libraries(frozenset({"_C", "_moe_C"}), Console())
    assert library.read_bytes() == LIBRARY
    assert asked == [(official.NAME, official.VERSION, official.SHA256)]
    index.manner = "500"
    assert official.libraries(frozenset({"_C"}), Console()) == [library], "from the cache"


def test_pip_locates_the_wheel(
    kernels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip reads an index on the disk, without a server."""
    name = "vllm_bench_sample-1.0-cp38-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr(
            "vllm_bench_sample-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: vllm-bench-sample\nVersion: 1.0\n",
        )
        archive.writestr(
            "vllm_bench_sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"
        )
        archive.writestr("vllm_bench_sample-1.0.dist-info/RECORD", "")
        archive.writestr("sample.so", LIBRARY)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    sha256 = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    url = kernels.remote_wheel.locate("vllm-bench-sample==1.0", sha256, "manylinux_2_28_x86_64")
    with kernels.remote_wheel.open_wheel(url) as found:
        assert found.read("sample.so") == LIBRARY
    with pytest.raises(FetchError, match=r"pip finds no vllm-bench-sample==2\.0"):
        kernels.remote_wheel.locate("vllm-bench-sample==2.0", sha256, "manylinux_2_28_x86_64")
