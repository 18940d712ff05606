# SPDX-License-Identifier: Apache-2.0
"""Passwords for servers: from addresses and netrc, and only to the right server."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest
from login_server import LOGIN, TRANSPORT, with_login
from reuse_server import basic, serving, status

from vllm_build.reuse.net import download, login
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import FetchError

if TYPE_CHECKING:
    from pathlib import Path

    from reuse_server import Server

pytestmark = pytest.mark.usefixtures("no_netrc")


def test_an_address_logs_in(login_server: Server) -> None:
    assert (
        download.fetch_small(TRANSPORT, with_login(login_server.url) + "/file", 100) == b"content"
    )
    assert login_server.logins == [basic(LOGIN)]


@pytest.mark.parametrize("text", ["user", "user:", "user:wrong", None])
def test_a_wrong_password_is_said_without_it(login_server: Server, text: str | None) -> None:
    url = with_login(login_server.url, text) if text else login_server.url
    with pytest.raises(
        FetchError, match=r"HTTP status 401\n  expected: a name and a password"
    ) as caught:
        download.fetch_small(TRANSPORT, url + "/file", 100)
    assert "wrong" not in str(caught.value)


def test_netrc_serves_where_the_address_has_no_credentials(
    login_server: Server, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    context = Context.of_settings(Settings.from_environ({"NETRC": str(netrc)}))
    transport = dataclasses.replace(context.transport, attempts=2, pause=0.01)
    login_server.login = "user:s3cret"
    netrc.write_text("machine 127.0.0.1 login user password s3cret\n", encoding="utf-8")
    assert download.fetch_small(transport, login_server.url + "/file", 100) == b"content"
    # The address takes precedence, as it does in pip.
    with pytest.raises(FetchError, match="401"):
        download.fetch_small(transport, with_login(login_server.url, "user:other") + "/file", 100)
    netrc.write_text("machine [ nonsense", encoding="utf-8")
    with pytest.raises(FetchError, match="401"):
        download.fetch_small(transport, login_server.url + "/file", 100)
    netrc.unlink()
    os.mkfifo(netrc)
    with pytest.raises(FetchError, match="401"):
        download.fetch_small(transport, login_server.url + "/file", 100)


def test_netrc_of_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert login.from_netrc("host", "") is None
    (tmp_path / ".netrc").write_text("machine host login a password b\n", encoding="utf-8")
    (tmp_path / ".netrc").chmod(0o600)
    assert login.from_netrc("host", "") == basic("a:b")
    assert login.from_netrc("other", "") is None


def test_a_redirect_to_another_server_does_not_carry_it(login_server: Server) -> None:
    with serving() as other:
        other.files["/file"] = b"elsewhere"
        login_server.script.append(status(302, Location=f"{other.url}/file"))
        login_server.login = None
        assert (
            download.fetch_small(TRANSPORT, with_login(login_server.url) + "/x", 100)
            == b"elsewhere"
        )
        assert login_server.logins == [basic(LOGIN)]
        assert other.logins == [None]


@pytest.mark.parametrize("absolute", [True, False])
def test_a_redirect_on_the_same_server_does(login_server: Server, absolute: bool) -> None:  # noqa: FBT001 - a parameter
    login_server.login = None
    login_server.script.append(
        status(307, Location=f"{login_server.url}/file" if absolute else "/file")
    )
    assert download.fetch_small(TRANSPORT, with_login(login_server.url) + "/x", 100) == b"content"
    assert login_server.logins == [basic(LOGIN)] * 2


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
