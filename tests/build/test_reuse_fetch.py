# SPDX-License-Identifier: Apache-2.0
"""Transport, downloads that go on, remote archives, and the cache."""

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
from vllm_build.reuse.net import download, remote_file, transport
from vllm_build.reuse.net.reuse_cache import Cache, key_of
from vllm_build.reuse.net.reuse_context import Context, Meter
from vllm_build.reuse.net.transport import AbsentError, BrokenError, Transport, Validator
from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import BusyError, ConfigurationError, FetchError
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
    """Wheels of these tests are small: they would come whole with their directory."""
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
    """Address of a wheel of half a megabyte."""
    server.files["/" + WHEEL_NAME] = BUILD.wheel(tmp_path / "wheels").read_bytes()
    return f"{server.url}/{WHEEL_NAME}"


def version(server: Server, path: str = "/data") -> Validator:
    return QUICK.ask(server.url + path).validator


def take(ctx: Context, location: str, sha256: str | None = None) -> dict[str, Path]:
    with ctx.cache.in_use(), ArchiveSource(ctx, location, sha256) as source:
        assert source.outputs() == [OUTPUT]
        return source.libraries(source.record(OUTPUT))


def test_a_window_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.script = [reuse_server.breaks(100_000), reuse_server.breaks(100_000)]
    got: list[int] = []
    download.window(
        QUICK, server.url + "/data", tmp_path / "part", 1000, 299_000, version(server), got.append
    )
    assert (tmp_path / "part").read_bytes() == DATA[1000:299_000]
    assert sum(got) == 298_000, "nothing came twice"
    assert next(window for _, window in server.asked if window) == "bytes=1000-298999"


def test_a_window_of_another_process_is_taken_up(server: Server, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA[1000:5000])
    download.window(QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server))
    assert (tmp_path / "part").read_bytes() == DATA[1000:6000]
    assert server.asked[-1] == ("/data", "bytes=5000-5999")
    count = len(server.asked)
    download.window(QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server))
    assert len(server.asked) == count + 1, "the version alone was asked for"


def test_a_part_that_is_too_long_is_no_part(server: Server, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"x" * 10_000)
    download.window(QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server))
    assert (tmp_path / "part").read_bytes() == DATA[1000:6000]


def test_a_server_that_sends_less_than_the_range(server: Server, tmp_path: Path) -> None:
    server.script = [
        None,
        reuse_server.says(
            206, DATA[1000:1100], Content_Range=f"bytes 1000-1099/{len(DATA)}", Content_Length="100"
        ),
    ]
    download.window(QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server))
    assert (tmp_path / "part").read_bytes() == DATA[1000:6000]


def test_a_server_that_sends_more_than_the_range(server: Server, tmp_path: Path) -> None:
    server.script = [None, reuse_server.says(206, DATA[1000:9000], Content_Length="8000")]
    with pytest.raises(RefusedError, match="more than the 5000 bytes"):
        download.window(QUICK, server.url + "/data", tmp_path / "part", 1000, 6000, version(server))


@pytest.mark.parametrize("after", [0, 100_000, 299_999])
def test_a_whole_file_goes_on_where_it_broke_off(
    server: Server, tmp_path: Path, after: int
) -> None:
    server.script = [reuse_server.breaks(after)]
    part, found = download.whole(QUICK, server.url + "/data", lambda _: tmp_path / "part")
    assert part.read_bytes() == DATA
    assert found.size == len(DATA)
    assert server.sent <= len(DATA) + 1


def test_a_whole_file_without_ranges_begins_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.script = [None, reuse_server.breaks(1000)]
    assert (
        download.whole(QUICK, server.url + "/data", lambda _: tmp_path / "part")[0].read_bytes()
        == DATA
    )


def test_a_whole_file_of_another_process_is_taken_up(server: Server, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA[:299_000])
    assert (
        download.whole(QUICK, server.url + "/data", lambda _: tmp_path / "part")[0].read_bytes()
        == DATA
    )
    assert server.asked[-1] == ("/data", "bytes=299000-299999")


def test_small_files(server: Server) -> None:
    assert download.small(QUICK, server.url + "/data", 300_000) == DATA
    assert download.small(QUICK, server.url + "/nothing", 10) is None
    server.script = [reuse_server.breaks(10)]
    assert download.small(QUICK, server.url + "/data", 300_000) == DATA
    with pytest.raises(RefusedError, match="does not end"):
        download.small(QUICK, server.url + "/data", 1000)


def test_pauses_grow_and_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    server.script = [reuse_server.status(503)] * 9
    with pytest.raises(FetchError, match="4 attempts in a row"):
        download.small(Transport(attempts=4, pause=8.0), server.url + "/data", 10)
    assert [pause for pause in pauses if pause] == [8.0, 16.0, 20.0], "zeros are the server's"


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    with pytest.raises(BrokenError, match="refused"):
        QUICK.ask("http://127.0.0.1:9/data")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a b", "http://127.0.0.1:x/", "http://" + "a" * 70 + "/"]
)
def test_addresses_that_no_parser_agrees_on(url: str) -> None:
    with pytest.raises(RefusedError):
        QUICK.ask(url)


def test_trickles_end(server: Server) -> None:
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
    """A server that knows If-Range sends the whole of the new file; its tag then says that it is another."""
    before = version(server)
    server.files["/data"] = DATA[:-1]
    with pytest.raises(RefusedError, match="changed between"):
        QUICK.ask(server.url + "/data", "0-9", before)
    with pytest.raises(AbsentError):
        QUICK.ask(server.url + "/nothing")


def test_only_what_is_needed_comes(
    ctx: Context, server: Server, wheel: str, tmp_path: Path
) -> None:
    big = {**BUILD.members(), "vllm/big.py": elf(50, 2_000_000)}
    server.files["/" + WHEEL_NAME] = write_zip(tmp_path / "big.whl", big).read_bytes()
    files = take(ctx, wheel)
    assert {name: path.read_bytes() for name, path in files.items()} == BUILD.libraries
    assert server.sent < 750_000
    assert len(server.asked) <= 3
    assert not snapshot(ctx.cache.root / "parts", ctx.cache.root / "incoming")


def test_what_the_cache_has_does_not_come_again(ctx: Context, server: Server, wheel: str) -> None:
    first = take(ctx, wheel)
    server.sent = 0
    assert take(ctx, wheel) == first
    assert server.sent < 80_000, "the directory and the record alone"
    next(iter(first.values())).write_bytes(b"damaged")
    assert {name: path.read_bytes() for name, path in take(ctx, wheel).items()} == BUILD.libraries


def test_servers_without_ranges_send_all_once(ctx: Context, server: Server, wheel: str) -> None:
    server.ranges = False
    assert {name: path.read_bytes() for name, path in take(ctx, wheel).items()} == BUILD.libraries
    size = len(server.files["/" + WHEEL_NAME])
    count = len(server.asked)
    for path in ctx.cache.root.glob("blobs/*/*"):
        if path.stat().st_size < size:
            path.unlink()
    take(ctx, wheel)
    assert len(server.asked) == count + 1, (
        "the version was asked for, and the copy is of this version"
    )


@pytest.mark.parametrize("modified", [None, "Mon, 01 Jan 2024 00:00:00 GMT"])
@pytest.mark.parametrize("ranges", [True, False])
def test_servers_without_tags(
    ctx: Context, server: Server, wheel: str, modified: str | None, *, ranges: bool
) -> None:
    server.etag, server.modified, server.ranges = False, modified, ranges
    assert {name: path.read_bytes() for name, path in take(ctx, wheel).items()} == BUILD.libraries
    assert not snapshot(ctx.cache.root / "parts", ctx.cache.root / "incoming")
    assert bool(snapshot(ctx.cache.root / "refs")) == (not ranges and modified is not None)


def test_a_pinned_file_comes_whole_and_once(
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


def test_after_a_break_the_next_run_goes_on(ctx: Context, server: Server, wheel: str) -> None:
    server.script = [
        None,
        reuse_server.breaks(200_000),
        reuse_server.breaks(0),
        reuse_server.breaks(0),
        reuse_server.breaks(0),
    ]
    with pytest.raises(FetchError, match="what has arrived is kept"):
        take(ctx, wheel)
    assert snapshot(ctx.cache.root / "parts")
    server.sent, server.script = 0, []
    take(ctx, wheel)
    assert server.sent < 400_000
    assert not snapshot(ctx.cache.root / "parts")


def test_a_part_that_came_whole_does_not_come_again(
    ctx: Context, server: Server, wheel: str, tmp_path: Path
) -> None:
    """Of two requests side by side one breaks for good."""
    far = {**BUILD.members(), "vllm/_big.py": elf(50, 400_000)}
    server.files["/" + WHEEL_NAME] = write_zip(
        tmp_path / "far.whl", dict(sorted(far.items()))
    ).read_bytes()
    second: list[str] = []

    def breaks_the_second(handler: reuse_server.Handler, data: bytes) -> bool:
        begin, end = reuse_server.window(handler.headers.get("Range"), len(data)) or (0, 0)
        # The record, which lies between the libraries, comes.
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
    assert server.sent < 350_000, "the directory, and the one that broke"


@pytest.mark.parametrize("ranges", [True, False])
def test_processes_at_once_fetch_once(
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
    # Of a body that nobody reads the server notices late.
    assert not ranges or server.sent < 1_000_000, (
        "each asked for the directory, one for the members"
    )


def test_reading_a_remote_file_as_a_file(ctx: Context, server: Server, tmp_path: Path) -> None:
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
    """A signal reaches the main thread; the threads that fetch would go on to the end of a large file."""
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

    monkeypatch.setattr(download, "window", endless)
    threading.Thread(target=interrupt).start()
    with pytest.raises(signals.Interrupted), signals.raised():
        file.fetch([(0, 100_000), (120_000, 200_000)])
    assert 1 <= len(ended) <= 2, "more windows are not begun"


def test_locations_that_are_no_archives(ctx: Context, server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no file to take kernels from"):
        ArchiveSource(ctx, "/x/kernels.tar.gz")
    for place in (str(tmp_path / "none.whl"), f"{server.url}/none.whl", f"{server.url}/none.conda"):
        with pytest.raises(FetchError, match=r"none\."), ctx.cache.in_use():
            ArchiveSource(ctx, place).outputs()
    with pytest.raises(FetchError), ctx.cache.in_use():
        ArchiveSource(ctx, str(tmp_path / "none.whl"), "0" * 64).outputs()


def test_zstandard_is_named_where_it_is_missing(
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


def test_blobs(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    sha256 = sha256_of(tmp_path / "file")
    assert cache.find(sha256) is None
    cache.remember(key_of("a", 1), sha256)
    assert cache.recall(key_of("a", 1)) is None
    path = cache.add(tmp_path / "file", sha256)
    assert cache.find(sha256) == path == cache.recall(key_of("a", 1))
    assert cache.recall(key_of("a", 2)) is None
    cache.remember(key_of("b"), "../../etc/passwd")
    assert cache.recall(key_of("b")) is None
    (cache.root / "refs" / key_of("b")).write_bytes(b"\xff\xfe")
    assert cache.recall(key_of("b")) is None
    path.write_bytes(b"damaged")
    assert cache.find(sha256) is None
    assert not path.exists()


def test_cleaning(cache: Cache, tmp_path: Path) -> None:
    added = []
    for number in range(2):
        (tmp_path / "file").write_bytes(b"x" * (number + 1))
        added.append(cache.add(tmp_path / "file", f"{number:064x}"))
    assert next((usage.folder, usage.files, usage.size) for usage in cache.usage()) == (
        "blobs",
        2,
        3,
    )
    os.utime(added[-1], (0, 0))
    assert (cache.clean(1).files, cache.usage()[0].files) == (1, 1)
    with cache.in_use(), pytest.raises(BusyError, match="another process uses"):
        cache.clean()
    assert (cache.clean().size, cache.usage()[0].files) == (1, 0)


def test_the_usual_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path))
    assert Context().cache.root == tmp_path / "reuse"
    assert isinstance(Context().progress, Meter)


def test_a_meter(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter()
    meter.report()
    assert capsys.readouterr().err == ""
    meter(2_000_000)
    meter.report()
    assert capsys.readouterr().err.startswith("fetched 2.0 MB in ")


def test_encodings_and_lengths(server: Server) -> None:
    server.script = [reuse_server.says(200, Content_Length="x")]
    answer = transport.Transport(timeout=0.5).ask(server.url + "/data")
    assert (answer.length, answer.validator.size) == (None, None)
    answer.close()
