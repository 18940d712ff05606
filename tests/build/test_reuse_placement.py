# SPDX-License-Identifier: Apache-2.0
"""Placement of libraries and records in a tree: all of them or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import (
    LIBRARIES,
    RECORD,
    Build,
    elf,
    snapshot,
)

from vllm_build.reuse import placement
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.net.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    context = Context(Cache(tmp_path / "cache"), Transport(timeout=0.5, attempts=2, pause=0.01))
    with context.cache.in_use():
        yield context


def test_place_replaces_the_build(ctx: Context, tmp_path: Path) -> None:
    assert ctx.cache.root.is_dir()
    tree, source = (
        Build({"vllm/_moe_C.abi3.so": elf(1), "vllm/_rocm_C.so": elf(2)}).unpacked(
            tmp_path / "tree"
        ),
        tmp_path / "source",
    )
    Build().unpacked(source)
    files = {name: source / name for name in (*LIBRARIES, RECORD)}
    (tree / "vllm" / "_kernels").mkdir()
    (tree / "vllm" / "_kernels" / "loader.py").touch()
    # A developer's own library, which no build made.
    (tree / "vllm" / "_mine.so").write_bytes(elf(3))
    (tree / "vllm" / ".vllm-build-left").mkdir()
    (tree / "vllm" / ".vllm-build-left" / "old.so").touch()
    changed = placement.place(files, tree)
    assert changed == ["vllm/_C.abi3.so", RECORD, "vllm/_rocm_C.so"]
    found = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    assert found == [
        "vllm/_C.abi3.so",
        RECORD,
        "vllm/_kernels/loader.py",
        "vllm/_mine.so",
        "vllm/_moe_C.abi3.so",
    ]
    assert placement.place(files, tree) == []
    assert (tree / LIBRARIES[0]).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("moment", range(7))
def test_place_restores_the_old_state_after_an_error(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    assert ctx.cache.root.is_dir()
    tree = Build({name: elf(9 + n) for n, name in enumerate(LIBRARIES)}).unpacked(tmp_path / "tree")
    source = Build().unpacked(tmp_path / "source")
    before, done = snapshot(tree), []
    real = placement._move

    def move(*arguments: Any) -> None:
        done.append(1)
        if len(done) == moment + 1:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(placement, "_move", move)
    files = {name: source / name for name in (*LIBRARIES, RECORD)}
    if moment < 6:
        with pytest.raises(KeyboardInterrupt):
            placement.place(files, tree)
        assert snapshot(tree) == before
    else:
        placement.place(files, tree)
        assert len(done) == 6
    assert {path.name for path in (tree / "vllm").iterdir()} == {
        "_C.abi3.so",
        "_moe_C.abi3.so",
        "_build_info",
    }
