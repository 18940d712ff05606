# SPDX-License-Identifier: Apache-2.0
"""Sources of FlashAttention and CUTLASS in the build folder: their origin, extent and patches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from vllm_build.kernels import kernel_choice, kernels_table, plan_resolver
from vllm_build.kernels.build_plan import NOT_CHOSEN, Plan
from vllm_build.settings.build_settings import Settings
from vllm_build.sources import cutlass, flash_attention, folder_digest, patches, third_party
from vllm_build.util.errors import ConfigurationError, FetchError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

PATCH = """\
--- a/csrc/flash_attn/src/flash.h
+++ b/csrc/flash_attn/src/flash.h
@@ -1 +1 @@
-upstream
+ours
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))


def planned(root: Path, chosen: str | None, archs: str = "9.0a") -> Plan:
    return plan_resolver.resolve(
        kernels_table.load(root),
        "cuda",
        toolkit_version=Version("13.0"),
        arch_list=archs,
        choice=kernel_choice.Choice(chosen),
    )


def sources(root: Path, folder: Path, project: str) -> Path:
    """Write the sources of an archive or a checkout that the largest plan needs."""
    wanted = planned(root, "full").third_party_sources[flash_attention.NAME]
    for name in (*wanted, "csrc/flash_attn/src/flash.h", "hopper/flash.h"):
        path = folder / project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("upstream\n")
    return folder


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """A source tree with the project's lock and another patch."""
    (tmp_path / "tree" / "third_party" / "patches" / "flash-attention").mkdir(parents=True)
    (tmp_path / "tree" / third_party.LOCK).write_bytes((root / third_party.LOCK).read_bytes())
    (tmp_path / "tree" / "third_party" / "patches" / "flash-attention" / "x.patch").write_text(
        PATCH
    )
    return tmp_path / "tree"


def test_nothing_is_needed_where_nothing_is_chosen(root: Path, tmp_path: Path) -> None:
    resolved = planned(root, None)
    assert flash_attention.prepare(root, Settings(), resolved, tmp_path / "inputs") == {}
    assert not (tmp_path / "inputs").exists()
    assert "vllm-flash-attn" not in resolved.components
    assert {d.state for d in resolved.decisions if d.kernel.name.startswith(("fa2", "fa3"))} == {
        NOT_CHOSEN
    }
    reason = next(d.reason for d in resolved.decisions if d.kernel.name == "fa2-hdim96")
    assert reason == "built with VLLM_FA_SET=full, which is not set"


def heavy(resolved: Plan, module: str) -> list[str]:
    """Records of the memory class of one library."""
    (extension,) = [extension for extension in resolved.extensions if extension.module == module]
    return [kernel.name for kernel in extension.kernels if kernel.memory == "heavy"]


def test_sets_of_version_2(root: Path) -> None:
    check, development, full = (planned(root, name, "8.0") for name in ("check", "dev", "full"))
    assert heavy(check, "_vllm_fa2_C") == ["fa2-hdim64-bf16"]
    assert heavy(development, "_vllm_fa2_C") == ["fa2-hdim64-bf16", "fa2-hdim64", "fa2-hdim128"]
    sizes = [name for name in heavy(full, "_vllm_fa2_C") if name != "fa2-hdim64-bf16"]
    assert sizes == [f"fa2-hdim{size}" for size in (32, 64, 96, 128, 192, 256)]
    assert [len(p.third_party_sources["flash-attention"]) for p in (check, development, full)] == [
        1,
        2 * 2 * 2 * 2,
        6 * 2 * 2 * 2,
    ]
    assert "vllm-flash-attn" not in planned(root, "full", "7.5").components


def test_sets_of_version_3(root: Path) -> None:
    check, development, full = (planned(root, name) for name in ("check", "dev", "full"))
    assert heavy(check, "_vllm_fa3_C") == ["fa3-hdim64-bf16-paged"]
    assert heavy(development, "_vllm_fa3_C") == [
        "fa3-hdim64-bf16-paged",
        "fa3-hdim64",
        "fa3-hdim128",
    ]

    def units(resolved: Plan) -> set[str]:
        sources = resolved.third_party_sources["flash-attention"]
        return {source for source in sources if source.startswith("hopper/instantiations/")}

    assert len(units(development)) == 2 * 2 * 2
    # FlashAttention has ten units per dtype for one head size of keys and values, for 9.0.
    kinds = ("", "packgqa_", "softcap_", "softcap_packgqa_", "split_", "split_softcap_")
    paged = ("paged_", "paged_softcap_", "paged_split_", "paged_split_softcap_")
    every = {
        (size, dtype, kind)
        for size in (64, 96, 128, 192, 256)
        for dtype in ("bf16", "fp16")
        for kind in (*kinds, *paged)
    }
    assert units(full) == {
        f"hopper/instantiations/flash_fwd_hdim{size}_{dtype}_{kind}sm90.cu"
        for size, dtype, kind in every
    }
    assert "hopper/flash_fwd_combine.cu" in full.third_party_sources["flash-attention"]
    for resolved, less in ((check, True), (development, True), (full, False)):
        for extension in resolved.extensions:
            for kernel in extension.kernels:
                if kernel.name.startswith("fa3-hdim"):
                    assert ("FLASHATTENTION_DISABLE_APPENDKV" in kernel.definitions) == less
                    assert kernel.archs == ("9.0a",)


@pytest.mark.parametrize("archs", ["8.0", "9.0", "10.0f"])
def test_version_3_is_for_9_0a(root: Path, archs: str) -> None:
    resolved = planned(root, "dev", archs)
    assert [e.module for e in resolved.extensions if e.component == "vllm-flash-attn"] == [
        "_vllm_fa2_C"
    ]
    assert not any(
        source.startswith("hopper/") for source in resolved.third_party_sources["flash-attention"]
    )


def test_units_and_what_enters_them(root: Path) -> None:
    """A record's source in the tree registers exactly the record's units.

    A missing unit does not link, and a unit that is not registered never runs.
    """
    packed = {"": False, "packgqa": True, "softcap": False, "softcap_packgqa": True}
    names = {"bf16": "bfloat16_t", "fp16": "half_t"}
    for kernel in kernels_table.load(root).kernels:
        if not kernel.name.startswith("fa3-hdim"):
            continue
        listed = set()
        for source in kernel.third_party_sources:
            size, dtype, kind = re.fullmatch(
                r".*/flash_fwd_hdim(\d+)_([a-z0-9]+?)_?((?:[a-z_]*[a-z])?)_sm90\.cu", source
            ).groups()  # type: ignore[union-attr]
            flags = ("split" in kind, "paged" in kind, "softcap" in kind, packed.get(kind, True))
            listed.add((int(size), names[dtype], flags))
        (own,) = kernel.sources
        text = (root / own).read_text(encoding="utf-8")
        entered = set()
        for what, dtype, size in re.findall(r"vllm::flash3::(\w+)<cutlass::(\w+), (\d+)>", text):
            entered |= {(int(size), dtype, flags) for flags in entered_by(root, what)}
        assert entered == listed, kernel.name


def entered_by(root: Path, what: str) -> set[tuple[bool, ...]]:
    """The units of one template of the registry: (split, paged, softcap, packed)."""
    header = (root / "csrc" / "attention" / "flash3" / "registry.h").read_text(encoding="utf-8")
    body = re.search(rf"using {what} =(.*);|struct {what} \{{(?s:(.*?))\n\}};", header)
    assert body is not None, what
    found = re.findall(r"Unit<Element, kHeadSize, (\w+), (\w+), (\w+), (\w+)>", body[1] or body[2])
    return {tuple(flag == "true" for flag in flags) for flags in found}


def test_locked_sources(root: Path, tree: Path, tmp_path: Path) -> None:
    resolved, inputs = planned(root, "dev"), tmp_path / "inputs"
    with pytest.raises(FetchError, match="not in the cache") as caught:
        flash_attention.prepare(tree, Settings(), resolved, inputs)
    assert "vllm-build fetch flash-attention" in (caught.value.remedy or "")
    cached = sources(
        root, third_party.read(tree)["flash-attention"].folder, "third_party/flash-attention"
    )
    with pytest.raises(IntegrityError, match="not the locked ones"):
        flash_attention.prepare(tree, Settings(), resolved, inputs)
    lock_tree(tree, "flash-attention")
    found = flash_attention.prepare(tree, Settings(), resolved, inputs)
    assert found == {"FLASH_ATTENTION_SRC_DIR": str(inputs / "flash-attention")}
    header = inputs / "flash-attention" / "csrc" / "flash_attn" / "src" / "flash.h"
    assert header.read_text() == "ours\n"
    before = header.stat().st_mtime_ns
    assert flash_attention.prepare(tree, Settings(), resolved, inputs) == found
    assert header.stat().st_mtime_ns == before, "nothing is compiled again"
    assert (
        cached / "third_party" / "flash-attention" / "csrc" / "flash_attn" / "src" / "flash.h"
    ).read_text() == "upstream\n"
    assert (inputs / "flash-attention" / "hopper" / "flash.h").is_file()


def test_version_3_is_left_out_of_the_copy(root: Path, tree: Path, tmp_path: Path) -> None:
    sources(root, third_party.read(tree)["flash-attention"].folder, "third_party/flash-attention")
    lock_tree(tree, "flash-attention")
    assert flash_attention.prepare(
        tree, Settings(), planned(root, "dev", "8.0"), tmp_path / "inputs"
    )
    assert sorted(path.name for path in (tmp_path / "inputs" / "flash-attention").iterdir()) == [
        "csrc"
    ]


def test_sources_of_one_s_own(root: Path, tree: Path, tmp_path: Path) -> None:
    resolved, mine = planned(root, "dev"), tmp_path / "mine"
    settings = Settings.from_environ({"VLLM_FLASH_ATTN_SRC_DIR": str(mine)})
    with pytest.raises(
        ConfigurationError, match="does not contain the sources of FlashAttention"
    ) as caught:
        flash_attention.prepare(tree, settings, resolved, tmp_path / "inputs")
    assert "VLLM_FLASH_ATTN_SRC_DIR" in (caught.value.remedy or "")
    sources(root, mine, ".")
    assert flash_attention.prepare(tree, settings, resolved, tmp_path / "inputs")
    gone = mine / resolved.third_party_sources["flash-attention"][0]
    gone.unlink()
    with pytest.raises(ConfigurationError, match=f"{gone.name} does not exist"):
        flash_attention.prepare(tree, settings, resolved, tmp_path / "inputs")
    gone.touch()
    (mine / "csrc" / "flash_attn" / "src" / "flash.h").write_text("another release\n")
    with pytest.raises(IntegrityError, match="our patch of"):
        flash_attention.prepare(tree, settings, resolved, tmp_path / "inputs")


def test_the_tree_s_own_changes(root: Path) -> None:
    for folder in sorted((root / "third_party" / "patches").iterdir()):
        assert folder.name in third_party.read(root)
        assert patches.read(folder)


def lock_tree(tree: Path, name: str) -> None:
    """Lock a source of ``tree`` to the content in the cache."""
    source, path = third_party.read(tree)[name], tree / third_party.LOCK
    text = path.read_text(encoding="utf-8")
    assert source.tree_sha256 in text
    path.write_text(
        text.replace(source.tree_sha256, folder_digest.digest_of(source.folder)), encoding="utf-8"
    )


def headers(include: Path) -> Path:
    for name in ("cute", "cutlass"):
        (include / name).mkdir(parents=True)
    return include


def test_cutlass(root: Path, tree: Path, tmp_path: Path) -> None:
    without = plan_resolver.resolve(
        kernels_table.load(root), "cuda", toolkit_version=Version("13.0"), arch_list="7.5"
    )
    assert cutlass.prepare(root, Settings(), without, tmp_path / "inputs") == {}
    resolved, inputs = planned(root, None), tmp_path / "inputs"
    with pytest.raises(FetchError, match="not in the cache") as caught:
        cutlass.prepare(root, Settings(), resolved, inputs)
    assert "vllm-build fetch cutlass" in (caught.value.remedy or "")
    include = headers(
        third_party.read(tree)["cutlass"].folder / "third_party" / "cutlass" / "include"
    )
    with pytest.raises(IntegrityError, match="not the locked ones"):
        cutlass.prepare(tree, Settings(), resolved, inputs)
    lock_tree(tree, "cutlass")
    for chosen in (resolved, planned(root, "dev", "8.0")):
        assert cutlass.prepare(tree, Settings(), chosen, inputs) == {
            "CUTLASS_INCLUDE_DIR": str(inputs / "cutlass-include")
        }
        assert (inputs / "cutlass-include").readlink() == include
    settings = Settings.from_environ({"VLLM_CUTLASS_SRC_DIR": str(tmp_path / "mine")})
    with pytest.raises(
        ConfigurationError, match="does not contain the sources of CUTLASS"
    ) as refused:
        cutlass.prepare(root, settings, resolved, inputs)
    assert "VLLM_CUTLASS_SRC_DIR" in (refused.value.remedy or "")
    mine = headers(tmp_path / "mine" / "include")
    assert cutlass.prepare(root, settings, resolved, inputs)
    assert (inputs / "cutlass-include").readlink() == mine


def test_one_archive_serves_both(root: Path) -> None:
    locked = third_party.read(root)
    assert locked["cutlass"].sha256 == locked["flash-attention"].sha256
    assert not any(locked["cutlass"].includes(name) for name in locked["flash-attention"].include)


def test_variables() -> None:
    assert third_party.variable("cutlass") == "VLLM_CUTLASS_SRC_DIR"
    assert third_party.variable("highway") == "HIGHWAY_SRC_DIR"
    assert third_party.variable("flash-attention") == "VLLM_FLASH_ATTN_SRC_DIR"
    assert third_party.variable("some-thing") == "SOME_THING_SRC_DIR"
