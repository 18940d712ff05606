# SPDX-License-Identifier: Apache-2.0
"""Servers that ask for a password: it gets there, and nowhere else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from reuse_files import Build, elf, write_channel
from reuse_server import basic, serving, status

from vllm_build import cli
from vllm_build.conda import package_job, package_request, variants
from vllm_build.reuse import preparation
from vllm_build.reuse.lookup import kernel_channel
from vllm_build.reuse.net import download, login
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.net.transport import Transport
from vllm_build.reuse.stores import store_publish
from vllm_build.settings.build_settings import Settings
from vllm_build.target.device import Target
from vllm_build.toolchain import apt
from vllm_build.toolchain.channel_build import ChannelReport
from vllm_build.util.errors import FetchError
from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from reuse_server import Server

#: With characters that an address has to encode, and others that a shell or a pattern might stumble
#: over.
PASSWORD = "s3:cr/t@ w?rd#%'$ü"  # noqa: S105 - of a server of these tests
LOGIN = f"user:{PASSWORD}"
TRANSPORT = Transport(timeout=2, attempts=2, pause=0.01)


@pytest.fixture(autouse=True)
def no_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "no-such-netrc"))
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.login = LOGIN
        running.files["/file"] = b"content"
        yield running


def with_login(url: str, text: str = f"user:{quote(PASSWORD, safe='')}") -> str:
    return url.replace("://", f"://{text}@")


def test_an_address_logs_in(server: Server) -> None:
    assert download.small(TRANSPORT, with_login(server.url) + "/file", 100) == b"content"
    assert server.logins == [basic(LOGIN)]


@pytest.mark.parametrize("text", ["user", "user:", "user:wrong", None])
def test_a_wrong_password_is_said_without_it(server: Server, text: str | None) -> None:
    url = with_login(server.url, text) if text else server.url
    with pytest.raises(
        FetchError, match=r"HTTP status 401\n  expected: a name and a password"
    ) as caught:
        download.small(TRANSPORT, url + "/file", 100)
    assert "wrong" not in str(caught.value)


def test_netrc_serves_where_the_address_names_nobody(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    server.login = "user:s3cret"
    netrc.write_text("machine 127.0.0.1 login user password s3cret\n", encoding="utf-8")
    assert download.small(TRANSPORT, server.url + "/file", 100) == b"content"
    # The address wins, as it does for pip.
    with pytest.raises(FetchError, match="401"):
        download.small(TRANSPORT, with_login(server.url, "user:other") + "/file", 100)
    netrc.write_text("machine [ nonsense", encoding="utf-8")
    with pytest.raises(FetchError, match="401"):
        download.small(TRANSPORT, server.url + "/file", 100)
    netrc.unlink()
    os.mkfifo(netrc)
    with pytest.raises(FetchError, match="401"):
        download.small(TRANSPORT, server.url + "/file", 100)


def test_netrc_of_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert login.from_netrc("host") is None
    (tmp_path / ".netrc").write_text("machine host login a password b\n", encoding="utf-8")
    (tmp_path / ".netrc").chmod(0o600)
    assert login.from_netrc("host") == basic("a:b")
    assert login.from_netrc("other") is None


def test_a_redirect_to_another_server_does_not_carry_it(server: Server) -> None:
    with serving() as other:
        other.files["/file"] = b"elsewhere"
        server.script.append(status(302, Location=f"{other.url}/file"))
        server.login = None
        assert download.small(TRANSPORT, with_login(server.url) + "/x", 100) == b"elsewhere"
        assert server.logins == [basic(LOGIN)]
        assert other.logins == [None]


@pytest.mark.parametrize("absolute", [True, False])
def test_a_redirect_on_the_same_server_does(server: Server, absolute: bool) -> None:  # noqa: FBT001 - a parameter
    server.login = None
    server.script.append(status(307, Location=f"{server.url}/file" if absolute else "/file"))
    assert download.small(TRANSPORT, with_login(server.url) + "/x", 100) == b"content"
    assert server.logins == [basic(LOGIN)] * 2


@pytest.mark.parametrize(
    ("first", "second", "trusted"),
    [
        ("http://host/a", "http://host/b", True),
        ("http://host/a", "http://HOST:80/b", True),
        ("http://host/a", "https://host/b", True),
        ("http://host:8080/a", "https://host/b", False),
        ("https://host/a", "http://host/b", False),
        ("https://host/a", "https://host:444/b", False),
        ("https://host/a", "https://host.example/b", False),
        ("https://host/a", "https://sub.host/b", False),
    ],
)
def test_servers_that_are_the_same(first: str, second: str, trusted: bool) -> None:  # noqa: FBT001 - a parameter
    assert login.Origin.of(first).trusts(login.Origin.of(second)) is trusted


# Every command that takes an address.


@pytest.fixture
def real(root: Path) -> Build:
    """A build that this tree asks for."""
    (wanted,) = preparation.wanted(
        root, preparation.planned(root, Settings(), Target("cpu", "why"))
    )
    return Build(
        {name: elf() for name in wanted.libraries},
        {"build_digest": wanted.digest, "kernel_digest": wanted.kernel_digest},
    )


def store_of(real: Build, folder: Path) -> str:
    store_publish.publish(
        real.unpacked(folder / "built"),
        folder / "served" / "store",
        Context(Cache(folder / "own-cache"), TRANSPORT),
    )
    return "/store"


def wheel_of(real: Build, folder: Path) -> str:
    return "/" + real.wheel(folder / "served").name


def package_of(real: Build, folder: Path) -> str:
    return "/" + real.conda(folder / "served").name


def channel_of(real: Build, folder: Path) -> str:
    package = real.conda(folder / "served" / "channel" / kernel_channel.subdir())
    facts = {
        "name": "vllm-kernels",
        "build": f"cpu_abi3_k{real.facts['kernel_digest'][:12]}_h0_0",
        "build_number": 0,
        "sha256": sha256_of(package),
        "size": package.stat().st_size,
    }
    write_channel(folder / "served" / "channel", kernel_channel.subdir(), {package.name: facts})
    return "/channel"


def files_with(secret: str, *folders: Path) -> list[Path]:
    needles = {
        word.encode()
        for word in (
            secret,
            quote(secret, safe=""),
            json.dumps(secret)[1:-1],
            basic(f"user:{secret}").split()[1],
        )
    }
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if any(needle in path.read_bytes() for needle in needles)]


COMMANDS: dict[str, tuple[tuple[str, ...], str, Callable[[Build, Any], str]]] = {
    "settings": (("settings",), "VLLM_PRECOMPILED_STORES", store_of),
    "settings of a location": (("settings",), "VLLM_PRECOMPILED_WHEEL_LOCATION", wheel_of),
    "doctor": (("doctor",), "VLLM_PRECOMPILED_STORES", store_of),
    "reuse of a store": (("reuse", "--fetch"), "VLLM_PRECOMPILED_STORES", store_of),
    "reuse of a channel": (("reuse", "--fetch"), "VLLM_PRECOMPILED_STORES", channel_of),
    "reuse of a wheel": (("reuse", "--fetch"), "VLLM_PRECOMPILED_WHEEL_LOCATION", wheel_of),
    "reuse of a package": (("reuse", "--fetch"), "VLLM_PRECOMPILED_WHEEL_LOCATION", package_of),
    "audit": (("audit", "{}", "--device", "cpu"), "", wheel_of),
}


#: Commands that ask no server have one outcome. A file or server that is not there meets the same
#: code for every kind of source.
CASES = [
    *((case, "found") for case in COMMANDS),
    *((case, "refused") for case in COMMANDS if case.startswith(("reuse", "audit"))),
    *(
        (case, outcome)
        for case in ("reuse of a store", "audit")
        for outcome in ("gone", "unreachable")
    ),
]
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), basic(LOGIN).split()[1], json.dumps(PASSWORD)[1:-1])


def require_silence(said: str, *folders: Path) -> None:
    """The password is in no form in ``said``, in no file below the folders, and in no file's name."""
    assert [secret for secret in SECRETS if secret in said] == [], said
    assert files_with(PASSWORD, *folders) == []
    names = [str(path) for folder in folders for path in folder.rglob("*")]
    assert [name for name in names for secret in SECRETS if secret in name] == []


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of this machine's, and a home of the test's own."""
    for name in os.environ:
        if not name.startswith(("COVERAGE", "LANG", "PATH", "NETRC", "PYTEST", "VLLM_BUILD_CACHE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("only")
@pytest.mark.parametrize(("case", "outcome"), CASES)
def test_a_password_is_nowhere(
    real: Build,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    case: str,
    outcome: str,
) -> None:
    words, variable, make = COMMANDS[case]
    path = make(real, tmp_path)
    server.folder = tmp_path / "served"
    base = with_login(server.url)
    if outcome == "refused":
        server.login = "user:another"
    elif outcome == "gone":
        path = "/gone" + path.removeprefix("/")
    elif outcome == "unreachable":
        base = base.rpartition(":")[0] + ":9"
    url = base + path
    if variable:
        monkeypatch.setenv(variable, f"'{url}'" if variable.endswith("STORES") else url)
    capfd.readouterr()
    for more in ((), ("--json", "-v")) if outcome == "found" else (("--json", "-v"),):
        returned = cli.main([*(word.format(url) for word in words), *more])
        streams = capfd.readouterr()
        said = streams.out + streams.err
        require_silence(said, tmp_path / "cache")
        assert "Traceback" not in said or "-v" in more
        if case.startswith("reuse"):
            assert (returned == 0) == (outcome == "found"), said
            assert "user:***@127.0.0.1" in said


@pytest.mark.usefixtures("only")
@pytest.mark.parametrize("outcome", ["found", "refused"])
def test_packages_from_a_channel_that_asks_for_a_password(
    real: Build,
    server: Server,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    outcome: str,
) -> None:
    """``vllm-build package --reuse URL`` up to the installation, which starts from the files of the output folder."""
    output, folder = tmp_path / "output", tmp_path / "served" / "channel"
    for name, result in (("_install", "created"), ("fetch_sources", None)):
        monkeypatch.setattr(package_job, name, lambda *_, result=result: result)
    monkeypatch.setattr(
        package_job.channel_build, "ensure", lambda *_: ChannelReport(tmp_path, "d" * 64, ())
    )
    monkeypatch.setattr(
        package_job.conda_environment, "run_in", lambda *_, **__: "all operators agree"
    )
    listed: dict[str, dict[str, Any]] = {}
    outputs = package_request.expected(
        package_request.Request(
            root, variants.load(root, "cpu"), "local", output, Settings.from_environ(os.environ)
        )
    )
    monkeypatch.setattr(package_request, "expected", lambda _: outputs)
    for wanted in outputs:
        path = real.conda(folder / wanted.subdir, wanted.filename)
        facts = {
            "name": wanted.name,
            "build": wanted.build,
            "build_number": 0,
            "sha256": sha256_of(path),
            "size": path.stat().st_size,
        }
        listed.setdefault(wanted.subdir, {})[path.name] = facts
    for subdir, packages in listed.items():
        write_channel(folder, subdir, packages)
    server.folder = tmp_path / "served"
    if outcome == "refused":
        server.login = "user:another"
    capfd.readouterr()
    command = [
        "package",
        "cpu",
        "--channel",
        "local",
        "--output",
        str(output),
        "--reuse",
        f"'{with_login(server.url)}/channel'",
    ]
    returned = cli.main([*command, "--json", "-v"])
    streams = capfd.readouterr()
    said = streams.out + streams.err
    require_silence(said, tmp_path / "cache", output)
    assert (returned == 0) == (outcome == "found"), said
    assert "user:***@127.0.0.1" in said
    if outcome == "found":
        assert json.loads(streams.out)["reused"] is True
        assert len(list(output.glob("*/*.conda"))) == len(
            [name for packages in listed.values() for name in packages]
        )


@pytest.mark.parametrize("outcome", ["found", "refused"])
def test_a_wheel_of_pip_from_a_server_that_asks_for_a_password(
    real: Build, server: Server, root: Path, tmp_path: Path, outcome: str
) -> None:
    """Neither pip's log nor the build folder nor the wheel repeats the address as it was given."""
    left_out = (
        ".git",
        ".venv",
        "output",
        "build",
        "tests",
        "__pycache__",
        "*.so",
        "*.egg-info",
        "_version.py",
        "_build_info",
        ".*_cache",
    )
    tree = shutil.copytree(
        root, tmp_path / "tree", ignore=shutil.ignore_patterns(*left_out), symlinks=True
    )
    server.folder = tmp_path / "served"
    url = with_login(server.url) + wheel_of(real, tmp_path)
    if outcome == "refused":
        server.login = "user:another"
    env = {
        **{
            name: value
            for name, value in os.environ.items()
            if name.startswith(("COVERAGE", "LANG", "NETRC", "PATH", "VLLM_BUILD_CACHE"))
        },
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "temporary"),
        "PIP_CONFIG_FILE": os.devnull,
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_BUILD_ROOT": str(tmp_path / "build"),
        "VLLM_PRECOMPILED_WHEEL_LOCATION": url,
    }
    (tmp_path / "temporary").mkdir()
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-vv",
        "--log",
        str(tmp_path / "pip.log"),
        "--no-build-isolation",
        "--no-deps",
    ]
    done = subprocess.run(
        [*pip, "-w", str(tmp_path / "w"), str(tree)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == (outcome == "found"), said
    assert "user:***@127.0.0.1" in said
    require_silence(said, tmp_path)
    if outcome == "found":
        (wheel,) = (tmp_path / "w").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            assert real.record_name in archive.namelist()
            require_silence(
                "".join(archive.read(name).decode("latin-1") for name in archive.namelist())
            )


def test_a_proxy_password_of_apt_stays_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read from a file that only its owner may read, and written to one for everybody."""
    from vllm_build.util.console import Console

    def machine(_: object) -> tuple[str, str, str]:
        return (
            'Acquire::http::Proxy "http://user:s3cret@proxy:3128";',
            "http://user:s3cret@mirror/debian",
            "",
        )

    monkeypatch.setattr(apt.PrivateApt, "_machine", machine)
    private = apt.PrivateApt(tmp_path / "apt", Console())
    private.folder.mkdir()
    # What an earlier version left for everybody.
    for name in ("apt.conf", "sources.list"):
        (private.folder / name).touch(0o644)
    private.prepare()
    holding = files_with("s3cret", private.folder)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in holding} == {
        "apt.conf": "0o600",
        "sources.list": "0o600",
    }
