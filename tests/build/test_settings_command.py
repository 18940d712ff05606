# SPDX-License-Identifier: Apache-2.0
"""``vllm-build settings`` and the variables that other commands name."""

from __future__ import annotations

import json

import pytest

from vllm_build import cli
from vllm_build.settings import build_settings
from vllm_build.util.errors import ConfigurationError

VARIABLES = {variable.name: variable for variable in build_settings.variables()}


@pytest.mark.usefixtures("bare")
def test_command_shows_every_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAX_JOBS", "3")
    assert cli.main(["settings", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(VARIABLES)
    assert (rows["MAX_JOBS"]["set"], rows["MAX_JOBS"]["value"]) == (True, "3")
    assert (rows["NVCC_THREADS"]["set"], rows["NVCC_THREADS"]["value"]) == (False, None)
    assert cli.main(["settings"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.strip() for line in lines if line.strip() in VARIABLES] == list(VARIABLES)
    place = lines.index("    MAX_JOBS")
    assert lines[place - 1] == "Jobs"
    assert [line.split(maxsplit=1) for line in lines[place + 1 : place + 3]] == [
        ["set", "to       3"],
        ["effect", VARIABLES["MAX_JOBS"].doc],
    ]
    assert lines[-1] == (
        f"{sum(row['set'] for row in rows.values())} of {len(rows)} variables are set, 0 of "
        "them malformed"
    )
    values = [row["value"] for row in rows.values() if row["set"]]
    assert [
        line for line in lines if len(line) > 100 and not any(value in line for value in values)
    ] == []


@pytest.mark.usefixtures("bare")
def test_command_shows_what_is_malformed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAX_JOBS", "many")
    assert cli.main(["settings", "--json"]) == ConfigurationError.exit_code
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["error"]]
    assert row["name"] == "MAX_JOBS"
    assert "'many'" in row["error"]
    assert cli.main(["settings"]) == ConfigurationError.exit_code
    text = capsys.readouterr().err
    assert "error        MAX_JOBS='many' is not valid\n" in text
    assert text.endswith("variables are set, 1 of them malformed\n")


@pytest.mark.parametrize(
    "name",
    [
        "CHANNEL",
        "REUSE",
        "CMAKE_BUILD_PARALLEL_LEVEL",
        "CONDA_OVERRIDE_CUDA",
        "CCACHE_DIR",
        "XDG_CACHE_HOME",
    ],
)
def test_variables_of_the_driver_are_in_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "~no-such-user/'x")
    assert cli.main(["settings", "--json"]) == ConfigurationError.exit_code
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["error"]]
    assert row["name"] == name


def test_the_reason_for_a_number_of_jobs_is_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MAX_JOBS", raising=False)
    monkeypatch.setenv("CMAKE_BUILD_PARALLEL_LEVEL", "3")
    assert cli.main(["jobs", "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["jobs"] == 3
    assert "CMAKE_BUILD_PARALLEL_LEVEL=3" in document["why"]
