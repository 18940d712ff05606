# SPDX-License-Identifier: Apache-2.0
"""pip's configuration: only settings for reaching an index have an effect."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from pip_machine import HOSTILE, make_machine, write

from vllm_build.toolchain import pypi
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.processes import pip_process

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for configuration files of a machine whose pip has no configuration."""
    return make_machine(tmp_path, monkeypatch)


def kept(command: str = "download") -> dict[str, str]:
    """The part of the environment that pip reads."""
    return {
        name: value
        for name, value in pip_process.environment(command, os.environ).items()
        if name.startswith("PIP_")
    }


FIXED = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def test_only_settings_for_reaching_an_index_are_kept(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        machine / "config" / "pip" / "pip.conf",
        **{
            "global": {
                "index-url": "https://user:p%40ss@example.invalid/simple",
                "proxy": "http://proxy.invalid:3128",
                **HOSTILE,
            },
            "install": {"find-links": "/here\n    /there", "user": "true"},
            "freeze": {"timeout": "9"},
        },
    )
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "1")
    reach = {
        "PIP_INDEX_URL": "https://user:p%40ss@example.invalid/simple",
        "PIP_PROXY": "http://proxy.invalid:3128",
        "PIP_RETRIES": "0",
    }
    assert kept("download") == {**FIXED, **reach}
    found = kept("install")
    assert found.pop("PIP_FIND_LINKS").split() == ["/here", "/there"]
    assert found == {**FIXED, **reach}


def test_the_order_of_files_sections_and_variables_is_pips(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `pip config list` prints the user's file first, because "config" sorts before "etc". The
    # user's file takes precedence.
    write(
        machine / "etc" / "pip" / "pip.conf",
        **{"global": {"timeout": "1", "retries": "1", "proxy": "http://one.invalid"}},
    )
    write(
        machine / "config" / "pip" / "pip.conf",
        **{"global": {"timeout": "2", "retries": "2"}, "download": {"retries": "3"}},
    )
    found = kept()
    assert (found["PIP_TIMEOUT"], found["PIP_RETRIES"], found["PIP_PROXY"]) == (
        "2",
        "3",
        "http://one.invalid",
    )
    monkeypatch.setenv("PIP_RETRIES", "4")
    monkeypatch.setenv("PIP_TIMEOUT", "")
    found = kept()
    assert (found["PIP_TIMEOUT"], found["PIP_RETRIES"]) == ("2", "4"), (
        "pip ignores empty variables too"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert kept() == {**FIXED, "PIP_RETRIES": "4"}


def test_pip_reads_what_it_is_given(machine: Path) -> None:
    """The variables have the same meaning for pip as the files."""
    links = machine / "with links"
    write(
        machine / "config" / "pip" / "pip.conf",
        **{"global": {"find-links": links.as_uri(), "no-index": "yes", "constraint": "/none"}},
    )
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(
        command,
        env=pip_process.environment("download", os.environ),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f":env:.find-links='{links.as_uri()}'" in said.splitlines()
    assert ":env:.no-index='yes'" in said.splitlines()
    assert "constraint" not in said


@pytest.mark.parametrize("text", ["[global\n", "timeout = 3\n", "[global]\nx = 1\nx = 2\n"])
def test_a_file_that_is_no_configuration(machine: Path, tmp_path: Path, text: str) -> None:
    path = write(machine / "config" / "pip" / "pip.conf")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(pip_process.PipConfigurationError, match=r"pip\.conf"):
        pip_process.environment("download", os.environ)
    with pytest.raises(ConfigurationError, match=r"pip\.conf") as caught:
        pypi.download(
            [("sample", "1.0", "0" * 64)], tmp_path, python="3.11", abi=None, inherited=os.environ
        )
    assert "Traceback" not in str(caught.value)
    program = [sys.executable, "-I", pip_process.__file__, "--quiet", "list"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("pip's configuration cannot be read: ")
    assert "Traceback" not in done.stderr


def test_a_user_id_without_an_account_and_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip needs a cache folder, and ends with a traceback if it cannot determine one."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pip_process.pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    assert pip_process.environment("download", os.environ)["HOME"] == "/nonexistent"
    monkeypatch.setenv("HOME", "/somewhere")
    assert pip_process.environment("download", os.environ)["HOME"] == "/somewhere"
