# SPDX-License-Identifier: Apache-2.0
"""The commands publish, store, cache and reuse."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from reuse_files import DIGEST, OUTPUT, RECORD, Build, elf
from reuse_server import serving
from reuse_stores import member
from rich.console import Console as RichConsole

from vllm_build import cli
from vllm_build.reuse import preparation
from vllm_build.reuse.records import fitness
from vllm_build.settings.build_settings import Settings
from vllm_build.target.device import Target
from vllm_build.util import paths
from vllm_build.util.console import Console
from vllm_build.util.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

KEY = f"{OUTPUT} {DIGEST}"


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    folder, built = str(tmp_path / "store"), Build().unpacked(tmp_path / "built")
    monkeypatch.setattr(paths, "source_root", lambda: built)
    assert cli.main(["publish", "--store", folder]) == 0
    assert f"{KEY}: added" in capsys.readouterr().err
    assert cli.main(["publish", "--store", folder, str(built), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == {KEY: False}
    assert cli.main(["store", "check", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 3
    (tmp_path / "store" / "members" / "odd").touch()
    member(tmp_path / "store").unlink()
    assert cli.main(["store", "check", folder]) == IntegrityError.exit_code
    said = capsys.readouterr().err
    assert "nothing refers to members/odd" in said
    assert "1 problems" in said


def test_the_cache_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path))
    (tmp_path / "reuse" / "blobs").mkdir(parents=True)
    (tmp_path / "reuse" / "blobs" / "x").write_bytes(b"123")
    assert cli.main(["cache", "info"]) == 0
    assert "blobs" in capsys.readouterr().err
    assert cli.main(["cache", "clean", "--older-than", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"][0]["files"] == 0
    assert cli.main(["cache", "clean", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"] == [
        {"folder": "removed", "files": 1, "size": 3}
    ]
    for days in ("x", "-1", "nan", "inf", "1_0", "1e3", "\u0663", "\u00b2", ""):
        assert cli.main(["cache", "clean", f"--older-than={days}"]) == ConfigurationError.exit_code


def test_the_reuse_command(
    root: Path,
    bare: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bare.is_dir()
    (wanted,) = preparation.find_wanted(
        root, preparation.make_plan(root, Settings(), Target("cpu", "why"))
    )
    facts = {"build_digest": wanted.digest, "platform": fitness.sysconfig.get_platform()}
    build = Build({name: elf() for name in wanted.libraries}, facts)
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    with serving() as server:
        server.folder = build.wheel(tmp_path / "wheels").parent
        monkeypatch.setenv(
            "VLLM_PRECOMPILED_WHEEL_LOCATION", f"{server.url}/vllm-0.1.0-py3-none-any.whl"
        )
        assert cli.main(["reuse"]) == 0
        said = capsys.readouterr().err
        assert "    vllm-kernels\n        action  reuse\n        where   http://" in said
        assert "fetched 0.0 MB" in said
        assert cli.main(["reuse", "--fetch", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["action"] for row in answer["outputs"]] == ["reuse"]
    assert sorted(answer["files"]) == ["vllm/_C.abi3.so", RECORD]
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(Build().wheel(tmp_path)))
    assert cli.main(["reuse"]) == IntegrityError.exit_code


def test_transfers_on_a_terminal_and_in_a_pipe(console: Console) -> None:
    with console.transfer("x") as counter:
        counter.advance(5)
    stream = io.StringIO()
    shown = Console(_rich=RichConsole(file=stream, force_terminal=True, width=120))
    with shown.transfer("kernels") as counter:
        counter.advance(2_500_000)
    assert "2.5/? MB" in stream.getvalue()
