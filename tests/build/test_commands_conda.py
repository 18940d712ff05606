# SPDX-License-Identifier: Apache-2.0
"""The commands for conda packages: what they pass to the library, and what they print."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_build import cli
from vllm_build.conda import package_checks, package_job
from vllm_build.conda.environments import conda_environment
from vllm_build.toolchain import channel_build, channel_views, lock_update
from vllm_build.toolchain.channel_build import ChannelReport, Outcome
from vllm_build.toolchain.toolchain_lock import LockedFile
from vllm_build.util import errors, paths

RESULT = {
    "variant": "cpu",
    "packages": [{"path": "output/noarch/vllm-1.0-0.conda", "sha256": "0" * 64}],
    "install": "conda install --override-channels -c file:///output vllm",
    "serve": "vllm serve MODEL",
    "seconds": {"plan": 0.25},
    "units": [
        {
            "unit": "vllm-kernels/x.dir/slow.cu.o",
            "seconds": 50.0,
            "cpu_seconds": 42.0,
            "peak_bytes": 3 << 29,
            "object_bytes": 5 << 19,
        },
        {
            "unit": "vllm-kernels/x.dir/fast.cc.o",
            "seconds": 1.0,
            "cpu_seconds": 1.0,
            "peak_bytes": 1 << 28,
            "object_bytes": 1 << 10,
        },
    ],
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Records the calls of the library modules."""
    calls: list[Any] = []

    def answer(module: Any, name: str, result: Any) -> None:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append((name, arguments, options))
            return result

        monkeypatch.setattr(module, name, call)

    answer(package_job, "package", RESULT)
    answer(
        conda_environment,
        "create",
        [{"name": "vllm", "version": "1.0", "build": "0", "channel": "c"}],
    )
    answer(
        channel_build,
        "ensure",
        ChannelReport(
            Path("/channel"),
            "d" * 64,
            (Outcome("cmake", "built", 1.25, 2_000_000, ("cmake.conda",)),),
        ),
    )
    locked = LockedFile(
        build="cmake",
        position=0,
        type="pypi",
        name="cmake",
        version="4",
        filename="cmake-4.whl",
        sha256="1" * 64,
    )
    answer(lock_update, "update", [locked])
    answer(package_checks, "prepare", None)
    answer(package_checks, "compute", ["one: ok"])
    answer(package_checks, "audits", [SimpleNamespace(library="_C", check="abi3audit", good=True)])
    answer(package_checks, "installed_tests", {"kernels": "....\n4 passed in 1s\n"})
    return calls


def test_package(seen: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["package", "cpu", "--output", str(tmp_path), "--channel", "conda-forge"]) == 0
    ((_, (request, _), _),) = seen
    assert (request.variant.name, request.channel, request.output) == (
        "cpu",
        "conda-forge",
        tmp_path,
    )
    said = capsys.readouterr()
    assert said.out == f"{RESULT['install']}\n{RESULT['serve']}\n"
    assert "vllm-1.0-0.conda" in said.err
    assert re.search(r"vllm-kernels/x\.dir/slow\.cu\.o +42 +1\.5", said.err)
    assert "fast.cc.o" not in said.err
    assert (request.reuse, cli.main(["package", "cpu", "--reuse", "/a 'https://b/c d'"])) == ((), 0)
    assert seen.pop()[1][0].reuse == ("/a", "https://b/c d")
    capsys.readouterr()
    assert cli.main(["package", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == RESULT


def test_install(seen: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = [
        "install",
        str(tmp_path / "prefix"),
        "vllm",
        "pytest",
        "--output",
        str(tmp_path / "o"),
        "--channel",
        "conda-forge",
    ]
    assert cli.main(command) == 0
    assert not capsys.readouterr().out
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "vllm"
    asked = (tmp_path / "prefix", ["vllm", "pytest"], [(tmp_path / "o").as_uri(), "conda-forge"])
    options = {"force": False, "update": False, "keep": [tmp_path / "o"], "compiled": True}
    assert seen[0] == ("create", asked, options)
    assert cli.main([*command, "--force"]) == 0
    assert seen[-1][2]["force"] is True
    assert cli.main([*command, "--update"]) == 0
    assert (seen[-1][2]["force"], seen[-1][2]["update"]) == (False, True)


def test_toolchain(seen: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["toolchain", "cmake"]) == 0
    assert seen[0][2] == {"only": ["cmake"], "inherited": dict(os.environ)}
    table = capsys.readouterr().err
    assert "cmake" in table
    assert "2.0" in table
    assert cli.main(["toolchain", "--json"]) == 0
    assert seen[1][2] == {"only": None, "inherited": dict(os.environ)}
    document = json.loads(capsys.readouterr().out)
    assert (document["path"], document["url"]) == ("/channel", "file:///channel")
    assert document["outcomes"][0]["action"] == "built"


def test_toolchain_update(seen: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["toolchain", "--update", "cmake"]) == 0
    assert "cmake-4.whl" in capsys.readouterr().err
    assert cli.main(["toolchain", "--update", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"][0]["filename"] == "cmake-4.whl"
    assert [options for _, _, options in seen] == [
        {"only": only, "inherited": dict(os.environ)} for only in (["cmake"], None)
    ]


def test_toolchain_clean(
    seen: list[Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path))
    monkeypatch.setattr(
        channel_views, "clean", lambda days: channel_views.Cleaned(1, 2, int(days * 1e6))
    )
    assert cli.main(["toolchain", "--clean"]) == 0
    assert "removed 2 packages (30.0 MB) and 1 unused views" in capsys.readouterr().err
    assert cli.main(["toolchain", "--clean", "--older-than", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "path": str(tmp_path / "channel"),
        "views": 1,
        "packages": 2,
        "size": 7_000_000,
    }
    for wrong in (["--clean", "--older-than", "soon"], ["--clean", "cmake"], ["--older-than", "7"]):
        assert cli.main(["toolchain", *wrong]) == errors.ConfigurationError.exit_code
    assert seen == [], "rendering builds nothing"


def test_test_package(seen: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["test-package", "cpu", "--channel", "conda-forge"]) == 0
    assert not capsys.readouterr().out
    assert cli.main(["test-package", "cpu", "--channel", "conda-forge", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [entry["interpreter"] for entry in document["interpreters"]] == [
        i.name for i in package_checks.INTERPRETERS
    ]
    assert document["audits"] == [{"library": "_C", "check": "abi3audit", "good": True}]
    assert document["tests"] == {"kernels": "4 passed in 1s"}
    assert seen[0][0] == "prepare"


def test_stamp(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(root, tree, ignore=shutil.ignore_patterns(".git", ".venv", "output", "build"))
    monkeypatch.setattr(paths, "source_root", lambda: tree)
    (tree / "csrc" / "core" / "rows.h").write_text("// new\n", encoding="utf-8")
    assert cli.main(["stamp", "--check"]) == errors.IntegrityError.exit_code
    assert "does not match the tree" in capsys.readouterr().err
    assert cli.main(["stamp"]) == 0
    assert "written" in capsys.readouterr().err
    assert cli.main(["stamp", "--check", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        "vllm_version",
        "engine_version",
        "kernels_digest",
        "engine_kernels_digest",
        "flash_attn_digest",
        "flashmla_digest",
        "package_digest",
        "kernels_recipe_digest",
        "engine_kernels_recipe_digest",
        "flash_attn_recipe_digest",
        "flashmla_recipe_digest",
        "package_recipe_digest",
    }
    assert cli.main(["stamp"]) == 0
    assert "written" not in capsys.readouterr().err
