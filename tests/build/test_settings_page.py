# SPDX-License-Identifier: Apache-2.0
"""``docs/settings.md`` agrees with the table of variables."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from vllm_build import cli
from vllm_build.digests import kernel_inputs
from vllm_build.settings import build_settings, choices, settings_page
from vllm_build.util import paths
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = {variable.name: variable for variable in build_settings.variables()}


def test_page_is_in_step_with_the_table(root: Path) -> None:
    settings_page.check(root)


def test_page_has_every_variable_once(root: Path) -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|.*\|$",
        (root / settings_page.PAGE).read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == len(set(rows))
    assert set(VARIABLES) <= set(rows)


def test_page_is_written_once(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="out of step"):
        settings_page.check(tmp_path)
    assert settings_page.write(tmp_path)
    settings_page.check(tmp_path)
    assert not settings_page.write(tmp_path)
    (tmp_path / settings_page.PAGE).write_text("other", encoding="utf-8")
    with pytest.raises(IntegrityError, match="out of step"):
        settings_page.check(tmp_path)
    assert settings_page.write(tmp_path)


def test_command_writes_and_checks_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "source_root", lambda: tmp_path)
    assert cli.main(["settings", "--check"]) == IntegrityError.exit_code
    assert cli.main(["settings", "--write"]) == 0
    assert "is written" in capsys.readouterr().err
    assert cli.main(["settings", "--write"]) == 0
    assert "was up to date" in capsys.readouterr().err
    assert cli.main(["settings", "--check"]) == 0


def test_components_are_those_of_the_table(root: Path) -> None:
    assert set(choices.COMPONENTS) == set(kernel_inputs.components(root))


def test_the_command_and_the_page_have_the_same_variables(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (
        (root / settings_page.PAGE)
        .read_text(encoding="utf-8")
        .partition("## Variables of other tools")[0]
    )
    listed = re.findall(r"^\| `(\w+)` \|.*\|$", page, re.MULTILINE)
    cli.main(["settings", "--json"])
    assert listed == [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert "SOURCE_DATE_EPOCH" in listed
