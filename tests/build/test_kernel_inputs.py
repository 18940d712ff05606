# SPDX-License-Identifier: Apache-2.0
"""What the kernel digest of each output covers, tested with edits in a copy of the tree."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from trees import copy_tree

from vllm_build import cli
from vllm_build.digests import kernel_inputs, tree_digests
from vllm_build.util import errors, paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

KERNELS, ATTENTION = "vllm-kernels", "vllm-flash-attn"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy_tree(tmp_path / "tree", "tests", "docs")


def digests(root: Path) -> dict[str, str]:
    return {
        component: tree_digests.kernel_digest(root, component)
        for component in kernel_inputs.components(root)
    }


def changed(tree: Path, file: str, old: str, new: str) -> set[str]:
    """The outputs whose digest an edit changes."""
    before, path = digests(tree), tree / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return {component for component, value in digests(tree).items() if value != before[component]}


def test_every_source_belongs_to_an_output(root: Path) -> None:
    covered = {
        entry
        for component in kernel_inputs.components(root)
        for entry in kernel_inputs.of(root, component)
    }
    files = {
        p.relative_to(root).as_posix()
        for p in (root / "csrc").rglob("*")
        if p.suffix in (".cc", ".cu", ".h", ".cuh")
    }
    assert files - covered == set()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[[extension]]",
            "[[extensions]]",
            r"kernels\.toml:1: the table has no \[\[extension\]\] records",
        ),
        (
            'component = "vllm-kernels"',
            "component = 3",
            r"kernels\.toml:\d+: component = 3 is not valid",
        ),
        ('name = "vllm._C"', "", r"kernels\.toml:\d+: \[\[extension\]\] has no 'name'"),
    ],
)
def test_a_record_that_lacks_what_a_digest_reads_is_named(
    tree: Path, old: str, new: str, message: str
) -> None:
    """Such a table once caused an internal error."""
    path = tree / kernel_inputs.TABLE
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        kernel_inputs.components(tree)


def test_place_order_and_git_do_not_count(root: Path, tree: Path) -> None:
    assert digests(tree) == digests(root)


@pytest.mark.parametrize(
    ("file", "old", "new", "outputs"),
    [
        pytest.param("csrc/norm/norm.cu", "#include", "// x\n#include", {KERNELS}, id="a unit"),
        pytest.param(
            "csrc/attention/flash2/run.h",
            "#pragma once",
            "#pragma  once",
            {ATTENTION},
            id="a header of one output",
        ),
        pytest.param(
            "csrc/attention/flash_shims/paged_copy.h",
            "#pragma once",
            "#pragma  once",
            {ATTENTION},
            id="a header in a third party",
        ),
        pytest.param(
            "csrc/core/dtype.h",
            "#pragma once",
            "#pragma  once",
            {KERNELS, ATTENTION},
            id="a header of both",
        ),
        pytest.param(
            "csrc/kernels.toml",
            "# On the CPU its ops",
            "# On a CPU its ops",
            set(),
            id="a comment of the table",
        ),
        pytest.param(
            "csrc/kernels.toml",
            "FLASHATTENTION_DISABLE_DROPOUT",
            "FLASHATTENTION_X",
            {ATTENTION},
            id="a record",
        ),
        pytest.param(
            "third_party/lock.toml",
            "716bd9ff",
            "00000000",
            {KERNELS, ATTENTION},
            id="a locked source of both",
        ),
        pytest.param(
            "third_party/lock.toml",
            '  "third_party/flash-attention/hopper",\n',
            "",
            {ATTENTION},
            id="a locked source",
        ),
        pytest.param(
            "third_party/patches/flash-attention/paged-caches.patch",
            "Changes to FlashAttention",
            "Edits of FlashAttention",
            {ATTENTION},
            id="a change to it",
        ),
        pytest.param(
            "csrc/bindings/norm.cc",
            "float epsilon) -> ()",
            "float eps) -> ()",
            {KERNELS},
            id="a schema",
        ),
        pytest.param(
            "CMakeLists.txt", "project", "project ", {KERNELS, ATTENTION}, id="how it is built"
        ),
        pytest.param("vllm/_kernels/loader.py", "import", "import ", set(), id="Python code"),
        pytest.param("README.md", "#", "##", set(), id="documents"),
    ],
)
def test_an_edit_changes_what_it_shapes(
    tree: Path, file: str, old: str, new: str, outputs: set[str]
) -> None:
    assert changed(tree, file, old, new) & {KERNELS, ATTENTION} == outputs


def test_line_endings_do_not_count(tree: Path) -> None:
    before = digests(tree)
    for path in (tree / "csrc").rglob("*.h"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert digests(tree) == before


def test_an_include_of_a_folder_above_is_found(tree: Path) -> None:
    (tree / "csrc" / "above.h").write_text("// x\n", encoding="utf-8")
    assert changed(tree, "csrc/norm/norm.cu", "#include", '#include "../above.h"\n#include') == {
        KERNELS
    }
    assert "csrc/above.h" in kernel_inputs.of(tree, KERNELS)


def test_an_output_that_is_not_there(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="no extension belongs to 'vllm-x'") as caught:
        kernel_inputs.of(root, "vllm-x")
    assert KERNELS in (caught.value.expected or "")


@pytest.mark.parametrize(
    ("file", "words"),
    [("csrc/norm/norm.cu", "norm.cu does not exist"), ("csrc/kernels.toml", "kernels.toml: ")],
)
def test_an_incomplete_tree(tree: Path, file: str, words: str) -> None:
    (tree / file).unlink()
    with pytest.raises(ConfigurationError, match=words):
        kernel_inputs.of(tree, KERNELS)


@pytest.fixture
def repository(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copy as a git repository of one commit."""
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    commands = (
        ["init", "-q"],
        ["add", "-A", "-f"],
        ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "x"],
    )
    for command in commands:
        subprocess.run(["git", *command], cwd=tree, check=True)
    monkeypatch.setattr(paths, "source_root", lambda: tree)
    return tree


def test_the_command_says_the_digests_and_what_is_in_them(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["digest", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[KERNELS] == {"digest": tree_digests.kernel_digest(root, KERNELS)}
    assert set(found) >= {KERNELS, ATTENTION, "vllm"}
    assert cli.main(["digest", "--output", ATTENTION, "--explain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[ATTENTION]["inputs"] == kernel_inputs.of(
        root, ATTENTION
    )
    assert cli.main(["digest", "--output", ATTENTION, "--explain"]) == 0
    assert "third_party/lock.toml [flash-attention]" in capsys.readouterr().err
    assert cli.main(["digest", "--output", "x"]) == errors.ConfigurationError.exit_code


def test_the_command_says_why_two_revisions_differ(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "csrc" / "norm" / "norm.cu").write_text("// new\n", encoding="utf-8")
    (repository / "cmake" / "more.cmake").write_text("# new\n", encoding="utf-8")
    (repository / "vllm" / "envs.py").unlink()
    assert cli.main(["digest", "--diff", "HEAD", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[KERNELS]["differences"]["csrc/norm/norm.cu"] == "changed"
    assert found[ATTENTION]["differences"] == {"cmake/more.cmake": "new"}
    assert found["vllm"]["differences"] == {"vllm/envs.py": "gone"}
    assert found[KERNELS]["was"] != found[KERNELS]["digest"]


def test_a_revision_that_is_not_there(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert repository.is_dir()
    assert cli.main(["digest", "--diff", "no-such-revision"]) == errors.ConfigurationError.exit_code
    assert "no-such-revision" in capsys.readouterr().err
