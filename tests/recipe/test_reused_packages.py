# SPDX-License-Identifier: Apache-2.0
"""Packages from other channels: refused ones leave the channel unchanged.

test_package_reuse.py takes real packages.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import DIGEST, Build, snapshot, write_channel, write_conda
from reuse_server import serving

from vllm_build.conda import reused_packages
from vllm_build.conda.recipe_outputs import Output
from vllm_build.packing import channel_index
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import ConfigurationError, FetchError

if TYPE_CHECKING:
    from pathlib import Path

KERNELS = Output("vllm-kernels", "0.1.0", "cpu_abi3_kcdcdcdcdcdcd_h0_0", noarch=False, run=())


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Cache(tmp_path / "cache"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    channel_index.initialise(tmp_path / "target")
    return tmp_path / "target"


def other(folder: Path, **facts: Any) -> Path:
    """A channel with the package; ``facts`` replace values of its index."""
    file = Build().conda(folder / "linux-64", KERNELS.filename)
    data = file.read_bytes()
    return write_channel(
        folder,
        "linux-64",
        {file.name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), **facts}},
    )


def take(ctx: Context, target: Path, *locations: object, digest: str = DIGEST) -> dict[Path, str]:
    return reused_packages.take(
        ctx, [str(location) for location in locations], [KERNELS], {"vllm-kernels": digest}, target
    )


def test_what_no_channel_has_is_left_out(ctx: Context, target: Path, tmp_path: Path) -> None:
    empty = write_channel(tmp_path / "empty", "linux-64", {})
    assert take(ctx, target) == {}
    assert take(ctx, target, empty) == {}


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize(
    ("facts", "digest", "check", "words"),
    [
        ({}, "ef" * 32, "digest", "the build digest of this tree"),
        ({"sha256": "0" * 64}, DIGEST, "sha256", "0000"),
        ({"size": 7}, DIGEST, "size", "7"),
        ({"sha256": "../x"}, DIGEST, "index", "its sha256 and its size"),
        ({"size": "large"}, DIGEST, "index", "its sha256 and its size"),
    ],
)
def test_what_is_not_what_it_says_is_refused(
    ctx: Context,
    target: Path,
    tmp_path: Path,
    facts: dict[str, Any],
    digest: str,
    check: str,
    words: str,
    *,
    remote: bool,
) -> None:
    folder, before = other(tmp_path / "other", **facts), snapshot(target)
    with serving() as server:
        server.folder = folder
        with pytest.raises(RefusedError) as caught:
            take(ctx, target, server.url if remote else folder, digest=digest)
    assert caught.value.check == check
    assert words in f"{caught.value}"
    assert snapshot(target) == before


def test_a_package_of_another_output_under_that_name(
    ctx: Context, target: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    data = Build(output="vllm-flashmla").conda(folder / "linux-64", KERNELS.filename).read_bytes()
    write_channel(
        folder,
        "linux-64",
        {KERNELS.filename: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}},
    )
    with pytest.raises(RefusedError, match="no record of vllm-kernels"):
        take(ctx, target, folder)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"version": "0.2.0"}, "says vllm-kernels 0.2.0"),
        ({"name": "vllm"}, "says vllm 0.1.0"),
        ({"build": "0"}, "says vllm-kernels 0.1.0 0"),
        ({"build": None}, "cannot be read"),
        ({"subdir": "noarch"}, "noarch"),
    ],
)
def test_a_package_that_says_something_else_of_itself(
    ctx: Context, target: Path, tmp_path: Path, index: dict[str, Any], words: str
) -> None:
    """Earlier, this was an internal error, and the package was in the channel."""
    file = write_conda(tmp_path / "other" / "linux-64" / KERNELS.filename, [], index=index)
    data, before = file.read_bytes(), snapshot(target)
    write_channel(
        tmp_path / "other",
        "linux-64",
        {file.name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}},
    )
    with pytest.raises(RefusedError, match=words) as caught:
        take(ctx, target, tmp_path / "other")
    assert caught.value.check == "index"
    assert snapshot(target) == before


def test_a_package_is_put_into_the_channel(ctx: Context, target: Path, tmp_path: Path) -> None:
    (path,) = take(ctx, target, folder := other(tmp_path / "other"))
    assert path.read_bytes() == (folder / "linux-64" / KERNELS.filename).read_bytes()
    assert list(channel_index.indexed(target)) == [f"linux-64/{KERNELS.filename}"]


def test_a_location_that_is_no_channel(ctx: Context, target: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a conda channel"):
        take(ctx, target, tmp_path / "nothing")
    (tmp_path / "odd" / "linux-64").mkdir(parents=True)
    (tmp_path / "odd" / "linux-64" / "repodata.json").write_text(
        '{"packages.conda": []}', encoding="utf-8"
    )
    with pytest.raises(RefusedError, match=r"packages\.conda is not an object"):
        take(ctx, target, tmp_path / "odd")


def test_a_channel_that_lacks_what_it_lists(ctx: Context, target: Path, tmp_path: Path) -> None:
    folder = other(tmp_path / "other")
    (folder / "linux-64" / KERNELS.filename).unlink()
    with pytest.raises(FetchError, match="no such file; the index lists it"):
        take(ctx, target, folder)
