# SPDX-License-Identifier: Apache-2.0
"""Repeated builds of the CPU packages: unchanged packages are reused, and changed ones rebuilt."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from full_suite import full_only
from package_runs import (  # noqa: F401 -- fixtures
    ROOT,
    Done,
    build,
    built_fixture,
    output_fixture,
    vllm_build,
)
from trees import copy_tree, misses

from vllm_build.conda import package_channel, package_job, package_request, variants
from vllm_build.packing import channel_index
from vllm_build.settings.build_settings import Settings

pytestmark = pytest.mark.slow


def append_code(source: Path, code: str) -> None:
    """Add code to a unit once, not for each instruction set of the file."""
    with source.open("a", encoding="utf-8") as stream:
        stream.write(f"\n#if HWY_ONCE\nnamespace {{\n{code}\n}}  // namespace\n#endif\n")


def test_second_run_reuses_everything(built: Done, output: Path) -> None:
    again = build(ROOT, output, "--build-only")
    assert again.result["reused"] is True
    assert again.result["packages"] == built.result["packages"]
    assert again.result["prefix"] is None
    assert not {"install in a clean prefix", "run"} & set(again.result["seconds"])
    assert "its inputs have not changed" in again.log


def test_an_edit_of_the_python_package_leaves_the_kernels(built: Done, tmp_path: Path) -> None:
    tree, output = copy_tree(tmp_path / "tree"), tmp_path / "output"
    channel_index.publish([Path(p["path"]) for p in built.result["packages"]], output)
    with (tree / "vllm" / "envs.py").open("a", encoding="utf-8") as stream:
        stream.write("# edited\n")
    settings = Settings.from_environ(os.environ)
    request = package_request.Request(
        tree, variants.load(tree, "cpu"), package_channel.LOCAL, output, settings
    )
    kept = package_job.reusable(request, package_request.expected(request))
    assert [path.name for path in kept] == [Path(built.kernels).name]


@full_only
@pytest.mark.parametrize("edited_file", ["vllm/envs.py", "recipe/vllm/test_ops.py"])
def test_an_edit_of_the_python_package_or_its_recipe_builds_that_package_alone(
    built: Done, tmp_path: Path, edited_file: str
) -> None:
    tree, output = copy_tree(tmp_path / "tree"), tmp_path / "output"
    package_job.claim_output(output)
    channel_index.publish([Path(p["path"]) for p in built.result["packages"]], output)
    with (tree / edited_file).open("a", encoding="utf-8") as stream:
        stream.write("# edited\n")
    edited = build(tree, output, "--build-only")
    assert edited.result["reused_packages"] == [Path(built.kernels).name]
    assert "setup.py build_ext" not in edited.log
    assert len(list(output.glob("linux-64/*.conda"))) == 1
    assert len(list(output.glob("noarch/*.conda"))) == 2


def test_packages_are_taken_from_another_channel(built: Done, output: Path, tmp_path: Path) -> None:
    assert built.result["packages"]
    done = vllm_build(
        ROOT,
        "package",
        "cpu",
        "--json",
        "--output",
        str(tmp_path / "output"),
        "--reuse",
        str(output),
        "--build-only",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["reused"] is True
    assert [p["sha256"] for p in result["packages"]] == [
        p["sha256"] for p in built.result["packages"]
    ]
    assert f"{Path(built.kernels).name} from {output}" in done.stderr


def test_a_package_that_is_not_what_was_built_is_built_again(built: Done, tmp_path: Path) -> None:
    output = tmp_path / "output"
    kept = channel_index.publish([Path(p["path"]) for p in built.result["packages"]], output)
    request = package_request.Request(
        ROOT,
        variants.load(ROOT, "cpu"),
        package_channel.LOCAL,
        output,
        Settings.from_environ(os.environ),
    )
    outputs = package_request.expected(request)
    assert sorted(package_job.reusable(request, outputs)) == sorted(kept)
    kept[0].write_bytes(kept[0].read_bytes()[:-1])
    assert package_job.reusable(request, outputs) == tuple(p for p in kept if p != kept[0])
    assert not kept[0].exists()


@full_only
def test_one_edited_file_compiles_one_unit_and_changes_the_digest(
    built: Done, tmp_path: Path
) -> None:
    tree = copy_tree(tmp_path / "tree")
    source = tree / "csrc" / "activation" / "activation_cpu.cc"
    marker = abs(hash(tmp_path)) % 10**9
    append_code(source, f"[[maybe_unused]] constexpr int kEdited = {marker};")
    edited = build(tree, tmp_path / "output", "--build-only")
    assert edited.result["reused"] is False
    assert Path(edited.kernels).name != Path(built.kernels).name
    assert misses(edited.log) == 1, edited.log[-4000:]
