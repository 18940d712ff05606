# SPDX-License-Identifier: Apache-2.0
"""Members of a remote wheel, which benchmarks download without the rest of it."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from bench_modules import bench_modules  # noqa: F401 - a fixture
from reuse_server import breaks, serving, status

from vllm_build.util.console import Console
from vllm_build.util.errors import FetchError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reuse_server import Server

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


@dataclass
class Index:
    """A server of the wheel."""

    server: Server
    wheel: Path

    @property
    def url(self) -> str:
        return f"{self.server.url}/{self.wheel.name}"

    def behave(self, manner: str) -> None:
        """Answer requests with this status, without ranges ("whole"), or too briefly ("short")."""
        self.server.ranges = manner != "whole"
        if manner.isdigit():
            self.server.script = [status(int(manner))] * 9
        elif manner == "short":
            self.server.script = [breaks(1000)] * 9


@pytest.fixture
def index(wheel: Path) -> Iterator[Index]:
    with serving() as server:
        server.files[f"/{wheel.name}"] = wheel.read_bytes()
        yield Index(server, wheel)


@pytest.fixture
def members() -> dict[str, str]:
    return {MEMBER: hashlib.sha256(LIBRARY).hexdigest()}


def test_a_member_costs_its_own_bytes(
    kernels: Any, index: Index, members: dict[str, str], tmp_path: Path
) -> None:
    remote = kernels.remote_wheel
    with remote.open_wheel(index.url) as archive:
        remote.extract(archive, members, tmp_path)
        assert archive.meter.size < 1 << 20
        assert index.server.sent == archive.meter.size
        received = archive.meter.size
        remote.extract(archive, members, tmp_path)
        assert archive.meter.size == received, "existing files are not read again"
    assert (tmp_path / "_C_stable_libtorch.abi3.so").read_bytes() == LIBRARY


def test_other_bytes_than_pinned(
    kernels: Any, index: Index, members: dict[str, str], tmp_path: Path
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
    name = f"/{index.wheel.name}"
    index.server.files[name] = index.server.files[name][:-1000]
    with pytest.raises(IntegrityError, match="no valid wheel"), remote.open_wheel(index.url):
        pass


@pytest.mark.parametrize(
    ("manner", "words"),
    [("whole", "does not send parts"), ("401", "wants a password"), ("403", "wants a password")],
)
def test_an_index_without_ranges(kernels: Any, index: Index, manner: str, words: str) -> None:
    index.behave(manner)
    with (
        pytest.raises(kernels.remote_wheel.NoRangesError, match=words),
        kernels.remote_wheel.open_wheel(index.url),
    ):
        pass


@pytest.mark.parametrize(
    ("manner", "words"),
    [("500", "HTTP status 500"), ("short", "connection ended after 1000 of")],
)
def test_an_index_that_fails(kernels: Any, index: Index, manner: str, words: str) -> None:
    index.behave(manner)
    with (
        pytest.raises(FetchError, match=words) as found,
        kernels.remote_wheel.open_wheel(index.url),
    ):
        pass
    assert not isinstance(found.value, kernels.remote_wheel.NoRangesError)


def test_an_index_that_is_gone(kernels: Any) -> None:
    with serving() as server:
        url = f"{server.url}/vllm-1-py3-none-any.whl"
    with (
        pytest.raises(FetchError, match="refused"),
        kernels.remote_wheel.open_wheel(url),
    ):
        pass
    with (
        serving() as server,
        pytest.raises(FetchError, match="no such file"),
        kernels.remote_wheel.open_wheel(f"{server.url}/vllm-1-py3-none-any.whl"),
    ):
        pass


def test_the_whole_wheel_where_there_are_no_ranges(
    kernels: Any,
    index: Index,
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
    index.behave("whole")
    (library,) = official.libraries(frozenset({"_C", "_moe_C"}), Console())
    assert library.read_bytes() == LIBRARY
    assert asked == [(official.NAME, official.VERSION, official.SHA256)]
    index.behave("500")
    assert official.libraries(frozenset({"_C"}), Console()) == [library], "from the cache"


def test_pip_says_where_the_wheel_is(
    kernels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index on this disk, which pip reads without a server."""
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
        assert found.archive.zip.read("sample.so") == LIBRARY
    with pytest.raises(FetchError, match=r"pip finds no vllm-bench-sample==2\.0"):
        kernels.remote_wheel.locate("vllm-bench-sample==2.0", sha256, "manylinux_2_28_x86_64")
