# SPDX-License-Identifier: Apache-2.0
"""Every command refuses malformed variables before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vllm_build import cli
from vllm_build.settings import build_settings
from vllm_build.settings.value_kinds import (
    ABSOLUTE_FOLDER,
    COUNT,
    FILE,
    FLAG,
    FOLDER,
    PRESENT_FOLDER,
    TEXT,
)
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = {variable.name: variable for variable in build_settings.variables()}


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
    "command", [name for name in cli.COMMANDS if name not in ("settings", "doctor")]
)
def test_every_command_names_all_that_is_malformed_first(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    def refuse(*_: object) -> int:
        raise AssertionError("work began")

    for name in cli.COMMANDS:
        monkeypatch.setattr(cli.load(name), "run", refuse)
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
    "VLLM_KERNELS": ("ours",),
    "VLLM_KERNEL_SET": ("dev",),
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


# The build works without a compiler cache, so it does not check whether CCACHE_DIR is usable.
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
        monkeypatch.setattr(cli.load(command), "run", refuse)
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
