# SPDX-License-Identifier: Apache-2.0
"""Downloading wheels with pip; a folder of wheels is the index."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from vllm_build.toolchain import pypi, sdist_search
from vllm_build.util.errors import ConfigurationError, FetchError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def wheel(
    folder: Path, name: str, version: str, tags: str = "py3-none-any", content: str = ""
) -> Path:
    path = folder / f"{name}-{version}-{tags}.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which pip looks for files."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def test_the_exact_file_arrives_and_nothing_else(index: Path, into: Path) -> None:
    wanted = wheel(index, "sample", "1.0")
    wheel(index, "sample", "2.0")
    pypi.download(
        [("sample", "1.0", sha256(wanted))], into, python="3.11", abi=None, inherited=os.environ
    )
    assert [path.name for path in into.iterdir()] == [wanted.name]
    assert sha256(into / wanted.name) == sha256(wanted)


def test_wheels_for_another_interpreter(index: Path, into: Path) -> None:
    wanted = wheel(index, "sample", "1.0", "cp313-cp313t-manylinux_2_28_x86_64")
    for tags in (
        "cp313-cp313-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux2014_x86_64",
        "cp313-cp313t-manylinux_2_40_x86_64",
    ):
        wheel(index, "sample", "1.0", tags)
    pypi.download(
        [("sample", "1.0", sha256(wanted))], into, python="3.13", abi="cp313t", inherited=os.environ
    )
    assert [path.name for path in into.iterdir()] == [wanted.name]


def test_other_bytes_are_an_integrity_error(index: Path, into: Path) -> None:
    there = wheel(index, "sample", "1.0")
    with pytest.raises(IntegrityError) as caught:
        pypi.download(
            [("sample", "1.0", "0" * 64)], into, python="3.11", abi=None, inherited=os.environ
        )
    assert sha256(there) in caught.value.message
    assert "sample 1.0" in caught.value.message


def test_the_error_for_a_missing_version_names_the_update(index: Path, into: Path) -> None:
    wheel(index, "sample", "2.0")
    with pytest.raises(pypi.MissingVersionError) as caught:
        pypi.download(
            [("sample", "1.0", "0" * 64)], into, python="3.11", abi=None, inherited=os.environ
        )
    assert caught.value.exit_code == FetchError.exit_code
    assert "vllm-build toolchain --update" in str(caught.value)


def sdist(folder: Path, name: str, version: str, backend: str, called: str = "") -> Path:
    """Write a source distribution that fails if any of its code is run."""
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {called or name}\nVersion: {version}\n",
        "setup.py": "raise SystemExit('this must not run')\n",
        "own.py": "raise SystemExit('this must not run')\n",
        "pyproject.toml": backend,
    }
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for filename, text in files.items():
            info = tarfile.TarInfo(f"{name}-{version}/{filename}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    "backend",
    [
        "",
        (
            '[build-system]\nrequires = ["setuptools", "not-there"]\n'
            'build-backend = "setuptools.build_meta"\n'
        ),
        '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n',
        '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n',
    ],
    ids=["no backend", "setuptools", "its own", "another"],
)
def test_an_sdist_arrives_and_nothing_of_it_is_run(index: Path, into: Path, backend: str) -> None:
    wanted = sdist(index, "some-sample", "1.0", backend)
    wheel(index, "some_sample", "1.0")
    pypi.download_sdist(
        "some-sample", "1.0", sha256(wanted), into, "a/lock.toml", inherited=os.environ
    )
    assert [path.name for path in into.iterdir()] == [wanted.name]


def test_the_name_in_an_sdist_leads_nowhere(index: Path, tmp_path: Path) -> None:
    """pip finds the file by its name. Its own name must not become a path outside of the folder."""
    sdist(index, "sample", "1.0", "", called=f"../../../../../../..{tmp_path}/evil")
    with pytest.raises(FetchError):
        sdist_search.find("sample", "1.0", inherited=os.environ)
    assert list(tmp_path.glob("evil*")) == []


def test_an_sdist_is_found_with_its_sha256(index: Path) -> None:
    there = sdist(index, "sample", "1.0", "")
    found = sdist_search.find("sample", "1.0", inherited=os.environ)
    assert found == (there.name, sha256(there))
    with pytest.raises(pypi.MissingVersionError) as caught:
        sdist_search.find("sample", "2.0", inherited=os.environ)
    assert caught.value.remedy == "`pip index versions sample` lists them"
    with pytest.raises(ConfigurationError, match="'one' is no version"):
        sdist_search.find("sample", "one", inherited=os.environ)


def test_an_sdist_of_other_bytes_or_none(index: Path, into: Path) -> None:
    there = sdist(index, "sample", "1.0", "")
    with pytest.raises(IntegrityError) as caught:
        pypi.download_sdist("sample", "1.0", "0" * 64, into, "a/lock.toml", inherited=os.environ)
    assert sha256(there) in caught.value.message
    assert caught.value.expected == "the sha256 in a/lock.toml"
    with pytest.raises(pypi.MissingVersionError) as missing:
        pypi.download_sdist("sample", "2.0", "0" * 64, into, "a/lock.toml", inherited=os.environ)
    assert missing.value.remedy == "correct the version in a/lock.toml"


@pytest.mark.parametrize("retries", ["0", "1"])
def test_an_index_that_does_not_answer_is_not_a_missing_version(
    into: Path, monkeypatch: pytest.MonkeyPatch, retries: str
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv(
        "PIP_INDEX_URL", "http://127.0.0.1:9/simple"
    )  # the discard port, on which no server listens
    monkeypatch.setenv("PIP_RETRIES", retries)
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FetchError, match="cannot reach its index") as caught:
        pypi.download(
            [("sample", "1.0", "0" * 64)], into, python="3.11", abi=None, inherited=os.environ
        )
    assert not isinstance(caught.value, pypi.MissingVersionError)
    with pytest.raises(FetchError, match="cannot reach its index") as caught:
        pypi.resolve(["sample==1.0"], python="3.11", abi=None, inherited=os.environ)
    assert not isinstance(caught.value, pypi.MissingVersionError)


class Server(http.server.ThreadingHTTPServer):
    """An index that serves ``files`` and answers other requests with the status ``otherwise``."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.otherwise = 404
        super().__init__(("127.0.0.1", 0), Answers)

    def add(self, wheel: Path) -> None:
        """Serve a wheel and the index page that lists it."""
        project = wheel.name.partition("-")[0]
        link = f'<a href="/files/{wheel.name}#sha256={sha256(wheel)}">{wheel.name}</a>'
        self.files[f"/simple/{project}/"] = (
            f"<!DOCTYPE html><html><body>{link}</body></html>".encode()
        )
        self.files[f"/files/{wheel.name}"] = wheel.read_bytes()


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers of a :class:`Server`."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        content = self.server.files.get(self.path)
        self.send_response(200 if content is not None else self.server.otherwise)
        self.send_header(
            "Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream"
        )
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The only index that pip is configured with; pip does not retry."""
    for name in [
        name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    server = Server()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_answers_of_a_network_index_are_distinguished(
    server: Server, tmp_path: Path, into: Path
) -> None:
    one, two = wheel(tmp_path, "sample", "1.0"), wheel(tmp_path, "sample", "2.0")

    def failure(version: str, digest: str) -> type[Exception]:
        with pytest.raises((FetchError, IntegrityError)) as caught:
            pypi.download(
                [("sample", version, digest)], into, python="3.11", abi=None, inherited=os.environ
            )
        return caught.type

    server.otherwise = 503
    assert failure("1.0", sha256(one)) is FetchError, "an index that is out of order"
    server.otherwise = 404
    assert failure("1.0", sha256(one)) is FetchError, (
        "a server that is not an index, because it does not even have pip"
    )
    server.add(wheel(tmp_path, "pip", "99.0"))
    assert failure("1.0", sha256(one)) is pypi.MissingVersionError, "an index without the project"
    server.add(two)
    assert failure("1.0", sha256(one)) is pypi.MissingVersionError, "an index with another version"
    assert failure("2.0", sha256(one)) is IntegrityError, "an index with other bytes"
    del server.files[f"/files/{two.name}"]
    assert failure("2.0", sha256(two)) is pypi.MissingVersionError, (
        "an index that lists a file but does not have it"
    )
    server.add(two)
    pypi.download(
        [("sample", "2.0", sha256(two))], into, python="3.11", abi=None, inherited=os.environ
    )
    assert [path.name for path in into.iterdir()] == [two.name]


def test_resolving_names_the_file_and_its_hash(index: Path) -> None:
    one, two = (
        wheel(index, "sample_one", "1.0"),
        wheel(index, "two", "3.0+cpu", "cp311-cp311-manylinux_2_28_x86_64"),
    )
    found = pypi.resolve(
        ["sample-one==1.0", "two==3.0"], python="3.11", abi=None, inherited=os.environ
    )
    assert [(w.name, w.version, w.filename, w.sha256) for w in found] == [
        ("sample_one", "1.0", one.name, sha256(one)),
        ("two", "3.0+cpu", two.name, sha256(two)),
    ]


def test_the_version_that_pip_names_is_the_first_that_is_looked_up(
    index: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look-up is a call of pip, and one download may be of many wheels."""
    wanted = [(name, "1.0", sha256(wheel(index, name, "1.0"))) for name in ("alpha", "beta")]
    asked: list[list[str]] = []
    report = pypi.report

    def recorded(requirements: list[str], *rest: Any) -> Any:
        asked.append(list(requirements))
        return report(requirements, *rest)

    monkeypatch.setattr(pypi, "report", recorded)
    with pytest.raises(pypi.MissingVersionError) as caught:
        pypi.download(
            [*wanted, ("zeta", "9.0", "0" * 64)],
            into,
            python="3.11",
            abi=None,
            inherited=os.environ,
        )
    assert asked == [["zeta===9.0"]]
    assert (caught.value.requirement, caught.value.others) == ("zeta===9.0", ())


def test_resolving_a_missing_version(index: Path) -> None:
    wheel(index, "sample", "1.0", "cp311-cp311-manylinux_2_28_x86_64")
    with pytest.raises(pypi.MissingVersionError):
        pypi.resolve(["sample==1.0"], python="3.13", abi=None, inherited=os.environ)


def test_a_free_threaded_interpreter_gets_no_abi3_wheel(index: Path) -> None:
    wheel(index, "sample", "1.0", "cp311-abi3-manylinux_2_28_x86_64")
    with pytest.raises(pypi.MissingVersionError):
        pypi.resolve(["sample==1.0"], python="3.13", abi="cp313t", inherited=os.environ)
    assert pypi.resolve(["sample==1.0"], python="3.13", abi=None, inherited=os.environ)[
        0
    ].filename.startswith("sample-1.0-cp311-abi3")


def test_a_local_version_is_not_taken_for_the_default_one(index: Path, into: Path) -> None:
    default, local = (
        wheel(index, "sample", "1.0"),
        wheel(index, "sample", "1.0+cpu", content="x = 1\n"),
    )
    assert (
        pypi.resolve(["sample==1.0"], python="3.11", abi=None, inherited=os.environ)[0].filename
        == local.name
    )
    assert (
        pypi.resolve(["sample===1.0"], python="3.11", abi=None, inherited=os.environ)[0].filename
        == default.name
    )
    pypi.download(
        [("sample", "1.0", sha256(default))], into, python="3.11", abi=None, inherited=os.environ
    )
    assert [path.name for path in into.iterdir()] == [default.name]
