# SPDX-License-Identifier: Apache-2.0
"""Names, records, index documents, ranges and windows: whatever comes in, the answer is right or a refusal, never another error."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from reuse_files import DIGEST, LIBRARIES, OUTPUT, RECORD, Build, elf

from vllm_build.reuse.archives.bounded_stream import Bounded
from vllm_build.reuse.archives.wheel_file import Archive
from vllm_build.reuse.net import request_windows, reuse_context, transport
from vllm_build.reuse.records import fitness, member_names
from vllm_build.reuse.records.output_record import parse
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_entry
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.text(alphabet="ab/.\\:\0\nÄä", max_size=12))
def test_names_that_pass_lead_nowhere_else(name: str) -> None:
    try:
        member_names.check([name], "here")
    except RefusedError:
        return
    parts = name.removesuffix("/").split("/")
    assert not {"", ".", ".."} & set(parts)
    assert not set("\\\0\n") & set(name)


@given(st.lists(st.text(alphabet="abAB/", min_size=1, max_size=4), max_size=6))
def test_names_that_pass_have_places_of_their_own(listed: list[str]) -> None:
    try:
        member_names.check(listed, "here")
    except RefusedError:
        return
    assert len({name.removesuffix("/").lower() for name in listed}) == len(listed)


@pytest.mark.parametrize(
    "name", ["vllm/_C.abi3.so", "vllm/_C.so", "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so"]
)
def test_names_of_libraries(name: str) -> None:
    assert member_names.is_library(name)


@pytest.mark.parametrize(
    "name",
    [
        "_C.so",
        "vllm/a.so.1",
        "vllm/.so",
        "vllm/a b.so",
        "vllm/a/b/c/d.so",
        "torch/_C.so",
        "vllm/_C.abi3.so\n",
    ],
)
def test_names_of_none(name: str) -> None:
    assert not member_names.is_library(name)


def test_names_of_records() -> None:
    assert member_names.output_of(member_names.record_name("vllm-flash-attn")) == "vllm-flash-attn"
    assert member_names.output_of("vllm/_build_info/../x.json") is None


@given(st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_as_a_record(data: bytes) -> None:
    with pytest.raises(RefusedError):
        parse(data, OUTPUT, "here")


KEYS = st.sampled_from(
    [
        "schema",
        "component",
        "device",
        "toolkit",
        "platform",
        "python_abi",
        "torch_target",
        "build_digest",
        "extensions",
    ]
)


@given(KEYS, JSON)
def test_a_record_with_any_value(key: str, value: Any) -> None:
    document = {**json.loads(Build().record()), key: value}
    try:
        found = parse(json.dumps(document).encode(), OUTPUT, "here")
    except RefusedError as error:
        assert error.check in ("document", "size-limit", "member-name")  # noqa: PT017 - a sound value is no error
    else:
        assert found.output == OUTPUT
        assert isinstance(found.torch, Version)


def test_a_sound_record() -> None:
    found = parse(Build(facts={"toolkit": "13.0"}).record(), OUTPUT, "here")
    assert (found.digest, found.toolkit, found.device) == (DIGEST, Version("13.0"), "cpu")
    assert [library.file for library in found.libraries] == list(LIBRARIES)


HASHES = st.text(alphabet="0123456789abcdef", min_size=64, max_size=64)
FILES = st.builds(store_entry.File, st.just(RECORD), HASHES, st.integers(0, 1000))
LIBRARY_FILES = st.lists(
    st.builds(store_entry.File, st.sampled_from(LIBRARIES), HASHES, st.integers(0, 1000)),
    max_size=2,
    unique_by=lambda f: f.name,
)
ARCHIVES = st.none() | st.builds(
    store_entry.File, st.sampled_from(["a.whl", "b-1.0+cpu-x.conda"]), HASHES, st.integers(0, 1000)
)
BUILDS = st.builds(
    store_entry.Build,
    st.sampled_from(["linux-x86_64", "macosx"]),
    st.just("abi3"),
    FILES,
    LIBRARY_FILES.map(tuple),
    ARCHIVES,
)


@given(HASHES, st.lists(BUILDS, min_size=1, max_size=3).map(tuple))
def test_index_documents_say_what_they_were_written_from(
    digest: str, builds: tuple[store_entry.Build, ...]
) -> None:
    written = store_entry.Entry(OUTPUT, digest, builds)
    assert store_entry.parse(written.text().encode(), OUTPUT, digest, "here") == written


@given(JSON)
def test_any_document_as_an_index(value: Any) -> None:
    with pytest.raises(RefusedError):
        store_entry.parse(json.dumps(value).encode(), OUTPUT, DIGEST, "here")
    with pytest.raises(RefusedError):
        store_entry.parse(
            json.dumps(
                {"schema": 1, "output": OUTPUT, "digest": DIGEST, "builds": [value]}
            ).encode(),
            OUTPUT,
            DIGEST,
            "here",
        )


SPANS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 60)).map(
        lambda pair: (pair[0], pair[0] + pair[1])
    ),
    max_size=12,
)


@given(SPANS, st.integers(1, 4), st.floats(0, 1), st.integers(1, 50))
def test_requests_bring_all_and_little_else(
    needed: list[tuple[int, int]], streams: int, waste: float, least: int
) -> None:
    asked = request_windows.requests(needed, waste=waste, streams=streams, least=least)
    wanted = {byte for begin, end in needed for byte in range(begin, end)}
    brought = [byte for begin, end in asked for byte in range(begin, end)]
    assert wanted <= set(brought)
    assert len(brought) == len(set(brought)), "nothing comes twice"
    assert len(brought) - len(wanted) <= waste * len(wanted) + 1e-6
    assert len(asked) <= max(streams, len(request_windows.merged(needed)))


def test_requests_of_one_large_piece_run_side_by_side() -> None:
    assert request_windows.requests([(0, 1 << 21)]) == [(0, 1 << 20), (1 << 20, 1 << 21)]
    assert request_windows.requests([(0, 1 << 21)], streams=1) == [(0, 1 << 21)]
    assert request_windows.requests([]) == []


@given(
    st.text(max_size=40) | st.from_regex(r"bytes \d+-\d+/\d+", fullmatch=True),
    st.sampled_from(["-10", "5-", "5-9", "0-0"]),
)
def test_any_content_range(text: str, window: str) -> None:
    try:
        first, length, total = transport._range(text, window, "http://x")
    except RefusedError:
        return
    assert 0 <= first < first + length <= total
    if window == "5-9":
        assert (first, length <= 5) == (5, True)


@pytest.mark.parametrize(
    ("text", "window", "expected"),
    [
        ("bytes 90-99/100", "-10", (90, 10, 100)),
        ("bytes 0-3/4", "-10", (0, 4, 4)),
        ("bytes 5-9/100", "5-9", (5, 5, 100)),
        ("bytes 5-7/8", "5-", (5, 3, 8)),
    ],
)
def test_content_ranges(text: str, window: str, expected: tuple[int, int, int]) -> None:
    assert transport._range(text, window, "http://x") == expected


def test_a_range_that_nobody_asked_for() -> None:
    with pytest.raises(RefusedError, match="asked for bytes None"):
        transport._range("bytes 0-3/4", None, "http://x")


@given(st.binary(max_size=400), st.integers(0, 400), st.binary(max_size=8))
def test_any_bytes_as_an_archive(data: bytes, at: int, over: bytes) -> None:
    """zipfile's own errors never get out: noise, and archives with noise in them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vllm/a", b"abc" * 30)
        archive.writestr("vllm/b", data)
    noise = bytearray(buffer.getvalue())
    noise[at : at + len(over)] = over
    for content in (data, bytes(noise)):
        try:
            found = Archive(io.BytesIO(content), "here")
            for name in found.members:
                found.read(name, 1 << 20)
                begin, end = found.window(name)
                assert 0 <= begin < end <= len(content)
        except RefusedError:
            pass


def test_a_stream_gives_no_more_than_a_directory_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_build.reuse.records.bounds.DIRECTORY", 10)
    stream = Bounded(io.BytesIO(b"x" * 20), "here")
    assert stream.read(10) == b"x" * 10
    assert stream.seekable()
    stream.seek(0)
    for size in (-1, 11):
        with pytest.raises(RefusedError, match="directory"):
            stream.read(size)
    stream.close()


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("/a/b.whl", "b.whl"),
        ("https://x/a/b%2Bcpu.whl?key=1", "b+cpu.whl"),
        ("file:///a/b.conda", "b.conda"),
        ("~/b.whl", "b.whl"),
    ],
)
def test_file_names_of_locations(location: str, name: str) -> None:
    assert reuse_context.file_name(location) == name


@pytest.mark.parametrize(
    "location", ["ftp://x/a.whl", "s3://bucket/a.whl", "file://other/a.whl", "http://[/a.whl"]
)
def test_locations_that_are_none(location: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address"):
        reuse_context.local_path(location)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "http:///a", "file:///a", "http://[", "", "x"]
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(RefusedError, match="scheme"):
        transport.check_url(url)


def test_https_is_not_left() -> None:
    transport.check_url("https://a/", "http://a/")
    with pytest.raises(RefusedError, match="redirect"):
        transport.check_url("http://a/", "https://a/")


def test_validators() -> None:
    strong = transport.Validator('"a"', None, 5)
    weak = transport.Validator('W/"a"', None, 5)
    dated = transport.Validator(None, "Mon", 5)
    assert (strong.condition, weak.condition, dated.condition) == ('"a"', None, "Mon")
    assert strong.same(dated)
    assert not strong.same(weak)
    assert not strong.same(transport.Validator('"a"', None, 6))


def test_wheel_names() -> None:
    fitness.require_wheel_name("kernels.whl", "here")
    fitness.require_wheel_name("vllm-0.1.0-py3-none-any.whl", "here")
    with pytest.raises(RefusedError, match="platform"):
        fitness.require_wheel_name("vllm-0.1.0-cp310-abi3-win_amd64.whl", "here")


def test_the_processor_of_a_library_is_checked_on_linux_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitness.require_machine(elf()[:64], "here", "a.so")
    monkeypatch.setattr(fitness.platform, "system", lambda: "Darwin")
    fitness.require_machine(b"\xcf\xfa\xed\xfe", "here", "a.so")


@pytest.mark.parametrize("named", [False, True])
def test_a_disk_that_fails_is_no_damaged_archive(tmp_path: Path, *, named: bool) -> None:
    """Errors of the disk have a file's name; a seek before the beginning, which a lying directory asks for, has none."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if (
                self.tell() >= len(self.getvalue()) - 64
            ):  # the records at the end, which say where the directory is
                return super().read(size)
            raise (
                OSError(errno.EIO, "Input/output error", str(tmp_path))
                if named
                else OSError(errno.EINVAL, "Invalid argument")
            )

    with (
        pytest.raises(OSError, match="Input/output error")
        if named
        else pytest.raises(RefusedError, match="check: directory")
    ):
        Archive(Failing(Build().wheel(tmp_path).read_bytes()), "w")


def test_a_member_that_ends_early(tmp_path: Path) -> None:
    """Its checksum is right, and it has fewer bytes than the directory says."""
    path = Build().wheel(tmp_path)
    name = LIBRARIES[0]
    with path.open("rb") as stream:
        archive = Archive(stream, "w")
        archive.members[name].file_size += 1
        with pytest.raises(RefusedError) as caught:
            archive.read(name, 1 << 20)
    assert caught.value.check == "size"
