# SPDX-License-Identifier: Apache-2.0
"""``vllm-build engine --update`` in a copy of the tree, with small engines from a local folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from full_suite import full_only
from small_engine import BINDINGS, Index, files
from trees import copy_tree

from vllm_build import cli
from vllm_build.digests import recipe_stamp
from vllm_build.sources import third_party
from vllm_build.util import paths
from vllm_build.util.errors import BusyError, ConfigurationError, FetchError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Answer = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tree that the command changes, with an empty cache."""
    copy = copy_tree(tmp_path / "tree")
    monkeypatch.setattr(paths, "source_root", lambda: copy)
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    recipe_stamp.write(copy)
    return copy


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The only folder in which pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Index(folder)


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Answer:
    """Runs ``vllm-build engine``; returns its status and its JSON document."""

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = cli.main(["engine", "--json", *words])
        found = json.loads(capsys.readouterr().out)
        # A failure comes with the result.
        found |= found.pop("result", {})
        return status, found

    return run


def stamps(tree: Path) -> dict[str, str]:
    text = (tree / recipe_stamp.FILE).read_text(encoding="utf-8")
    return dict(re.findall(r'^(\w+):\n  - "(.*)"$', text, re.MULTILINE))


def test_a_release_that_fits_needs_no_change_by_hand(
    tree: Path, index: Index, answer: Answer
) -> None:
    index.add("9.9.0")
    before = stamps(tree)
    status, found = answer("--update", "9.9.0")
    assert (status, found["differences"]) == (0, {key: [] for key in found["differences"]})
    assert set(found["differences"]) >= {"files", "ops", "schemas", "requirements", "licenses"}
    source = third_party.read(tree)["vllm"]
    assert (source.version, source.sha256) == ("9.9.0", index.sha256["9.9.0"])
    assert source.cached() is not None
    # Every other release needs these of a person.
    assert any("make package VARIANT=cpu" in step for step in found["steps"])
    assert any("0.33.0 in " in step and "docs/" in step for step in found["steps"])
    # The tree fits itself: its stamps are those of the new release. Our kernels keep
    # their names.
    recipe_stamp.check(tree)
    after = stamps(tree)
    assert after["engine_version"] == "9.9.0"
    assert {key for key in before if before[key] != after[key]} == {
        "engine_version",
        "engine_kernels_digest",
        "package_digest",
    }
    status, found = answer()
    assert (status, found["steps"]) == (0, [])


def test_there_and_back_gives_the_same_lock(tree: Path, index: Index, answer: Answer) -> None:
    index.add("9.8.0", {"vllm/more.py": ""})
    index.add("9.9.0")
    assert answer("--update", "9.9.0")[0] == 0
    lock, named = (tree / third_party.LOCK).read_bytes(), stamps(tree)
    assert answer("--update", "v9.8.0")[0] == 0
    assert third_party.read(tree)["vllm"].version == "9.8.0"
    assert (tree / third_party.LOCK).read_bytes() != lock
    assert answer("--update", "9.9.0")[0] == 0
    assert (tree / third_party.LOCK).read_bytes() == lock
    assert stamps(tree) == named


CPU = BINDINGS["cpu"]
#: Subject → files of a release that differs there, and what its line must say.
DIFFERENT: dict[str, tuple[dict[str, str | None], tuple[str, ...]]] = {
    "files": (
        {"vllm/_kernels/new.py": "", "vllm/version.py": None},
        ("vllm/_kernels/new.py, which is in our package", "vllm/version.py is in the list 'thin'"),
    ),
    "imports": (
        {"vllm/more.py": "import vllm._C\nfrom vllm.lost.module import f\n"},
        ("more.py imports vllm.lost.module, which neither the engine nor this tree has",),
    ),
    "ops": (
        {"vllm/new.py": "torch.ops._C.new_op(x)\nops = torch.ops._moe_C\n"},
        (
            "new.py uses torch.ops._moe_C without naming an op",
            *(
                f"{device}: the engine names _C::new_op (new.py), which no library registers"
                for device in ("cpu", "cuda", "rocm")
            ),
        ),
    ),
    "schemas": (
        {CPU: files("9")[CPU].replace("gelu_new(Tensor! out, ", "gelu_new(Tensor! result, ")},
        ("cpu: _C::gelu_new(Tensor! out, Tensor input) -> (), but the engine's is _C::gelu_new(",),
    ),
    "requirements": (
        {
            "requirements/common.txt": files("9")["requirements/common.txt"] + "brand-new>=2 # x\n",
            "requirements/cuda.txt": files("9")["requirements/cuda.txt"].replace("numba", "mumba"),
        },
        (
            "brand-new: upstream's common.txt has >=2, requirements/engine.toml has no such",
            "mumba: upstream's cuda.txt has ==0.65.0",
            "numba: upstream's cuda.txt has no such requirement",
        ),
    ),
    "metadata": (
        {"pyproject.toml": files("9")["pyproject.toml"].replace(">=3.11", ">=3.12") + 'a = "b:c"'},
        (
            "the engine has the command a = b:c, recipe/vllm/recipe.yaml has none of that name",
            "the engine supports Python >=3.12,<3.15, recipe/vllm/recipe.yaml has >=3.11,<3.15",
            "the engine supports Python >=3.12,<3.15, variants/cuda13.yaml has 3.11",
        ),
    ),
    "licenses": (
        {
            "LICENSE": "other terms",
            "vllm/part/NOTICE": "keep this",
            "vllm/gpl.h": "/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */",
        },
        (
            "LICENSE is in none of the texts",
            "vllm/part/NOTICE is in none of the texts",
            "gpl.h has the license GPL-2.0-only",
        ),
    ),
    "wheels": (
        {
            "requirements/common.txt": re.sub(
                r"(?m)^transformers.*$", "transformers<5", files("9")["requirements/common.txt"]
            )
        },
        ("transformers 5.", "the engine requires <5"),
    ),
}


def test_every_difference_is_printed_with_what_to_do(
    tree: Path, index: Index, answer: Answer
) -> None:
    changes: dict[str, str | None] = {}
    for subject, (changed, _) in DIFFERENT.items():
        if subject == "wheels":  # the same file as that of the requirements
            text = changed["requirements/common.txt"]
            assert text is not None
            changes["requirements/common.txt"] = text + "brand-new>=2 # x\n"
        else:
            changes |= changed
    index.add("9.9.0", changes)
    status, found = answer("--update", "9.9.0")
    assert status == IntegrityError.exit_code
    for subject, (_, words) in DIFFERENT.items():
        lines = found["differences"][subject]
        for word in words:
            assert any(word in line for line in lines), (subject, word, lines)
        assert any(step.startswith(f"{subject}: ") for step in found["steps"]), subject
    # The lock has moved nevertheless, and the tree names the release that it has.
    assert third_party.read(tree)["vllm"].version == "9.9.0"
    recipe_stamp.check(tree)


@pytest.mark.parametrize(
    ("version", "error", "words"),
    [
        ("latest", ConfigurationError, "'latest' is no version"),
        ("9.9.0/../x", ConfigurationError, "is no version"),
        ("9.7.0", FetchError, "pip finds no source distribution of vllm 9.7.0"),
    ],
)
def test_a_release_that_cannot_be_locked_changes_nothing(
    tree: Path, index: Index, answer: Answer, version: str, error: type[Any], words: str
) -> None:
    index.add("9.9.0")
    lock = (tree / third_party.LOCK).read_bytes()
    status, found = answer("--update", version)
    assert (status, found["error"]) == (error.exit_code, found["error"])
    assert words in found["message"]
    assert "toolchain" not in found["remedy"]
    assert (tree / third_party.LOCK).read_bytes() == lock


def test_a_release_without_schemas_is_refused_in_one_message(
    tree: Path, index: Index, answer: Answer
) -> None:
    index.add("9.9.0", dict.fromkeys(BINDINGS.values()))
    status, found = answer("--update", "9.9.0")
    assert status == IntegrityError.exit_code
    assert "defines no ops for cpu, cuda, rocm" in found["message"]
    assert third_party.read(tree)["vllm"].version == "9.9.0"


def test_a_locked_file_that_the_index_has_changed(
    tree: Path, index: Index, answer: Answer, tmp_path: Path
) -> None:
    index.add("9.9.0")
    assert answer("--update", "9.9.0")[0] == 0
    (tmp_path / "cache").rename(tmp_path / "lost")
    first = index.sha256["9.9.0"]
    index.add("9.9.0", {"vllm/evil.py": "x"})
    status, found = answer()
    assert status == IntegrityError.exit_code
    assert f"vllm 9.9.0: sha256 {index.sha256['9.9.0']}" in found["message"]
    assert "\n" not in found["message"]
    assert found["expected"] == "the sha256 in third_party/lock.toml"
    assert first in (tree / third_party.LOCK).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r'(?m)^version = "{0}"$', 'version = "9.8.0"', "vllm 9.8.0 comes from vllm-{0}.tar.gz"),
        (r'package = "vllm"', 'package = "mllv"', "'package': 'mllv'"),
        (r'"vllm-{0}.tar.gz"', '"../evil.tar.gz"', "cannot name a file"),
        (r'(?m)^(name = "vllm"\n(?:.*\n)*?sha256 = ").', r"\g<1>x", "sha256 is malformed"),
        (r'name = "vllm"', 'name = "mllv"', "has no 'vllm'"),
    ],
)
def test_a_lock_that_somebody_edited(
    tree: Path, answer: Answer, old: str, new: str, words: str
) -> None:
    lock, version = tree / third_party.LOCK, third_party.read(tree)["vllm"].version
    text = lock.read_text(encoding="utf-8")
    # The engine's entry is the last one.
    head, source, entry = text.rpartition("[[source]]\n")
    edited = re.sub(old.replace("{0}", re.escape(version)), new, entry, count=1)
    assert edited != entry
    lock.write_text(head + source + edited, encoding="utf-8")
    status, found = answer()
    assert (status, "\n" in found["message"]) == (ConfigurationError.exit_code, False)
    assert words.replace("{0}", version) in found["message"]


def test_sources_that_somebody_changed_are_extracted_again(
    tree: Path, index: Index, answer: Answer
) -> None:
    index.add("9.9.0")
    assert answer("--update", "9.9.0")[0] == 0
    folder = third_party.read(tree)["vllm"].folder
    (folder / "vllm" / "calls.py").write_text("torch.ops._C.evil()\n", encoding="utf-8")
    assert answer()[0] == 0
    assert "evil" not in (folder / "vllm" / "calls.py").read_text(encoding="utf-8")


@full_only
def test_concurrent_updates_leave_one_whole_release(
    tree: Path, index: Index, answer: Answer, tmp_path: Path
) -> None:
    releases = ("9.8.0", "9.9.0")
    for number, version in enumerate(releases):
        index.add(version, {f"vllm/more{number}.py": ""})
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "vllm_build", "engine", "--update", version],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tree / "scripts")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for version in releases
    ]
    said = [process.communicate()[1] for process in running]
    ended = {
        version: process.returncode for version, process in zip(releases, running, strict=True)
    }
    # One of them may meet the lock of the other, and says so.
    assert set(ended.values()) <= {0, BusyError.exit_code}, said
    source = third_party.read(tree)["vllm"]
    assert ended[source.version] == 0
    assert source.sha256 == index.sha256[source.version]
    recipe_stamp.check(tree)
    assert answer()[0] == 0
