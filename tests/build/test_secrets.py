# SPDX-License-Identifier: Apache-2.0
"""Commands do not reveal a password: in no output, file or file name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from login_server import LOGIN, PASSWORD, TRANSPORT, files_with, with_login
from reuse_files import Build, elf, write_channel
from reuse_server import basic
from trees import copy_tree

from vllm_build import cli
from vllm_build.conda import package_job, package_request, variants
from vllm_build.reuse import preparation
from vllm_build.reuse.lookup import kernel_channel
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.stores import store_publish
from vllm_build.settings.build_settings import Settings
from vllm_build.target.device import Target
from vllm_build.toolchain import apt
from vllm_build.toolchain.channel_build import ChannelReport
from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reuse_server import Server

pytestmark = pytest.mark.usefixtures("no_netrc")


@pytest.fixture
def real(root: Path) -> Build:
    """A build with the digests of this tree."""
    (wanted,) = preparation.find_wanted(
        root, preparation.make_plan(root, Settings(), Target("cpu", "why"))
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


#: Commands that contact no server have one outcome. The same code handles a missing file or server
#: for every kind of source.
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
    """Neither ``said`` nor a file below the folders nor its name contains the password."""
    assert [secret for secret in SECRETS if secret in said] == [], said
    assert files_with(PASSWORD, *folders) == []
    names = [str(path) for folder in folders for path in folder.rglob("*")]
    assert [name for name in names for secret in SECRETS if secret in name] == []


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Removes the settings of this machine, and sets a home folder for the test."""
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
    login_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    case: str,
    outcome: str,
) -> None:
    words, variable, make = COMMANDS[case]
    path = make(real, tmp_path)
    login_server.folder = tmp_path / "served"
    base = with_login(login_server.url)
    if outcome == "refused":
        login_server.login = "user:another"
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
    login_server: Server,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    outcome: str,
) -> None:
    """``vllm-build package --reuse URL`` up to the installation, which is replaced."""
    output, folder = tmp_path / "output", tmp_path / "served" / "channel"
    for name, result in (("_install", "created"), ("fetch_sources", None)):
        monkeypatch.setattr(package_job, name, lambda *_, result=result: result)
    monkeypatch.setattr(
        package_job.channel_build, "ensure", lambda *_, **__: ChannelReport(tmp_path, "d" * 64, ())
    )
    monkeypatch.setattr(
        package_job.conda_environment, "run_in", lambda *_, **__: "all operators agree"
    )
    monkeypatch.setattr(package_job.engine_demo, "show", lambda *_, **__: {})
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
    login_server.folder = tmp_path / "served"
    if outcome == "refused":
        login_server.login = "user:another"
    capfd.readouterr()
    command = [
        "package",
        "cpu",
        "--channel",
        "local",
        "--output",
        str(output),
        "--reuse",
        f"'{with_login(login_server.url)}/channel'",
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
    real: Build, login_server: Server, tmp_path: Path, outcome: str
) -> None:
    """pip's log, the build folder and the wheel do not contain the address with its password."""
    tree = copy_tree(tmp_path / "tree", "tests", symlinks=True)
    login_server.folder = tmp_path / "served"
    url = with_login(login_server.url) + wheel_of(real, tmp_path)
    if outcome == "refused":
        login_server.login = "user:another"
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
    """apt's own file is readable only by its owner, so ours must be too."""
    from vllm_build.util.console import Console

    def machine(_: object) -> tuple[str, str, str]:
        return (
            'Acquire::http::Proxy "http://user:s3cret@proxy:3128";',
            "http://user:s3cret@mirror/debian",
            "",
        )

    monkeypatch.setattr(apt.PrivateApt, "_machine", machine)
    private = apt.PrivateApt(tmp_path / "apt", Console(), {})
    private.folder.mkdir()
    # Earlier versions left files that everyone could read.
    for name in ("apt.conf", "sources.list"):
        (private.folder / name).touch(0o644)
    private.prepare()
    holding = files_with("s3cret", private.folder)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in holding} == {
        "apt.conf": "0o600",
        "sources.list": "0o600",
    }
