# SPDX-License-Identifier: Apache-2.0
"""Bad input and signals: ``vllm serve`` ends with one clear message and leaves no process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import engine_tokens
import pytest
from engine_server import HOST, Program, Server, command, environ
from full_suite import full_only

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


@pytest.fixture
def copied(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copied"))


P = TypeVar("P", bound=Program)


@contextlib.contextmanager
def started(server: P) -> Iterator[P]:
    """A program of which nothing is left after the block."""
    try:
        yield server
    finally:
        server.kill()


def fails(prefix: Path, home: Path, *arguments: str, **variables: str) -> str:
    """Run ``vllm`` until it fails.

    Returns:
        Its last line, without its beginning.
    """
    home.mkdir(exist_ok=True)
    line, env = command(prefix, *arguments), environ(prefix, home, **variables)
    with started(Program(line, home / "log", env)) as program:
        assert program.wait() == 1, program.log
        said = program.last_line
        assert said.startswith("error: "), program.log
        assert program.log.count("\nerror: ") <= 1
        return said.removeprefix("error: ")


def edit(folder: Path, **changes: object) -> None:
    """Change keys of a model's configuration; None removes a key."""
    path = folder / "config.json"
    document = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in document.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def test_a_folder_that_is_missing(prefix: Path, tmp_path: Path) -> None:
    said = fails(prefix, tmp_path / "home", "serve", str(tmp_path / "no" / "model"))
    assert said.startswith(f"there is no such folder: {tmp_path / 'no' / 'model'}; expected")


def test_weights_that_are_truncated(prefix: Path, copied: Path, tmp_path: Path) -> None:
    path = copied / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    said = fails(prefix, tmp_path / "home", "serve", str(copied))
    assert said.startswith(f"{path} is truncated: it has ")


@full_only
def test_weights_that_are_missing(prefix: Path, copied: Path, tmp_path: Path) -> None:
    (copied / "model.safetensors").unlink()
    said = fails(prefix, tmp_path / "home", "serve", str(copied))
    assert str(copied) in said
    assert "weights" in said


@full_only
def test_a_configuration_that_is_missing_or_malformed(
    prefix: Path, copied: Path, tmp_path: Path
) -> None:
    (copied / "config.json").write_text("{", encoding="utf-8")
    assert "config.json" in fails(prefix, tmp_path / "home", "serve", str(copied))
    (copied / "config.json").unlink()
    said = fails(prefix, tmp_path / "home", "serve", str(copied))
    assert str(copied) in said
    assert "config.json" in said


@pytest.mark.parametrize(
    "kind", [None, pytest.param("llama", marks=full_only)], ids=["unknown type", "known type"]
)
def test_an_architecture_that_is_unknown(
    prefix: Path, copied: Path, tmp_path: Path, kind: str | None
) -> None:
    edit(copied, architectures=["NoSuchModelForCausalLM"], model_type=kind or "no_such_model")
    said = fails(prefix, tmp_path / "home", "serve", str(copied))
    assert "no_such_model" in said or "NoSuchModelForCausalLM" in said
    assert "support" in said or "not recognize" in said


def test_kernels_of_another_digest(prefix: Path, model: Path, tmp_path: Path) -> None:
    """In an environment whose package of vllm requires other kernels."""
    other = tmp_path / "prefix"
    (other / "bin").mkdir(parents=True)
    shutil.copy2((prefix / "bin" / "python").resolve(), other / "bin" / "python")
    shutil.copy2(prefix / "bin" / "vllm", other / "bin" / "vllm")
    (other / "lib").symlink_to(prefix / "lib")
    shutil.copytree(prefix / "conda-meta", other / "conda-meta")
    (record,) = (
        path
        for path in other.glob("conda-meta/vllm-*.json")
        if json.loads(path.read_text(encoding="utf-8"))["name"] == "vllm"
    )
    document = json.loads(record.read_text(encoding="utf-8"))
    document["depends"] = [
        "vllm-kernels ==0.1.0 *_k0123456789ab_*" if line.startswith("vllm-kernels ") else line
        for line in document["depends"]
    ]
    record.write_text(json.dumps(document), encoding="utf-8")
    said = fails(other, tmp_path / "home", "serve", str(model))
    log = (tmp_path / "home" / "log").read_text(encoding="utf-8")
    assert "0123456789ab" in said or "error: vllm-kernels is of another build" in log


def test_a_port_that_is_in_use(prefix: Path, model: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = str(other.getsockname()[1])
        options = ("--host", HOST, "--port", port)
        said = fails(prefix, tmp_path / "home", "serve", str(model), *options)
    assert port in said
    assert "in use" in said


@full_only
def test_no_memory_for_the_cache(prefix: Path, model: Path, tmp_path: Path) -> None:
    arguments = ("serve", str(model))
    said = fails(prefix, tmp_path / "home", *arguments, VLLM_CPU_KVCACHE_SPACE="1000000")
    assert "1000000.0 GiB" in said
    assert "VLLM_CPU_KVCACHE_SPACE" in said


@full_only
@pytest.mark.skipif(
    engine_tokens.has_float8_cache(),
    reason="this CPU has a float8 cache, which test_engine_tokens.py tests",
)
def test_a_float8_cache_without_avx_512(prefix: Path, model: Path, tmp_path: Path) -> None:
    arguments = ("serve", str(model), "--kv-cache-dtype", "fp8_e4m3")
    said = fails(prefix, tmp_path / "home", *arguments)
    assert "--kv-cache-dtype fp8_e4m3 is not supported by the CPU attention backend" in said


@full_only
def test_a_cache_that_is_too_small_for_a_sequence(
    prefix: Path, model: Path, tmp_path: Path
) -> None:
    arguments = ("serve", str(model), "--kv-cache-memory-bytes", "1000000")
    said = fails(prefix, tmp_path / "home", *arguments, VLLM_CPU_KVCACHE_SPACE="")
    assert "KV cache" in said
    assert "max_model_len" in said


#: A text of the log of a start, and a server that answers.
LOADING, SERVING = "Starting to load model", "serving"


@pytest.mark.parametrize(
    ("moment", "number", "everyone"),
    [
        pytest.param(LOADING, signal.SIGINT, False, marks=full_only),
        (SERVING, signal.SIGINT, True),
        pytest.param(LOADING, signal.SIGTERM, False, marks=full_only),
        pytest.param(LOADING, signal.SIGTERM, True, marks=full_only),
        pytest.param(LOADING, signal.SIGINT, True, marks=full_only),
        pytest.param(SERVING, signal.SIGTERM, False, marks=full_only),
        pytest.param(SERVING, signal.SIGTERM, True, marks=full_only),
        pytest.param(SERVING, signal.SIGINT, False, marks=full_only),
    ],
)
def test_signals(
    prefix: Path,
    model: Path,
    tmp_path: Path,
    moment: str,
    number: signal.Signals,
    everyone: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A terminal sends SIGINT to all processes, and a service manager may send SIGTERM to all."""
    with started(Server(prefix, model, tmp_path / "home")) as server:
        if moment == SERVING:
            server.wait_until_ready()
        else:
            server.wait_for(moment)
        if everyone:
            os.killpg(server.process.pid, number)
        else:
            server.process.send_signal(number)
        status = server.wait()
        if moment == LOADING:
            assert status == 128 + number, server.log
            # The interpreter's tracker of shared memory may warn after this line.
            assert f"\nerror: stopped by {number.name}\n" in server.log
        else:
            assert status == 0, server.log
            assert "error: " not in server.log
        assert "Traceback" not in server.log
