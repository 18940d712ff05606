# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build import cli
from vllm_build.digests import kernel_inputs
from vllm_build.settings import build_settings, choices, settings_page
from vllm_build.settings.build_settings import Settings
from vllm_build.settings.choices import DEVICES
from vllm_build.settings.value_kinds import (
    ABSOLUTE_FOLDER,
    COUNT,
    FILE,
    FLAG,
    FOLDER,
    PRESENT_FOLDER,
    RELEASE,
    TEXT,
)
from vllm_build.util import environ, paths
from vllm_build.util.errors import ConfigurationError, IntegrityError

VARIABLES = {variable.name: variable for variable in build_settings.variables()}
NUMERIC = ["MAX_JOBS", "NVCC_THREADS", "VLLM_MAIN_CUDA_VERSION"]
#: What the build contract calls by name.
CONTRACT = {
    *(
        "VLLM_TARGET_DEVICE",
        "VLLM_VERSION_OVERRIDE",
        "VLLM_SKIP_VERSION_SUFFIX",
        "VLLM_MAIN_CUDA_VERSION",
    ),
    *(
        "VLLM_SKIP_PRECOMPILED_VERSION_SUFFIX",
        "MAX_JOBS",
        "NVCC_THREADS",
        "VLLM_DISABLE_SCCACHE",
        "VLLM_DISABLE_CCACHE",
        "CMAKE_ARGS",
    ),
    *(f"CMAKE_{language}_COMPILER_LAUNCHER" for language in ("C", "CXX", "CUDA", "HIP")),
    *("CMAKE_BUILD_TYPE", "VERBOSE", "CUDA_HOME", "ROCM_HOME", "CUDA_PATH", "ROCM_PATH", "PREFIX"),
    *("TORCH_CUDA_ARCH_LIST", "PYTORCH_ROCM_ARCH", "CMAKE_CUDA_ARCHITECTURES"),
    *("VLLM_USE_PRECOMPILED", "VLLM_PRECOMPILED_WHEEL_LOCATION", "VLLM_PRECOMPILED_SHA256"),
    *("VLLM_PRECOMPILED_STORES", "VLLM_PRECOMPILED_PARTIAL", "VLLM_PRECOMPILED_KEY"),
}


def test_every_variable_of_the_contract_is_there() -> None:
    assert set(VARIABLES) >= CONTRACT


def test_every_field_has_one_variable_with_words() -> None:
    # What is kept of the environment as a whole is no variable.
    fields = [field.name for field in dataclasses.fields(Settings) if field.name != "inherited"]
    assert [variable.field for variable in build_settings.variables()] == fields
    assert len(VARIABLES) == len(fields)
    for variable in VARIABLES.values():
        assert variable.section
        assert variable.kind.accepts
        assert variable.default
        assert re.fullmatch(r"[^\n|]+\.", variable.doc), variable.name


def test_nothing_set_gives_defaults() -> None:
    assert Settings.from_environ({}) == Settings()


def test_a_snapshot_is_of_this_process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_JOBS", "7")
    assert Settings.from_environ(environ.snapshot()).max_jobs == 7
    monkeypatch.setenv("MAX_JOBS", "x")
    assert [error.message for error in build_settings.problems(environ.snapshot())] == [
        "MAX_JOBS='x' is not valid"
    ]


@pytest.mark.parametrize("blank", ["", "  ", "\t\n"])
@pytest.mark.parametrize("name", VARIABLES)
def test_empty_counts_as_unset(name: str, blank: str) -> None:
    assert Settings.from_environ({name: blank}) == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().max_jobs = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("VLLM_TARGET_DEVICE", "ROCm", "rocm"),
        ("MAX_JOBS", "8", 8),
        ("NVCC_THREADS", " 2 ", 2),
        ("VLLM_MAIN_CUDA_VERSION", "12.9", Version("12.9")),
        ("VLLM_MAIN_CUDA_VERSION", "12.10", Version("12.10")),
        ("CMAKE_BUILD_TYPE", "relwithdebinfo", "RelWithDebInfo"),
        ("CMAKE_GENERATOR", "unix makefiles", "Unix Makefiles"),
        ("CMAKE_ARGS", "-DA='b c' -DD=e\\ ", ("-DA=b c", "-DD=e ")),
        ("VERBOSE", "1", True),
        ("VERBOSE", "No", False),
        ("VLLM_USE_PRECOMPILED", "true", True),
        ("VLLM_SKIP_VERSION_SUFFIX", "off", False),
        ("CUDA_HOME", "/opt/cuda", Path("/opt/cuda")),
        ("ROCM_PATH", "relative", Path.cwd() / "relative"),
        ("TORCH_CUDA_ARCH_LIST", " 8.0;9.0a ", "8.0;9.0a"),
        ("VLLM_PRECOMPILED_SHA256", "AB" * 32, "ab" * 32),
        (
            "VLLM_PRECOMPILED_STORES",
            "a 'b c' https://d.invalid/e",
            ("a", "b c", "https://d.invalid/e"),
        ),
        ("VLLM_KERNEL_DIGEST", "0123456789ab", "0123456789ab"),
        ("VLLM_VERSION_OVERRIDE", " 1.0 ", "1.0"),
    ],
)
def test_values(name: str, text: str, expected: Any) -> None:
    assert getattr(Settings.from_environ({name: text}), VARIABLES[name].field) == expected


def test_folders_know_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Settings.from_environ({"CUDA_HOME": "~/cuda"}).cuda_home == Path("/home/somebody/cuda")


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "abc",
        "1e9",
        "+3",
        "1_000",
        "0x10",
        "²",
        "٣",
        "inf",
        "nan",
        "1 2",
        "1,5",
        "99999999999",
    ],
)
@pytest.mark.parametrize("name", NUMERIC)
def test_malformed_numbers(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environ({name: text})
    assert name in caught.value.message
    assert repr(text) in caught.value.message
    assert caught.value.expected == VARIABLES[name].kind.accepts
    assert name in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MAX_JOBS", "1.5"),
        ("MAX_JOBS", "1000001"),
        ("VLLM_MAIN_CUDA_VERSION", "13"),
        ("VLLM_MAIN_CUDA_VERSION", "13.0rc1"),
        ("VLLM_TARGET_DEVICE", "gpu"),
        ("VERBOSE", "maybe"),
        ("VLLM_WERROR", "2"),
        ("CMAKE_BUILD_TYPE", "Fast"),
        ("CMAKE_GENERATOR", "Xcode"),
        ("CMAKE_ARGS", "-DA='open"),
        ("CUDA_HOME", "~nobody-of-that-name/cuda"),
        ("VLLM_PRECOMPILED_SHA256", "ab"),
        ("VLLM_PRECOMPILED_SHA256", "g" * 64),
        ("VLLM_PRECOMPILED_STORES", '"open'),
        ("VLLM_KERNEL_DIGEST", "abc"),
        ("VLLM_KERNEL_DIGEST", "0" * 65),
    ],
)
def test_malformed_value_names_variable_value_and_what_is_accepted(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environ({name: text})
    assert f"{name}={text!r}" in caught.value.message
    assert caught.value.expected == VARIABLES[name].kind.accepts


def test_all_problems_at_once() -> None:
    found = build_settings.problems({"MAX_JOBS": "x", "VERBOSE": "y", "CUDA_HOME": "/fine"})
    assert sorted(error.message for error in found) == [
        "MAX_JOBS='x' is not valid",
        "VERBOSE='y' is not valid",
    ]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"VLLM_USE_PRECOMPILED": "0"}, False),
        ({"VLLM_USE_PRECOMPILED": "1"}, True),
        ({"VLLM_PRECOMPILED_WHEEL_LOCATION": "some.whl"}, True),
        ({"VLLM_PRECOMPILED_STORES": "folder"}, False),
    ],
)
def test_precompiled(environ: dict[str, str], expected: object) -> None:
    assert Settings.from_environ(environ).precompiled is expected


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.sampled_from(sorted(VARIABLES)), TEXTS)
def test_any_text_is_read_or_refused_by_name(name: str, text: str) -> None:
    try:
        read = Settings.from_environ({name: text})
    except ConfigurationError as error:
        assert name in error.message  # noqa: PT017 - either outcome is right, each with its own check
    else:
        assert text.strip() or read == Settings()


@given(st.integers(min_value=1, max_value=10**6))
def test_every_positive_count_is_read(count: int) -> None:
    assert Settings.from_environ({"MAX_JOBS": f" {count} "}).max_jobs == count


@given(TEXTS)
def test_counts_are_plain_decimal_digits(text: str) -> None:
    try:
        count = COUNT.parse(text)
    except ValueError:
        return
    assert re.fullmatch(r"\s*0*[1-9][0-9]*\s*", text)
    assert count == int(text)


@given(TEXTS)
def test_releases_are_dotted_numbers(text: str) -> None:
    try:
        release = RELEASE.parse(text)
    except ValueError:
        return
    assert 2 <= len(release.release) <= 3
    assert not release.is_prerelease


@given(TEXTS)
def test_flags_are_a_few_words(text: str) -> None:
    try:
        value = FLAG.parse(text)
    except ValueError:
        return
    assert value is (text.strip().lower() in ("1", "true", "yes", "on"))


@given(st.sampled_from(DEVICES), st.data())
def test_device_in_any_case(device: str, data: st.DataObject) -> None:
    upper = data.draw(st.lists(st.booleans(), min_size=len(device), max_size=len(device)))
    spelled = "".join(
        letter.upper() if up else letter for letter, up in zip(device, upper, strict=True)
    )
    assert Settings.from_environ({"VLLM_TARGET_DEVICE": spelled}).target_device == device


@given(st.lists(TEXTS.filter(bool), min_size=1))
def test_cmake_args_are_split_like_a_shell(words: list[str]) -> None:
    assert Settings.from_environ({"CMAKE_ARGS": shlex.join(words)}).cmake_args == tuple(words)


# docs/settings.md


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


# vllm-build settings


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


# Every command checks every variable before it does anything.

ARGUMENTS = {
    "package": ["cpu"],
    "test-package": ["cpu"],
    "audit": ["some.whl"],
    "archs": ["--kernel=8.0", "--targets=8.0"],
    "install": ["prefix"],
    "publish": ["--store=store"],
    "store": ["check", "store"],
    "cache": ["info"],
}


@pytest.mark.parametrize(
    "command", [c.NAME for c in cli.COMMANDS if c.NAME not in ("settings", "doctor")]
)
def test_every_command_names_all_that_is_malformed_first(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    def refuse(*_: object) -> int:
        raise AssertionError("work began")

    for module in cli.COMMANDS:
        monkeypatch.setattr(module, "run", refuse)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "MAX_JOBS": "abc",
        "VERBOSE": "qq",
        "CHANNEL": "defaults",
        "VLLM_BUILD_CACHE": "~no-such-user/x",
    }.items():
        monkeypatch.setenv(name, value)
    assert (
        cli.main([command, *ARGUMENTS.get(command, []), "--json"]) == ConfigurationError.exit_code
    )
    said = capsys.readouterr()
    message = json.loads(said.out)["message"]
    assert message.startswith("4 environment variables are not valid:")
    for part in (
        "MAX_JOBS='abc'",
        "VERBOSE='qq'",
        "CHANNEL='defaults'",
        "VLLM_BUILD_CACHE='~no-such-user/x'",
        "one of local, conda-forge",
    ):
        assert part in message


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


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (None, "MAX_JOBS")),
        ({"CMAKE_BUILD_PARALLEL_LEVEL": "3"}, (3, "CMAKE_BUILD_PARALLEL_LEVEL")),
        ({"CMAKE_BUILD_PARALLEL_LEVEL": "3", "MAX_JOBS": "2"}, (2, "MAX_JOBS")),
    ],
)
def test_jobs_as_cmake_says_it(environ: dict[str, str], expected: tuple[int | None, str]) -> None:
    assert Settings.from_environ(environ).jobs == expected


def test_the_reason_for_a_number_of_jobs_is_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MAX_JOBS", raising=False)
    monkeypatch.setenv("CMAKE_BUILD_PARALLEL_LEVEL", "3")
    assert cli.main(["jobs", "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["jobs"] == 3
    assert "CMAKE_BUILD_PARALLEL_LEVEL=3" in document["why"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ninja", "Ninja"),
        ("Ninja Multi-Config", "Ninja"),
        ("NINJA multi-config", "Ninja"),
        ("unix makefiles", "Unix Makefiles"),
    ],
)
def test_generators_in_every_form(text: str, expected: str) -> None:
    assert Settings.from_environ({"CMAKE_GENERATOR": text}).generator == expected


# One malformed value at least of each variable, whatever the command.

_BYTES = os.fsdecode(b"\xff")
MALFORMED: dict[str, tuple[str, ...]] = {
    **{
        variable.name: ("2", "maybe", "\u0661")
        for variable in VARIABLES.values()
        if variable.kind is FLAG
    },
    **{
        variable.name: ("0", "-1", "1.5", "\u0661")
        for variable in VARIABLES.values()
        if variable.kind is COUNT
    },
    **{
        variable.name: (
            "/dev/null",
            "/dev/null/x",
            "https://host.invalid/x",
            "a\nb",
            "x" * 5000,
            "~no-such-user/x",
        )
        for variable in VARIABLES.values()
        if variable.kind in (FOLDER, ABSOLUTE_FOLDER, PRESENT_FOLDER)
    },
    **{
        variable.name: ("/dev/zero", "/", "https://host.invalid/x", "/dev/null/x")
        for variable in VARIABLES.values()
        if variable.kind is FILE
    },
    **{variable.name: ("a\nb",) for variable in VARIABLES.values() if variable.kind is TEXT},
    "VLLM_TARGET_DEVICE": ("gpu",),
    "TORCH_CUDA_ARCH_LIST": ("8.0;x", ";", "\u0668.\u0660", "4.9"),
    "CMAKE_CUDA_ARCHITECTURES": ("native", "8.0"),
    "PYTORCH_ROCM_ARCH": ("9.0", "gfx90a:xnack"),
    "VLLM_VERSION_OVERRIDE": ("../../x", "1.0 2", "one"),
    "SOURCE_DATE_EPOCH": ("0", "-1", "now", "99999999999"),
    "VLLM_MAIN_CUDA_VERSION": ("13",),
    "CMAKE_BUILD_TYPE": ("Fast",),
    "CMAKE_GENERATOR": ("Xcode",),
    "CMAKE_ARGS": ("-DA='open",),
    "VLLM_COMPONENTS": ("bogus", "vllm-kernels bogus", "'open"),
    "VLLM_FA_SET": ("all",),
    "VLLM_KERNEL_DIGEST": ("abc",),
    "VLLM_PRECOMPILED_WHEEL_LOCATION": ("ftp://host.invalid/x.whl", "a\nb"),
    "VLLM_PRECOMPILED_SHA256": ("ab",),
    "VLLM_PRECOMPILED_STORES": ("s3://bucket/x", "'open"),
    "VLLM_PRECOMPILED_FOREIGN": ("2",),
    "PATH": (_BYTES,),
    "CHANNEL": ("defaults",),
    "REUSE": ("ftp://host.invalid/x", "'open"),
    "CONDA_OVERRIDE_CUDA": ("x",),
}
# The build goes on without the compiler cache, so what CCACHE_DIR leads to is not its matter.
MALFORMED["CCACHE_DIR"] = ("https://host.invalid/cache", "~no-such-user/cache")
MALFORMED["XDG_CACHE_HOME"] += ("relative/folder",)
MALFORMED["TMPDIR"] += ("/nonexistent", "/proc/self")


def test_every_variable_has_a_malformed_value() -> None:
    assert set(MALFORMED) == set(VARIABLES)


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name, texts in MALFORMED.items() for text in (*texts, "1" + _BYTES)],
)
def test_each_malformed_value_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str,
) -> None:
    def refuse(*_: object) -> int:
        raise AssertionError("work began")

    for command in ("plan", "package"):
        (module,) = [module for module in cli.COMMANDS if command == module.NAME]
        monkeypatch.setattr(module, "run", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, text)
    for words in (["plan"], ["package", "cpu"]):
        assert cli.main([*words, "--json"]) == ConfigurationError.exit_code
        document = json.loads(capsys.readouterr().out)
        assert name in document["message"]
        assert document["expected"]
        assert name in document["remedy"] or document["remedy"].startswith(
            ("write", "separate", "name", "unset")
        ), document["remedy"]
    assert cli.main(["settings", "--json"]) == ConfigurationError.exit_code
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["error"]]
    assert row["name"] == name
    assert "expected: " in row["error"]
    assert "to do: " in row["error"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["settings"], ["plan", "--device", "cpu"], ["package", "cpu"]])
def test_bytes_that_are_not_utf8(words: list[str], tmp_path: Path) -> None:
    environ = {**os.environb, b"TORCH_CUDA_ARCH_LIST": b"8.0;\xff"}
    command = [sys.executable, "-I", "-X", "utf8", "-m", "vllm_build", *words]
    done = subprocess.run(
        command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == ConfigurationError.exit_code
    assert "TORCH_CUDA_ARCH_LIST" in done.stderr
    assert "Traceback" not in done.stderr


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


@pytest.mark.parametrize("text", ["relative", "./x", "../x"])
def test_a_relative_cache_home_is_refused_where_the_cache_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delenv("VLLM_BUILD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", text)
    with pytest.raises(ConfigurationError, match="XDG_CACHE_HOME"):
        paths.cache_root()
