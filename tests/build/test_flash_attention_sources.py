# SPDX-License-Identifier: Apache-2.0
"""FlashAttention's sources below the build folder: whose they are, what of them, and our changes in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from vllm_build import flash_attention, kernels_table, patches, plan, third_party
from vllm_build.errors import ConfigurationError, FetchError, IntegrityError
from vllm_build.planned import NOT_CHOSEN, Plan
from vllm_build.settings import Settings

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
    return plan.resolve(kernels_table.load(root), "cuda", toolkit_version=Version("13.0"), arch_list=archs, choice=plan.Choice(chosen))


def sources(root: Path, folder: Path, project: str, cutlass: str) -> Path:
    """As an archive or a checkout has them, with everything that the largest plan lists."""
    wanted = planned(root, "full").third_party_sources[flash_attention.NAME]
    for name in (*wanted, "csrc/flash_attn/src/flash.h"):
        path = folder / project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("upstream\n")
    (folder / cutlass / "cute").mkdir(parents=True)
    return folder


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """A source tree with the project's lock and a change of its own."""
    (tmp_path / "tree" / "third_party" / "patches" / "flash-attention").mkdir(parents=True)
    (tmp_path / "tree" / third_party.LOCK).write_bytes((root / third_party.LOCK).read_bytes())
    (tmp_path / "tree" / "third_party" / "patches" / "flash-attention" / "x.patch").write_text(PATCH)
    return tmp_path / "tree"


def test_nothing_is_needed_where_nothing_is_chosen(root: Path, tmp_path: Path) -> None:
    resolved = planned(root, None)
    assert flash_attention.prepare(root, Settings(), resolved, tmp_path / "inputs") == {}
    assert not (tmp_path / "inputs").exists()
    assert "vllm-flash-attn" not in resolved.components
    assert {d.state for d in resolved.decisions if d.kernel.name.startswith("fa2")} == {NOT_CHOSEN}
    reason = next(d.reason for d in resolved.decisions if d.kernel.name == "fa2-hdim96")
    assert reason == "built with VLLM_FA_SET=full, which is not set"


def test_sets(root: Path) -> None:
    development, full = planned(root, "dev"), planned(root, "full")
    sizes = [k.name for k in full.extensions[-1].kernels if k.memory == "heavy"]
    assert sizes == [f"fa2-hdim{size}" for size in (32, 64, 96, 128, 192, 256)]
    assert [k.name for k in development.extensions[-1].kernels if k.memory == "heavy"] == ["fa2-hdim64", "fa2-hdim128"]
    assert len(development.third_party_sources["flash-attention"]) == 2 * 2 * 2 * 2
    assert len(full.third_party_sources["flash-attention"]) == 6 * 2 * 2 * 2
    assert "vllm-flash-attn" not in planned(root, "full", "7.5").components


def test_locked_sources(root: Path, tree: Path, tmp_path: Path) -> None:
    resolved, inputs = planned(root, "dev"), tmp_path / "inputs"
    with pytest.raises(FetchError, match="not in the cache") as caught:
        flash_attention.prepare(tree, Settings(), resolved, inputs)
    assert "vllm-build fetch flash-attention" in (caught.value.remedy or "")
    cached = sources(root, third_party.read(tree)["flash-attention"].folder, "third_party/flash-attention", "third_party/cutlass/include")
    found = flash_attention.prepare(tree, Settings(), resolved, inputs)
    assert found == {
        "FLASH_ATTENTION_SRC_DIR": str(inputs / "flash-attention"),
        "CUTLASS_INCLUDE_DIR": str(inputs / "cutlass-include"),
    }
    header = inputs / "flash-attention" / "csrc" / "flash_attn" / "src" / "flash.h"
    assert header.read_text() == "ours\n"
    assert (inputs / "cutlass-include").readlink() == cached / "third_party" / "cutlass" / "include"
    before = header.stat().st_mtime_ns
    assert flash_attention.prepare(tree, Settings(), resolved, inputs) == found
    assert header.stat().st_mtime_ns == before, "nothing is compiled again"
    assert (cached / "third_party" / "flash-attention" / "csrc" / "flash_attn" / "src" / "flash.h").read_text() == "upstream\n"


def test_sources_of_one_s_own(root: Path, tree: Path, tmp_path: Path) -> None:
    resolved, mine = planned(root, "dev"), tmp_path / "mine"
    settings = Settings.from_environ({"VLLM_FLASH_ATTN_SRC_DIR": str(mine)})
    with pytest.raises(ConfigurationError, match="holds no sources of FlashAttention") as caught:
        flash_attention.prepare(tree, settings, resolved, tmp_path / "inputs")
    assert "VLLM_FLASH_ATTN_SRC_DIR" in (caught.value.remedy or "")
    sources(root, mine, ".", "csrc/cutlass/include")
    assert flash_attention.prepare(tree, settings, resolved, tmp_path / "inputs")
    gone = mine / resolved.third_party_sources["flash-attention"][0]
    gone.unlink()
    with pytest.raises(ConfigurationError, match=f"{gone.name} does not exist"):
        flash_attention.prepare(tree, settings, resolved, tmp_path / "inputs")
    gone.touch()
    (mine / "csrc" / "flash_attn" / "src" / "flash.h").write_text("another release\n")
    with pytest.raises(IntegrityError, match="our change of"):
        flash_attention.prepare(tree, settings, resolved, tmp_path / "inputs")


def test_the_tree_s_own_changes(root: Path) -> None:
    for folder in sorted((root / "third_party" / "patches").iterdir()):
        assert folder.name in third_party.read(root)
        assert patches.read(folder)


def test_variables() -> None:
    assert third_party.variable("highway") == "HIGHWAY_SRC_DIR"
    assert third_party.variable("flash-attention") == "VLLM_FLASH_ATTN_SRC_DIR"
    assert third_party.variable("some-thing") == "SOME_THING_SRC_DIR"
