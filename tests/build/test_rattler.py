# SPDX-License-Identifier: Apache-2.0
"""The driver of rattler-build: the same arguments for the program and the bindings, and one clear message for each failure."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from vllm_build.packing import recipe_builder
from vllm_build.util.errors import (
    BuildError,
    ConfigurationError,
    PackageTestError,
    ResourceError,
    ToolchainError,
)

if TYPE_CHECKING:
    from vllm_build.util.console import Console

RECIPE = """
package:
  name: sample
  version: "1.0"
build:
  noarch: generic
  script:
    content:
SCRIPT
    env:
      GIVEN: ${{ env.get("GIVEN", default="nothing") }}
      KEY: ${{ key }}
requirements:
  host: HOST
tests:
  - script:
      - TEST
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recipe_builder, "find_program", lambda: None)


def recipe(folder: Path, *script: str, host: str = "[]", test: str = "true") -> Path:
    path = folder / "sample" / "recipe.yaml"
    path.parent.mkdir(exist_ok=True)
    lines = "".join(
        f"      - {json.dumps(line)}\n" for line in script or ('echo "$KEY" > "$PREFIX/key"',)
    ).rstrip("\n")
    path.write_text(
        RECIPE.replace("SCRIPT", lines).replace("HOST", host).replace("TEST", test),
        encoding="utf-8",
    )
    return path


def channel(folder: Path) -> str:
    for subdir in ("linux-64", "noarch"):
        index = folder / "channel" / subdir / "repodata.json"
        index.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "info": {"subdir": subdir},
            "packages": {},
            "packages.conda": {},
            "repodata_version": 1,
        }
        index.write_text(json.dumps(document), encoding="utf-8")
    return (folder / "channel").as_uri()


def build(folder: Path, path: Path, console: Console, **options: object) -> list[Path]:
    given = {
        "variants": {"key": ["value"]},
        "channels": [channel(folder)],
        "output_dir": folder / "out",
        "console": console,
    }
    given |= {"inherited": os.environ} | options
    return recipe_builder.build(path, **given)  # type: ignore[arg-type]


def said(console: Console) -> str:
    stream = console._rich.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_a_package_and_its_live_log(tmp_path: Path, console: Console) -> None:
    path = recipe(
        tmp_path,
        'echo "key is $KEY, given is $GIVEN"',
        'mkdir -p "$PREFIX/etc"',
        'echo x > "$PREFIX/etc/x"',
        "sleep 1",
    )
    (package,) = build(tmp_path, path, console, env={"GIVEN": "something"})
    assert package.parent == tmp_path / "out" / "noarch"
    assert package.name.startswith("sample-1.0-")
    assert "key is value, given is something" in said(console)


def test_variant_files_make_one_package_each(tmp_path: Path, console: Console) -> None:
    variants = tmp_path / "v.yaml"
    variants.write_text('key:\n  - "one"\n  - "two"\n', encoding="utf-8")
    assert (
        len(build(tmp_path, recipe(tmp_path), console, variants={}, variant_files=[variants])) == 2
    )


def test_only_new_packages_are_reported(tmp_path: Path, console: Console) -> None:
    first = build(tmp_path, recipe(tmp_path), console)
    second = build(tmp_path, recipe(tmp_path), console, variants={"key": ["other"]})
    assert len(first) == len(second) == 1
    assert first != second
    assert all(path.is_file() for path in first)


def test_a_failing_script_ends_with_its_last_lines(tmp_path: Path, console: Console) -> None:
    with pytest.raises(BuildError) as caught:
        build(tmp_path, recipe(tmp_path, "echo before", "echo the reason >&2", "exit 3"), console)
    assert "building sample failed" in caught.value.message
    assert "the reason" in caught.value.message
    log = Path(str(caught.value.remedy).partition("the whole log: ")[2])
    assert "before" in log.read_text(encoding="utf-8")


def test_a_missing_compiler_is_named(tmp_path: Path, console: Console) -> None:
    with pytest.raises(ToolchainError) as caught:
        build(tmp_path, recipe(tmp_path, host="[gxx_linux-64 12.*]"), console)
    assert "gxx_linux-64" in caught.value.message
    assert "vllm-build toolchain" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["package: [", "package:\n  name: sample\n", "surprise: 1\n"])
def test_a_malformed_recipe(tmp_path: Path, console: Console, text: str) -> None:
    path = recipe(tmp_path)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        build(tmp_path, path, console)


def test_a_key_missing_from_the_variant(tmp_path: Path, console: Console) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(tmp_path, recipe(tmp_path), console, variants={})
    assert "key" in caught.value.message


def test_a_file_that_does_not_exist(tmp_path: Path, console: Console) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        build(tmp_path, tmp_path / "no" / "recipe.yaml", console)
    with pytest.raises(ConfigurationError, match="does not exist"):
        build(tmp_path, recipe(tmp_path), console, variant_files=[tmp_path / "no.yaml"])


def test_a_full_disk(tmp_path: Path, console: Console) -> None:
    with pytest.raises(ResourceError, match="no space left"):
        build(
            tmp_path,
            recipe(tmp_path, "echo 'cp: error writing x: No space left on device' >&2; exit 1"),
            console,
        )


def test_a_package_that_fails_its_own_test(tmp_path: Path, console: Console) -> None:
    path = recipe(tmp_path, test="echo broken; exit 1")
    with pytest.raises(PackageTestError, match="building sample failed"):
        build(tmp_path, path, console)
    assert build(tmp_path, path, console, test="skip")


def test_scripts_have_a_home_and_none_of_the_callers_python(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rattler-build gives scripts and tests a HOME of their own; an interpreter of a recipe must not obey the caller's variables."""
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv("PYTHONPATH", "/of/the/caller")
    monkeypatch.setenv("PYTHONHOME", "/of/the/caller")
    lines = (
        'echo x > "$HOME/written"',
        'echo "python: ${PYTHONPATH:-}${PYTHONHOME:-} user site: ${PYTHONNOUSERSITE:-}"',
        "sleep 1",
    )
    build(tmp_path, recipe(tmp_path, *lines, test='touch "$HOME/tested"'), console)
    assert "python:  user site: 1" in said(console)


def test_a_stale_index_is_not_believed(tmp_path: Path, console: Console) -> None:
    path = recipe(tmp_path)
    build(tmp_path, path, console)
    index = tmp_path / "out" / "noarch" / "repodata.json"
    index.write_text("{", encoding="utf-8")
    build(tmp_path, path, console)
    assert json.loads(index.read_text(encoding="utf-8"))["info"]["subdir"] == "noarch"


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)
def test_a_signal_ends_everything_that_was_started(tmp_path: Path, number: signal.Signals) -> None:
    """Also where this process has no handler for it."""
    up = "$SRC_DIR/../../../.."
    path = recipe(
        tmp_path, f'echo "$$" > "{up}/pid.new"', f'mv "{up}/pid.new" "{up}/pid"', "sleep 600"
    )
    program = (
        "import os, sys; from pathlib import Path\n"
        "from vllm_build.util.console import Console; from vllm_build.packing import "
        "recipe_builder\n"
        "recipe_builder.find_program = lambda: None\n"
        "try:\n"
        "    recipe, channel, out = sys.argv[1:]\n"
        "    recipe_builder.build(Path(recipe), variants={'key': ['v']}, channels=[channel], "
        "output_dir=Path(out), "
        "console=Console(), inherited=os.environ)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    arguments = [sys.executable, "-c", program, str(path), channel(tmp_path), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(Path(recipe_builder.__file__).parents[2])}
    with subprocess.Popen(
        arguments,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as parent:
        pid_file = tmp_path / "pid"
        while not pid_file.exists():
            assert parent.poll() is None, "the build ended before its script ran"
            time.sleep(0.05)
        script = psutil.Process(int(pid_file.read_text(encoding="utf-8")))
        started = [script, *script.children(recursive=True)]
        parent.send_signal(number)
        assert parent.wait(timeout=60) == (130 if number == signal.SIGINT else -number)
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []


# Stands in for the rattler-build program: records its arguments, then behaves as told.
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


def test_a_program_that_fails(
    tmp_path: Path, console: Console, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(BuildError, match="Script failed to execute"):
        build(tmp_path, recipe(tmp_path), console)
    assert program.is_file()
