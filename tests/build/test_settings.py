# SPDX-License-Identifier: Apache-2.0
"""Environment variables become typed settings."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build.settings import build_settings
from vllm_build.settings.build_settings import Settings
from vllm_build.settings.choices import DEVICES
from vllm_build.settings.value_kinds import (
    COUNT,
    FLAG,
    RELEASE,
)
from vllm_build.util import environ
from vllm_build.util.errors import ConfigurationError

VARIABLES = {variable.name: variable for variable in build_settings.variables()}


NUMERIC = ["MAX_JOBS", "NVCC_THREADS", "VLLM_MAIN_CUDA_VERSION"]


#: The variables that the build contract names.
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
    # `inherited` contains the whole environment and is not a variable.
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
