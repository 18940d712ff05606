# SPDX-License-Identifier: Apache-2.0
"""Kernels fetched from remote wheels and .conda files."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
import reuse_server
from reuse_files import LIBRARIES, OUTPUT, WHEEL_NAME, Build, elf, snapshot, write_zip
from reuse_server import Server, serving

from vllm_build.reuse.archives.archive_source import ArchiveSource
from vllm_build.reuse.net import download, remote_file
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context, Meter
from vllm_build.reuse.net.transport import Transport
from vllm_build.reuse.records import bounds
from vllm_build.util.errors import ConfigurationError, FetchError
from vllm_build.util.files import sha256_of
from vllm_build.util.processes import signals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = Transport(timeout=0.5, attempts=3, pause=0.01)
DATA = elf(7, 300_000)
BUILD = Build({name: elf(n, 250_000) for n, name in enumerate(LIBRARIES)})


@pytest.fixture(autouse=True)
def short_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the first request from fetching these small wheels whole."""
    monkeypatch.setattr(remote_file, "TAIL", 66 * bounds.KIB)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        state.files["/data"] = DATA
        yield state


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "cache")
    with cache.in_use():
        pass
    return cache


@pytest.fixture
def ctx(cache: Cache) -> Context:
    return Context(cache, QUICK)


@pytest.fixture
def wheel(server: Server, tmp_path: Path) -> str:
    """The address of a wheel of half a megabyte."""
    server.files["/" + WHEEL_NAME] = BUILD.wheel(tmp_path / "wheels").read_bytes()
    return f"{server.url}/{WHEEL_NAME}"


def take(ctx: Context, location: str, sha256: str | None = None) -> dict[str, Path]:
    with ctx.cache.in_use(), ArchiveSource(ctx, location, sha256) as source:
        assert source.outputs() == [OUTPUT]
        return source.libraries(source.record(OUTPUT))


def test_only_needed_bytes_are_fetched(
    ctx: Context, server: Server, wheel: str, tmp_path: Path
) -> None:
    big = {**BUILD.members(), "vllm/big.py": elf(50, 2_000_000)}
    server.files["/" + WHEEL_NAME] = write_zip(tmp_path / "big.whl", big).read_bytes()
    files = take(ctx, wheel)
    assert {name: path.read_bytes() for name, path in files.items()} == BUILD.libraries
    assert server.sent < 750_000
    assert len(server.asked) <= 3
    assert not snapshot(ctx.cache.root / "parts", ctx.cache.root / "incoming")


def test_cached_files_are_not_fetched_again(ctx: Context, server: Server, wheel: str) -> None:
    first = take(ctx, wheel)
    server.sent = 0
    assert take(ctx, wheel) == first
    assert server.sent < 80_000, "only the directory and the record are fetched"
    next(iter(first.values())).write_bytes(b"damaged")
    assert {name: path.read_bytes() for name, path in take(ctx, wheel).items()} == BUILD.libraries


def test_servers_without_ranges_send_the_file_once(
    ctx: Context, server: Server, wheel: str
) -> None:
    server.ranges = False
    assert {name: path.read_bytes() for name, path in take(ctx, wheel).items()} == BUILD.libraries
    size = len(server.files["/" + WHEEL_NAME])
    count = len(server.asked)
    for path in ctx.cache.root.glob("blobs/*/*"):
        if path.stat().st_size < size:
            path.unlink()
    take(ctx, wheel)
    assert len(server.asked) == count + 1, "the copy has the version that the server reports"


@pytest.mark.parametrize("modified", [None, "Mon, 01 Jan 2024 00:00:00 GMT"])
@pytest.mark.parametrize("ranges", [True, False])
def test_servers_without_tags(
    ctx: Context, server: Server, wheel: str, modified: str | None, *, ranges: bool
) -> None:
    server.etag, server.modified, server.ranges = False, modified, ranges
    assert {name: path.read_bytes() for name, path in take(ctx, wheel).items()} == BUILD.libraries
    assert not snapshot(ctx.cache.root / "parts", ctx.cache.root / "incoming")
    assert bool(snapshot(ctx.cache.root / "refs")) == (not ranges and modified is not None)


def test_a_pinned_file_is_fetched_whole_and_once(
    ctx: Context, server: Server, wheel: str, tmp_path: Path
) -> None:
    sha256 = sha256_of(tmp_path / "wheels" / WHEEL_NAME)
    take(ctx, wheel, sha256=sha256)
    count = len(server.asked)
    take(ctx, wheel, sha256=sha256)
    assert len(server.asked) == count
    assert take(ctx, str(tmp_path / "wheels" / WHEEL_NAME), sha256=sha256)


@pytest.mark.parametrize("ranges", [True, False])
def test_conda_files_by_address(
    ctx: Context, server: Server, tmp_path: Path, *, ranges: bool
) -> None:
    server.ranges = ranges
    server.files["/a-1-0.conda"] = BUILD.conda(tmp_path, "a-1-0.conda").read_bytes()
    files = take(ctx, server.url + "/a-1-0.conda")
    assert {name: path.read_bytes() for name, path in files.items()} == BUILD.libraries
    assert not snapshot(ctx.cache.root / "parts", ctx.cache.root / "incoming")


def test_a_directory_beyond_the_first_request(
    ctx: Context, server: Server, wheel: str, tmp_path: Path
) -> None:
    many = {f"vllm/models/module_{n}_{'x' * 60}.py": b"" for n in range(1500)}
    server.files["/" + WHEEL_NAME] = BUILD.wheel(tmp_path, more=many).read_bytes()
    assert {name: path.read_bytes() for name, path in take(ctx, wheel).items()} == BUILD.libraries
    assert len(server.asked) <= 4


def test_the_next_run_resumes_a_broken_download(ctx: Context, server: Server, wheel: str) -> None:
    server.script = [
        None,
        reuse_server.breaks(200_000),
        reuse_server.breaks(0),
        reuse_server.breaks(0),
        reuse_server.breaks(0),
    ]
    with pytest.raises(FetchError, match="the bytes that have arrived are kept"):
        take(ctx, wheel)
    assert snapshot(ctx.cache.root / "parts")
    server.sent, server.script = 0, []
    take(ctx, wheel)
    assert server.sent < 400_000
    assert not snapshot(ctx.cache.root / "parts")


def test_a_complete_part_is_not_fetched_again(
    ctx: Context, server: Server, wheel: str, tmp_path: Path
) -> None:
    """One of two parallel requests fails permanently."""
    far = {**BUILD.members(), "vllm/_big.py": elf(50, 400_000)}
    server.files["/" + WHEEL_NAME] = write_zip(
        tmp_path / "far.whl", dict(sorted(far.items()))
    ).read_bytes()
    second: list[str] = []

    def breaks_the_second(handler: reuse_server.Handler, data: bytes) -> bool:
        begin, end = reuse_server.window(handler.headers.get("Range"), len(data)) or (0, 0)
        # The request for the record, which is between the libraries, succeeds.
        if begin < 300_000 or end - begin < 10_000:
            return False
        second.append(handler.path)
        return reuse_server.breaks(0)(handler, data)

    server.script = [None, *[breaks_the_second] * 9]
    with pytest.raises(FetchError):
        take(ctx, wheel)
    assert second
    server.sent, server.script = 0, []
    take(ctx, wheel)
    assert server.sent < 350_000, "the directory and the failed request's bytes are fetched"


@pytest.mark.parametrize("ranges", [True, False])
def test_concurrent_processes_fetch_once(
    ctx: Context, server: Server, wheel: str, *, ranges: bool
) -> None:
    server.rate, server.ranges = 2e6, ranges
    found: list[dict[str, Path]] = []
    threads = [threading.Thread(target=lambda: found.append(take(ctx, wheel))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    # A server without ranges may send much of a body before it notices that the client has gone.
    assert not ranges or server.sent < 1_000_000, (
        "each thread fetches the directory, and one the members"
    )


def test_a_remote_file_reads_like_a_local_one(ctx: Context, server: Server, tmp_path: Path) -> None:
    file = remote_file.open_remote(QUICK, server.url + "/data", ctx.cache, tmp_path, Meter())
    assert isinstance(file, remote_file.RemoteFile)
    assert (file.seekable(), file.readable(), file.size) == (True, True, len(DATA))
    assert file.seek(-10, os.SEEK_END) == len(DATA) - 10
    assert file.read(100) == DATA[-10:]
    assert file.read(1) == b""
    file.seek(100)
    assert file.seek(50, os.SEEK_CUR) == 150
    assert file.read(300) == DATA[150:450]
    assert file.tell() == 450
    file.fetch([(400, 500), (300, 420)])
    file.seek(140)
    assert file.read(400) == DATA[140:540]
    with pytest.raises(OSError, match="negative"):
        file.seek(-1)
    file.forget()
    assert not list(tmp_path.glob("*-*-*"))


def test_a_signal_stops_all_streams(
    ctx: Context, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal interrupts only the main thread; the others must not fetch on to the end."""
    file = remote_file.open_remote(QUICK, server.url + "/data", ctx.cache, tmp_path, Meter())
    assert isinstance(file, remote_file.RemoteFile)
    fetching, ended = threading.Event(), []

    def endless(*arguments: object) -> None:
        progress = arguments[-1]
        assert callable(progress)
        try:
            for _ in range(6000):
                progress(1)
                fetching.set()
                time.sleep(0.01)
        finally:
            ended.append(True)

    def interrupt() -> None:
        fetching.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(download, "fetch_window", endless)
    threading.Thread(target=interrupt).start()
    with pytest.raises(signals.Interrupted), signals.raised():
        file.fetch([(0, 100_000), (120_000, 200_000)])
    assert 1 <= len(ended) <= 2, "no further window is begun"


def test_locations_without_an_archive(ctx: Context, server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither a wheel nor a conda package"):
        ArchiveSource(ctx, "/x/kernels.tar.gz")
    for place in (str(tmp_path / "none.whl"), f"{server.url}/none.whl", f"{server.url}/none.conda"):
        with pytest.raises(FetchError, match=r"none\."), ctx.cache.in_use():
            ArchiveSource(ctx, place).outputs()
    with pytest.raises(FetchError), ctx.cache.in_use():
        ArchiveSource(ctx, str(tmp_path / "none.whl"), "0" * 64).outputs()


def test_missing_zstandard_is_named(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = BUILD.conda(tmp_path)

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("vllm_build.reuse.archives.conda_file.importlib.import_module", absent)
    with pytest.raises(ConfigurationError, match="Zstandard") as caught:
        take(ctx, str(path))
    assert caught.value.remedy == "pip install zstandard"


def test_zstandard_of_the_standard_library(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zstandard

    class Standard:
        ZstdError = zstandard.ZstdError

        @staticmethod
        def ZstdFile(stream: object) -> object:  # noqa: N802 - its name
            return zstandard.ZstdDecompressor().stream_reader(stream)  # type: ignore[arg-type]

    monkeypatch.setattr(
        "vllm_build.reuse.archives.conda_file.importlib.import_module", lambda _: Standard
    )
    assert len(take(ctx, str(BUILD.conda(tmp_path)))) == 2
