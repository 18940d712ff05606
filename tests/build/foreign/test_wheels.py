# SPDX-License-Identifier: Apache-2.0
"""The choice of libraries in an official wheel, and wheels that are refused before the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from foreign_files import INFO, METADATA, Official, compiled
from foreign_scene import AVX2, AVX512, PLATFORM, audit, cpu_plan, cuda_plan, official
from reuse_files import snapshot

from vllm_build.reuse.foreign import foreign_wheel
from vllm_build.reuse.records.output_record import Library
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.net.reuse_context import Context


def libraries(*paths: str) -> dict[str, Library]:
    return {path: Library(path, "0" * 64, 1) for path in paths}


@pytest.mark.parametrize(
    ("flags", "file"),
    [
        (AVX2, "_C_AVX2"),
        (AVX512, "_C_AVX512"),
        (AVX512 | {"avx512_bf16"}, "_C"),
        (frozenset(), None),
    ],
    ids=["avx2", "avx512", "bf16", "none"],
)
def test_the_best_library_for_the_processor(
    root: Path, flags: frozenset[str], file: str | None
) -> None:
    found = libraries(
        "vllm/_C.abi3.so", "vllm/_C_AVX512.abi3.so", "vllm/_C_AVX2.abi3.so", "vllm/spinloop.abi3.so"
    )
    picks, missing = foreign_wheel.pick(cpu_plan(root).extensions, found, flags)
    assert [one.library.file for one in picks.picks] == ([f"vllm/{file}.abi3.so"] if file else [])
    assert missing == (() if file else ("vllm._C",))
    assert all(one.cpu_flags <= flags for one in picks.picks)


def test_processors_that_have_one_library(root: Path) -> None:
    picks, _ = foreign_wheel.pick(
        cpu_plan(root).extensions, libraries("vllm/_C.abi3.so"), frozenset()
    )
    assert [(one.library.file, one.cpu_flags) for one in picks.picks] == [
        ("vllm/_C.abi3.so", frozenset())
    ]


def test_the_libraries_of_cuda(root: Path) -> None:
    found = libraries(
        "vllm/_C.abi3.so",
        "vllm/_C_stable_libtorch.abi3.so",
        "vllm/_moe_C.so",
        "vllm/cumem_allocator.abi3.so",
        "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so",
    )
    picks, missing = foreign_wheel.pick(cuda_plan(root).extensions, found, frozenset())
    chosen = {one.extension: one.library.file for one in picks.picks}
    assert chosen["vllm._C"] == "vllm/_C_stable_libtorch.abi3.so"
    assert chosen["vllm._moe_C"] == "vllm/_moe_C.so"
    assert set(missing) == {"vllm._flashmla_C", "vllm.vllm_flash_attn._vllm_fa2_C"}


def test_another_platform(ctx: Context, root: Path, tmp_path: Path) -> None:
    found = audit(ctx, root, official(tmp_path, platform="macosx_11_0_arm64"))
    assert [row.check for row in found.audit.failed] == ["platform"]
    assert found.files == {}, "no library was fetched"


def test_a_wheel_without_kernels(ctx: Context, root: Path, tmp_path: Path) -> None:
    found = audit(
        ctx,
        root,
        official(tmp_path, libraries={"vllm/spinloop.abi3.so": compiled(tmp_path / "cc")}),
    )
    assert [row.check for row in found.audit.failed] == ["library"]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"metadata": "Name: vllm\nVersion: odd version\n"}, "document"),
        ({"metadata": METADATA + "Requires-Dist: ??\n"}, "document"),
        ({"metadata": METADATA + "Requires-Dist: torch==1; os_name ~= 'x'\n"}, "document"),
        ({"metadata": METADATA + "Requires-Dist: tørch\n"}, "document"),
        ({"more": {f"{INFO}/METADATA": b"Name: \xff\n"}}, "document"),
        ({"more": {"vllm/_build_info/foreign.json": b"{}"}}, "foreign"),
        ({"record": "vllm/_C_AVX2.abi3.so,md5=abc,3\n"}, "document"),
        ({"record": "vllm/_C_AVX2.abi3.so,sha256=abc,3\n"}, "document"),
        ({"record": "vllm/_C_AVX2.abi3.so,sha256=abc\n"}, "document"),
        ({"record": "vllm/_C_AVX2.abi3.so,sha256=abc,many\n"}, "document"),
        ({"record": f"vllm/_C_AVX2.abi3.so,sha256={'A' * 43},{1 << 40}\n"}, "size-limit"),
        ({"record": f"vllm/_C_AVX2.abi3.so,sha256={'A' * 43},3\n"}, "size"),
        ({"record": '"' + "a" * 200_000}, "document"),
        ({"more": {"other-1.dist-info/METADATA": b""}}, "document"),
        ({"more": {"vllm/../../x": b""}}, "parent-path"),
        ({"more": {"vllm/_build_info/vllm-kernels.json": b"{}"}}, "foreign"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_hostile_wheels(
    ctx: Context, root: Path, tmp_path: Path, changes: dict[str, Any], check: str
) -> None:
    wheel = official(tmp_path, **changes)
    before = snapshot(ctx.cache.root)
    with pytest.raises(RefusedError) as caught:
        audit(ctx, root, wheel)
    assert caught.value.check == check, str(caught.value)
    assert snapshot(ctx.cache.root) == before


def test_a_record_of_other_bytes(ctx: Context, root: Path, tmp_path: Path) -> None:
    size = len(compiled(tmp_path / "cc"))
    with pytest.raises(RefusedError) as caught:
        audit(
            ctx, root, official(tmp_path, record=f"vllm/_C_AVX2.abi3.so,sha256={'A' * 43},{size}\n")
        )
    assert caught.value.check == "sha256"


def test_a_record_that_is_not_text(ctx: Context, root: Path, tmp_path: Path) -> None:
    wheel = Official(
        {"vllm/_C_AVX2.abi3.so": compiled(tmp_path / "cc")}, platform=PLATFORM, record=""
    ).write(tmp_path)
    text = Official({}, platform=PLATFORM, more={f"{INFO}/RECORD": b"\xff\xfe"}).write(tmp_path)
    with pytest.raises(RefusedError, match="RECORD"):
        audit(ctx, root, text)
    assert wheel == text


def test_names_without_tags(ctx: Context, root: Path, tmp_path: Path) -> None:
    wheel = official(tmp_path)
    odd = wheel.rename(tmp_path / "wheel.whl")
    with pytest.raises(RefusedError, match="valid wheel name"):
        audit(ctx, root, odd)
    with pytest.raises(ConfigurationError, match="is not a wheel"):
        foreign_wheel.ForeignWheel(ctx, "x.conda")
