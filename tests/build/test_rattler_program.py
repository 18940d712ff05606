# SPDX-License-Identifier: Apache-2.0
"""Building with the program rattler-build, where there is one, in place of the bindings."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from small_recipes import build, channel, recipe, recipes

from vllm_build.packing import recipe_builder
from vllm_build.util.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.util.console import Console

PROGRAM = """#!/bin/sh
printf '%s\\n' "$@" > "$RECORD"
echo 'some output'
[ -z "$FAIL" ] || { echo "Error: Script failed to execute"; exit 1; }
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "rattler-build"
    path.write_text(PROGRAM, encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setattr(recipe_builder, "find_program", lambda: str(path))
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.delenv("FAIL", raising=False)
    return tmp_path / "record"


def test_the_program_gets_the_same_arguments(
    tmp_path: Path, console: Console, program: Path
) -> None:
    path = recipe(tmp_path)
    variants = tmp_path / "v.yaml"
    variants.write_text('key:\n  - "one"\n', encoding="utf-8")
    build(
        tmp_path,
        path,
        console,
        variant_files=[variants],
        test="skip",
        package_format="conda:19",
        no_include_recipe=True,
    )
    arguments = program.read_text(encoding="utf-8").splitlines()
    assert arguments[4:6] == ["build", "--recipe"]
    pairs = dict(itertools.pairwise(arguments))
    expected = {
        "--recipe": str(path),
        "--variant-config": str(variants),
        "--variant": "key=value",
        "--channel": channel(tmp_path),
        "--output-dir": str(tmp_path / "out"),
        "--channel-priority": "strict",
        "--package-format": "conda:19",
        "--test": "skip",
        "--skip-existing": "none",
    }
    assert {key: pairs[key] for key in expected} == expected
    assert {"--no-build-id", "--no-include-recipe"} <= set(arguments)
    assert "--keep-build" not in arguments


def test_the_program_gets_a_folder_of_recipes(
    tmp_path: Path, console: Console, program: Path
) -> None:
    folder = recipes(tmp_path, first="[]")
    build(tmp_path, folder, console)
    arguments = program.read_text(encoding="utf-8").splitlines()
    assert arguments[4:7] == ["build", "--recipe-dir", str(folder)]
    assert "--recipe" not in arguments


def test_a_program_that_fails(
    tmp_path: Path, console: Console, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(BuildError, match="Script failed to execute"):
        build(tmp_path, recipe(tmp_path), console)
    assert program.is_file()
