# SPDX-License-Identifier: Apache-2.0
"""scripts/lint/check_prose.py: what is prose in a file, and what is found there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts" / "lint" / "check_prose.py"


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_prose", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_prose"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def found(prose: ModuleType, path: Path, source: str) -> list[str]:
    """Line and phrase of each finding."""
    path.write_text(source, encoding="utf-8")
    phrases, _, _ = prose.read_table()
    return [
        line.removeprefix(f"{path}:").partition(": write instead")[0]
        for line in prose.findings(path, phrases)
    ]


# The issue's own examples of what to replace, and its replacements.
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "Nothing else is needed, a compiler neither.",
            "You need nothing else, not even a compiler.",
        ),
        (
            "Of what a build was made stands in four places.",
            "A build's inputs are recorded in four places.",
        ),
        (
            "A torch was chosen by nobody, so it chooses no device.",
            "Such a torch does not select the device, but it can rule one out.",
        ),
        (
            "A head that none is large enough for is an error.",
            "Larger heads raise an error that lists the compiled sizes.",
        ),
        ("On a busy machine, but for the second.", "The machine was overloaded except for run 2."),
        ("To what it compiles for, PTX is added.", "The build adds PTX."),
        (
            "Who edits Python alone need not compile.",
            "If you edit only Python, you need not compile.",
        ),
    ],
)
def test_examples(prose: ModuleType, tmp_path: Path, old: str, new: str) -> None:
    assert len(found(prose, tmp_path / "page.md", f"# Title\n\nFirst. {old}\n")) >= 1
    assert found(prose, tmp_path / "page.md", f"# Title\n\nFirst. {new}\n") == []


def test_code_is_no_prose(prose: ModuleType, tmp_path: Path) -> None:
    page = (
        "# What you get\n\n```console\nnobody\n```\n\nThe user `nobody` and [it](beside.md).\n\n"
        "| What it is | x |\n"
    )
    assert found(prose, tmp_path / "page.md", page) == []
    module = 'def nobody() -> str:\n    return "whatever"  # next to\n'
    assert found(prose, tmp_path / "module.py", module) == []


def test_lines(prose: ModuleType, tmp_path: Path) -> None:
    assert found(prose, tmp_path / "page.md", "One.\n\nA line,\nand one beside it.\n") == [
        "4: 'beside'"
    ]
    module = '"""What it is.\n\nNobody calls it.\n"""\nx = 1  # it stands for one\n'
    assert found(prose, tmp_path / "module.py", module) == ["3: 'Nobody'", "5: 'stands for'"]
    assert found(prose, tmp_path / "script.sh", "echo nobody\n# nobody\n") == ["2: 'nobody'"]
    assert found(prose, tmp_path / "kernel.cu", "int beside;\n  int x;  // likewise\n") == [
        "2: 'likewise'"
    ]


def test_a_word_inside_of_another_is_none(prose: ModuleType, tmp_path: Path) -> None:
    assert found(prose, tmp_path / "page.md", "Whole files. It is on the wayside, besides.\n") == []


def test_questions_are_allowed(prose: ModuleType, tmp_path: Path) -> None:
    assert found(prose, tmp_path / "page.md", "What happened?\n") == []


def test_the_files_of_the_list_pass(prose: ModuleType, tmp_path: Path) -> None:
    _, names, skip = prose.read_table()
    assert len(list(prose.files(names, skip))) >= 20
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    bad = tmp_path / "bad.md"
    bad.write_text("Nobody.\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, PROGRAM, bad], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "bad.md:1: 'Nobody'" in done.stdout
