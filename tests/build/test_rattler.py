# SPDX-License-Identifier: Apache-2.0
"""Building with rattler-build: equal arguments for program and bindings, and clear messages."""

from __future__ import annotations

import io
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
from small_recipes import build, channel, recipe, recipes

from vllm_build.packing import rattler_child, recipe_builder
from vllm_build.util.errors import (
    BuildError,
    ConfigurationError,
    PackageTestError,
    ResourceError,
    ToolchainError,
)

if TYPE_CHECKING:
    from vllm_build.util.console import Console


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recipe_builder, "find_program", lambda: None)


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


def test_a_failing_test_ends_with_its_last_lines(tmp_path: Path, console: Console) -> None:
    path = recipe(tmp_path, "echo built", test="echo the reason >&2; exit 3")
    with pytest.raises(PackageTestError) as caught:
        build(tmp_path, path, console)
    assert "the reason" in caught.value.message
    log = Path(str(caught.value.remedy).partition("the whole log: ")[2])
    assert "the reason" in log.read_text(encoding="utf-8")


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


def test_a_folder_of_recipes_is_built_in_the_order_of_dependencies(
    tmp_path: Path, console: Console
) -> None:
    built = build(tmp_path, recipes(tmp_path, first="[second]", second="[]"), console)
    assert [path.name.split("-")[0] for path in built] == ["first", "second"]


def test_a_recipe_of_a_folder_that_does_not_solve_is_named(
    tmp_path: Path, console: Console
) -> None:
    with pytest.raises(ToolchainError, match="no host environment for second") as caught:
        build(tmp_path, recipes(tmp_path, first="[]", second="[nothing-has-this]"), console)
    assert "the environments of recipes cannot be solved" in caught.value.message


def test_a_recipe_that_is_skipped_is_neither_built_nor_blamed(
    tmp_path: Path, console: Console
) -> None:
    folder = recipes(tmp_path, first="[]", second="[nothing-has-this]")
    path = folder / "second" / "recipe.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        'context:\n  skip: ${{ key == "value" }}\n'
        + text.replace("  noarch: generic\n", "  noarch: generic\n  skip: ${{ skip }}\n"),
        encoding="utf-8",
    )
    (package,) = build(tmp_path, folder, console)
    assert package.name.startswith("first-")


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
    """rattler-build sets HOME for scripts and tests.

    A recipe's interpreter must not use the caller's variables for Python.
    """
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
    """Even if this process has no handler for the signal."""
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


# Replaces the program rattler-build: it records its arguments, then does what the test asks for.


def test_a_package_is_built_after_those_that_extend_its_name(tmp_path: Path) -> None:
    for name in ("vllm", "vllm-flashmla", "vllm-kernels", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").touch()
    groups = rattler_child.recipe_groups(tmp_path)
    assert [[path.parent.name for path in group] for group in groups] == [
        ["other", "vllm-flashmla", "vllm-kernels"],
        ["vllm"],
    ]
    alone = tmp_path / "vllm" / "recipe.yaml"
    assert rattler_child.recipe_groups(alone) == [[alone]]
