# SPDX-License-Identifier: Apache-2.0
"""Servers that lie, stall or break: no byte that they send is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import reuse_server
from reuse_files import LIBRARIES, WHEEL_NAME, Build, elf, snapshot
from reuse_server import serving

from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reuse_scene import Scene


@pytest.fixture
def server(scene: Scene) -> Iterator[reuse_server.Server]:
    """Serve a wheel of half a megabyte, which needs several requests."""
    build = Build({name: elf(n, 250_000) for n, name in enumerate(LIBRARIES)})
    with serving() as state:
        state.files["/" + WHEEL_NAME] = build.wheel(scene.folder).read_bytes()
        yield state


def location(server: reuse_server.Server) -> Settings:
    return Settings(precompiled_location=f"{server.url}/{WHEEL_NAME}")


REDIRECTS = [
    "file:///etc/passwd",
    "ftp://127.0.0.1/x.whl",
    "gopher://x/",
    "data:text/plain,x",
    "//[",
]


@pytest.mark.parametrize("target", REDIRECTS)
def test_redirects_to_other_schemes(scene: Scene, server: reuse_server.Server, target: str) -> None:
    server.script = [reuse_server.status(302, Location=target)]
    scene.refused(location(server), "redirect")


def test_endless_redirects(scene: Scene, server: reuse_server.Server) -> None:
    server.script = [reuse_server.status(301, Location=f"/{WHEEL_NAME}")] * 50
    scene.refused(location(server), "redirect")
    assert len(server.asked) < 10


def test_a_file_that_changes_between_requests(scene: Scene, server: reuse_server.Server) -> None:
    other = bytearray(server.files["/" + WHEEL_NAME])
    other[5000] ^= 1
    server.script = [None, reuse_server.changes(server, "/" + WHEEL_NAME, bytes(other))]
    scene.refused(location(server), "changed")


def test_a_file_that_changes_its_size_on_a_server_without_validators(
    scene: Scene, server: reuse_server.Server
) -> None:
    server.etag = False
    server.script = [
        None,
        reuse_server.changes(server, "/" + WHEEL_NAME, server.files["/" + WHEEL_NAME] + b"?"),
    ]
    scene.refused(location(server), "changed")


def test_a_file_that_changes_its_bytes_on_a_server_without_validators(
    scene: Scene, server: reuse_server.Server
) -> None:
    server.etag = False
    data = bytearray(server.files["/" + WHEEL_NAME])
    data[5000] ^= 1
    server.script = [None, reuse_server.changes(server, "/" + WHEEL_NAME, bytes(data))]
    scene.refused(location(server), "crc")


@pytest.mark.parametrize(
    ("answer", "check"),
    [
        ({"Content_Range": "bytes 0-9/100"}, "range"),
        ({"Content_Range": "bytes x-y/z"}, "range"),
        ({"Content_Range": ""}, "range"),
        ({"Content_Encoding": "gzip"}, "encoding"),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_answers_that_do_not_match_the_request(
    scene: Scene, server: reuse_server.Server, at: int, answer: dict[str, str], check: str
) -> None:
    server.script = [*[None] * at, reuse_server.says(206, None, **answer)]
    scene.refused(location(server), check)


def test_a_range_that_no_longer_exists(scene: Scene, server: reuse_server.Server) -> None:
    server.script = [None, reuse_server.status(416)]
    scene.refused(location(server), "range")


def test_a_server_that_honours_one_range_and_ignores_the_next(
    scene: Scene, server: reuse_server.Server
) -> None:
    server.script = [None, reuse_server.ignores_ranges]
    scene.refused(location(server), "changed")
    server.etag, server.script = False, [None, reuse_server.ignores_ranges]
    scene.refused(location(server), "range")


def unreachable(scene: Scene, server: reuse_server.Server) -> FetchError:
    tree = snapshot(scene.tree)
    with pytest.raises(FetchError) as caught:
        scene.reuse(location(server))
    assert snapshot(scene.tree) == tree
    assert not snapshot(scene.context.cache.root / "blobs", scene.context.cache.root / "incoming")
    return caught.value


def test_a_server_that_stalls(scene: Scene, server: reuse_server.Server) -> None:
    server.script = [None, *[reuse_server.stalls(10, 1.0)] * 4]
    assert "attempts in a row" in unreachable(scene, server).message


def test_a_server_that_resets_each_connection(scene: Scene, server: reuse_server.Server) -> None:
    server.script = [None, *[reuse_server.breaks(100, hard=True)] * 40]
    assert "attempts in a row" in unreachable(scene, server).message


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_broken(scene: Scene, server: reuse_server.Server, status: int) -> None:
    server.script = [reuse_server.status(status)] * 9
    assert str(status) in unreachable(scene, server).message


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_server_that_refuses(scene: Scene, server: reuse_server.Server, status: int) -> None:
    server.script = [reuse_server.status(status)]
    assert unreachable(scene, server).remedy
