# SPDX-License-Identifier: Apache-2.0
"""The record of a private build, and how stores and reuse refuse it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reuse_files import DIGEST, Build
from setuptools import Distribution

from vllm_build import cli
from vllm_build.native import highway_lookup, private_build
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records import fitness, output_record
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_publish
from vllm_build.util.errors import ConfigurationError
from vllm_build.wheels import cmake_ext

MACHINE = fitness.Machine("cpu", None, None, json.loads(Build().record())["platform"], "abi3")


@pytest.fixture
def command(
    root: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> cmake_ext.cmake_build_ext:
    assert tools.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("MAX_JOBS", "1")
    monkeypatch.setattr(highway_lookup, "find", lambda *_: {"HIGHWAY_SRC_DIR": "locked"})
    command = cmake_ext.cmake_build_ext(
        Distribution(
            {
                "name": "vllm",
                "version": "1.0",
                "ext_modules": [cmake_ext.CMakeExtension("vllm._C", str(root))],
            }
        )
    )
    command.build_lib = str(tmp_path / "lib")
    command.ensure_finalized()
    return command


def built(command: cmake_ext.cmake_build_ext) -> tuple[Path, dict[str, Any]]:
    command.build_extensions()
    folder = Path(command.build_lib)
    return folder, json.loads(
        (folder / "vllm" / "_build_info" / "vllm-kernels.json").read_text(encoding="utf-8")
    )


def test_the_record_of_a_private_build(
    command: cmake_ext.cmake_build_ext,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in private_build._FLAGS:
        monkeypatch.delenv(name, raising=False)
    _, plain = built(command)
    assert plain["private"] == []
    assert plain["build_digest"] == plain["tree_digest"]
    assert "private build" not in capfd.readouterr().err
    monkeypatch.setenv("CXXFLAGS", "-O0 -ffast-math")
    _, private = built(command)
    assert private["private"] == ["CXXFLAGS=-O0 -ffast-math"]
    assert private["tree_digest"] == plain["build_digest"] != private["build_digest"]
    assert capfd.readouterr().err.count("private build because of CXXFLAGS=-O0 -ffast-math") == 1


def test_a_secret_is_in_no_record(
    command: cmake_ext.cmake_build_ext,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """CMake stores the secret, but the record, the messages and the logs do not contain it.

    A shortened text does not show the end of the secret, so the test looks for its beginning.
    """
    secret = "pa55w0rd" * 20
    address = f"https://user:{secret}@host/x"
    monkeypatch.setenv(
        "CMAKE_ARGS", f"-DMIRROR={address} -DAPI_TOKEN={secret} '-DPADDED={'x' * 90} {address}'"
    )
    monkeypatch.setenv("CXXFLAGS", f'-DKEY_PASSWORD=\\"{secret}\\" -DURL={address}')
    folder, record = built(command)
    assert [text.count("***") for text in record["private"]] == [2, 1, 1, 1], record["private"]
    streams = capfd.readouterr()
    assert secret[:8] not in streams.out + streams.err
    kept = [
        path
        for place in (folder, tmp_path)
        for path in place.rglob("*")
        if path.is_file() and "calls" not in path.name
    ]
    assert [path for path in kept if secret[:8].encode() in path.read_bytes()] == []


def test_an_instruction_set_is_refused_before_anything_is_compiled(
    command: cmake_ext.cmake_build_ext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXXFLAGS", "-march=native")
    with pytest.raises(ConfigurationError, match="CXXFLAGS contains -march=native"):
        command.run()
    assert not (tmp_path / "lib").exists()


PRIVATE = {"private": ["CXXFLAGS=-O0"], "tree_digest": DIGEST, "build_digest": "ee" * 32}


def test_publish_refuses_a_private_build_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = Build(facts=PRIVATE).wheel(tmp_path / "wheels")
    with pytest.raises(RefusedError, match="private build: CXXFLAGS=-O0") as caught:
        store_publish.publish(wheel, tmp_path / "store", Context())
    assert caught.value.check == "private"
    command = ["publish", "--store", str(tmp_path / "store"), str(wheel)]
    assert cli.main(command) == RefusedError.exit_code
    assert "--private" in capsys.readouterr().err
    assert not list((tmp_path / "store").glob("digests/*"))
    assert cli.main([*command, "--private"]) == 0
    assert [path.stem for path in (tmp_path / "store").glob("digests/*.json")] == ["ee" * 32]


def test_reuse_refuses_a_private_build_unless_asked_for() -> None:
    build = Build(facts=PRIVATE)
    found = output_record.parse(build.record(), build.output, "here")
    clean = replace(build.wanted(), digest=DIGEST)
    with pytest.raises(RefusedError, match="VLLM_PRECOMPILED_PRIVATE=1") as caught:
        fitness.require(found, clean, MACHINE, "here")
    assert caught.value.check == "private"
    assert caught.value.unfit
    fitness.require(found, replace(clean, tree_digest=DIGEST), MACHINE, "here")
    with pytest.raises(RefusedError, match="different sources") as other:
        fitness.require(
            found, replace(clean, digest="11" * 32, tree_digest="11" * 32), MACHINE, "here"
        )
    assert other.value.check == "digest"


@pytest.mark.parametrize(
    "facts", [{"private": "x"}, {"private": [1]}, {"tree_digest": "x"}, {"private": ["x"] * 10_000}]
)
def test_a_malformed_record_is_refused(facts: dict[str, Any]) -> None:
    build = Build(facts=facts)
    with pytest.raises(RefusedError):
        output_record.parse(build.record(), build.output, "here")
