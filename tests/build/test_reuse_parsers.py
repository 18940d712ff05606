# SPDX-License-Identifier: Apache-2.0
"""Parsers of names, records and documents: any input gives the right result or a RefusedError."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON
from packaging.version import Version
from reuse_files import DIGEST, LIBRARIES, OUTPUT, RECORD, Build, elf

from vllm_build.reuse.archives.bounded_stream import Bounded
from vllm_build.reuse.archives.wheel_file import Archive
from vllm_build.reuse.records import fitness, member_names
from vllm_build.reuse.records.output_record import parse
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_entry

if TYPE_CHECKING:
    from pathlib import Path


@given(st.text(alphabet="ab/.\\:\0\nÄä", max_size=12))
def test_accepted_names_stay_in_the_folder(name: str) -> None:
    try:
        member_names.check([name], "here")
    except RefusedError:
        return
    parts = name.removesuffix("/").split("/")
    assert not {"", ".", ".."} & set(parts)
    assert not set("\\\0\n") & set(name)


@given(st.lists(st.text(alphabet="abAB/", min_size=1, max_size=4), max_size=6))
def test_accepted_names_are_distinct(listed: list[str]) -> None:
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
def test_names_that_no_library_has(name: str) -> None:
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
        assert error.check in ("document", "size-limit", "member-name")  # noqa: PT017 - valid values pass
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
def test_index_documents_round_trip(digest: str, builds: tuple[store_entry.Build, ...]) -> None:
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


@given(st.binary(max_size=400), st.integers(0, 400), st.binary(max_size=8))
def test_any_bytes_as_an_archive(data: bytes, at: int, over: bytes) -> None:
    """Noise, and archives with noise in them, never raise an error of zipfile."""
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


def test_a_read_is_limited_to_the_size_of_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_build.reuse.records.bounds.DIRECTORY", 10)
    stream = Bounded(io.BytesIO(b"x" * 20), "here")
    assert stream.read(10) == b"x" * 10
    assert stream.seekable()
    stream.seek(0)
    for size in (-1, 11):
        with pytest.raises(RefusedError, match="directory"):
            stream.read(size)
    stream.close()


def test_wheel_names() -> None:
    fitness.require_wheel_name("kernels.whl", "here")
    fitness.require_wheel_name("vllm-0.1.0-py3-none-any.whl", "here")
    with pytest.raises(RefusedError, match="platform"):
        fitness.require_wheel_name("vllm-0.1.0-cp310-abi3-win_amd64.whl", "here")


def test_the_processor_of_a_library_is_checked_only_on_linux(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitness.require_machine(elf()[:64], "here", "a.so")
    monkeypatch.setattr(fitness.platform, "system", lambda: "Darwin")
    fitness.require_machine(b"\xcf\xfa\xed\xfe", "here", "a.so")


@pytest.mark.parametrize("named", [False, True])
def test_a_failing_disk_is_not_a_damaged_archive(tmp_path: Path, *, named: bool) -> None:
    """Errors of the disk have a file name; a seek to a negative position has none."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            # The records at the end tell where the directory is.
            if self.tell() >= len(self.getvalue()) - 64:
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
    """The checksum is right, but the member has fewer bytes than the directory says."""
    path = Build().wheel(tmp_path)
    name = LIBRARIES[0]
    with path.open("rb") as stream:
        archive = Archive(stream, "w")
        archive.members[name].file_size += 1
        with pytest.raises(RefusedError) as caught:
            archive.read(name, 1 << 20)
    assert caught.value.check == "size"
