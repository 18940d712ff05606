# SPDX-License-Identifier: Apache-2.0
"""The folders of a user follow from four variables and the password database."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from vllm_build.util import environ, paths
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.places import Places


@pytest.mark.parametrize("text", ["relative", "./x", "../x"])
def test_a_relative_cache_home_is_refused_where_the_cache_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delenv("VLLM_BUILD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", text)
    with pytest.raises(ConfigurationError, match="XDG_CACHE_HOME"):
        paths.cache_root()


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({"HOME": "/h"}, "/h/.cache/vllm-build"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/vllm-build"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x", "VLLM_BUILD_CACHE": "/b"}, "/b"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "", "VLLM_BUILD_CACHE": ""}, "/h/.cache/vllm-build"),
        ({"XDG_CACHE_HOME": "relative", "VLLM_BUILD_CACHE": "/b"}, "/b"),
    ],
)
def test_cache(variables: dict[str, str], cache: str) -> None:
    found = Places.of({**variables, "OTHER": "/other"})
    assert found.cache == Path(cache)
    assert found.ccache == Path(cache, "ccache")
    assert Places.of({**variables, "CCACHE_DIR": "/c"}).ccache == Path("/c")


def test_a_relative_folder_is_below_the_current_one() -> None:
    assert Places(build_cache="b").cache == Path.cwd() / "b"
    assert Places(compiler_cache="c").ccache == Path.cwd() / "c"


def test_home_of_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Places().home == Path(pwd.getpwuid(os.getuid()).pw_dir)

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert Places().home is None
    assert Places.of({"HOME": "/h"}).home == Path("/h")
    with pytest.raises(ConfigurationError, match="HOME is not set"):
        _ = Places().cache


@pytest.mark.parametrize("name", ["VLLM_BUILD_CACHE", "XDG_CACHE_HOME", "CCACHE_DIR"])
def test_a_user_that_does_not_exist(name: str) -> None:
    found = Places.of({name: "~no-such-user/x", "HOME": "/h"})
    with pytest.raises(ConfigurationError, match=f"{name}='~no-such-user/x' is not valid"):
        _ = found.ccache if name == "CCACHE_DIR" else found.cache


def test_places_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", "/of/this/process")
    assert environ.places() == Places.of(os.environ)
    assert paths.cache_root() == environ.places().cache == Path("/of/this/process")
