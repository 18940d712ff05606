# SPDX-License-Identifier: Apache-2.0
"""The locked engine itself: it fits this tree's tables, and a wheel contains it unchanged."""

from __future__ import annotations

import configparser
import os
import re
import zipfile
from typing import TYPE_CHECKING

import pytest
import yaml
from front_end_runs import run_module

from vllm_build.engine import engine_source, faces, op_calls, review
from vllm_build.toolchain import third_party_fetch
from vllm_build.util import paths
from vllm_build.util.console import Console
from vllm_build.util.files import sha256_of
from vllm_build.wheels.distribution import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.engine.engine_source import Engine

pytestmark = pytest.mark.slow  # the first run downloads 47 MB


@pytest.fixture
def engine(root: Path) -> Engine:
    third_party_fetch.fetch(engine_source.locked(root), Console(), os.environ)
    return engine_source.find(root)


def test_every_difference_is_explained(root: Path, engine: Engine) -> None:
    assert review.review(root, engine) == {
        subject: [] for subject in ("files", "ops", "requirements", "licenses")
    }


def test_a_new_op_of_the_engine_would_be_found(root: Path, engine: Engine) -> None:
    called = {**op_calls.calls(engine.package), "_C::an_op_of_the_next_release": ("a.py",)}
    found = op_calls.unexplained(called, op_calls.registered(root), op_calls.read(root))
    assert len(found) == 3
    assert all("_C::an_op_of_the_next_release" in line for line in found)


def test_the_recipe_has_the_engines_commands_and_interpreters(root: Path, engine: Engine) -> None:
    recipe = yaml.safe_load((root / "recipe" / "vllm" / "recipe.yaml").read_text(encoding="utf-8"))
    metadata = engine_source.metadata(engine)
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {place}" for name, place in {**metadata.scripts, **COMMANDS}.items()
    ]
    # Ours calls the engine's.
    assert metadata.scripts == {"vllm": "vllm.entrypoints.cli.main:main"}
    assert set(COMMANDS) == {"vllm"}
    (python,) = (line for line in recipe["requirements"]["run"] if line.startswith("python "))
    assert set(python.removeprefix("python ").split(",")) == set(
        metadata.requires_python.replace(" ", "").split(",")
    )


def test_fakes_that_the_engine_registers_are_left_to_it(root: Path, engine: Engine) -> None:
    text = (root / "vllm" / "_kernels" / "fakes.py").read_text(encoding="utf-8")
    ours = set(re.findall(r'^    "(_\w+::\w+)": _', text, re.MULTILINE))
    (listed,) = re.findall(r"^ENGINES = frozenset\(\{(.*)\}\)$", text, re.MULTILINE)
    theirs = {
        name
        for path in engine.package.rglob("*.py")
        for name in re.findall(r'register_fake\(\s*"(_\w+::\w+)"', path.read_text(encoding="utf-8"))
    }
    assert theirs & ours == set(re.findall(r'"([^"]+)"', listed))


def test_a_wheel_has_the_engines_files_byte_for_byte(
    root: Path, engine: Engine, tmp_path: Path
) -> None:
    run_module(
        tmp_path,
        *("-m", "pip", "wheel", root, "--no-deps", "--no-build-isolation", "--no-index"),
        *("--wheel-dir", tmp_path / "wheel"),
        device="empty",
        VLLM_ENGINE="1",
        VLLM_SKIP_VERSION_SUFFIX="1",
        VLLM_BUILD_CACHE=str(paths.cache_root()),
    )
    (path,) = (tmp_path / "wheel").iterdir()
    assert path.name == f"vllm-{engine.version}-py3-none-any.whl"
    table = faces.read(root)
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        for name in faces.files_below(engine.package):
            inside = f"vllm/{name}"
            if inside in table.ours or inside in faces.GENERATED:
                continue
            wheel.extract(inside, tmp_path / "out")
            assert sha256_of(tmp_path / "out" / inside) == sha256_of(engine.package / name), name
        assert {name for name in faces.python_files(root) if name.startswith(faces.OURS)} <= names
        (points,) = (name for name in names if name.endswith("/entry_points.txt"))
        parser = configparser.ConfigParser()
        parser.read_string(wheel.read(points).decode())
    assert parser["console_scripts"]["vllm"] == COMMANDS["vllm"]
    assert parser["vllm.platform_plugins"]["kernels"] == "vllm._kernels.engine:platform"
