# SPDX-License-Identifier: Apache-2.0
"""What the engine's plugin reads: the machine's CPUs, and the files of a model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from vllm._kernels.engine import model_files, topology
from vllm._kernels.engine.model_files import ModelFilesError
from vllm._kernels.engine.topology import Cpu

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-3,8\n", [0, 1, 2, 3, 8]),
        ("5", [5]),
        ("", []),
        ("-", []),
        ("0-x", []),
    ],
)
def test_lists_of_numbers(text: str, expected: list[int]) -> None:
    assert topology.numbers(text) == expected


def machine(folder: Path, online: str, siblings: dict[int, str], nodes: dict[int, str]) -> Path:
    """The part of ``/sys/devices/system`` that is read, for a machine."""
    for cpu, text in siblings.items():
        place = folder / "cpu" / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(text + "\n", encoding="ascii")
    (folder / "cpu").mkdir(exist_ok=True)
    (folder / "cpu" / "online").write_text(online + "\n", encoding="ascii")
    for node, text in nodes.items():
        place = folder / "node" / f"node{node}"
        place.mkdir(parents=True)
        (place / "cpulist").write_text(text + "\n", encoding="ascii")
    return folder


def test_threads_share_a_core_and_nodes_are_numbered(tmp_path: Path) -> None:
    """Two nodes with two cores of two threads each; CPU 6 is offline."""
    pairs = {0: "0,4", 4: "0,4", 1: "1,5", 5: "1,5", 2: "2", 3: "3,7", 7: "3,7"}
    folder = machine(tmp_path, "0-5,7", pairs, {0: "0-1,4-5", 1: "2-3,6-7"})
    assert topology.cpus(folder) == [
        Cpu(0, 0, 0),
        Cpu(1, 1, 0),
        Cpu(2, 2, 1),
        Cpu(3, 3, 1),
        Cpu(4, 0, 0),
        Cpu(5, 1, 0),
        Cpu(7, 3, 1),
    ]


def test_without_sys_each_cpu_is_a_core(tmp_path: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert topology.cpus(tmp_path) == [Cpu(cpu, place, 0) for place, cpu in enumerate(allowed)]


def test_this_machine_as_lscpu_sees_it() -> None:
    program = shutil.which("lscpu")
    if program is None:
        assert topology.cpus(), "no lscpu to compare with, but CPUs"
        return
    done = subprocess.run(
        [program, "--parse=CPU,CORE,NODE", "--online"], capture_output=True, text=True, check=True
    )
    rows = re.findall(r"^(\d+),(\d+),(\d*)$", done.stdout, re.MULTILINE)
    expected = [(int(cpu), int(core), int(node or 0)) for cpu, core, node in rows]
    assert [tuple(cpu) for cpu in topology.cpus()] == expected


def weights(path: Path, cut: int = 0) -> Path:
    """A safetensors file with one tensor of eight bytes, without its last ``cut`` bytes."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    path.write_bytes(content[: len(content) - cut])
    return path


def test_complete_weights_and_other_formats(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    model_files.require(tmp_path)
    weights(tmp_path / "model-00001-of-00001.safetensors")
    model_files.require(tmp_path)


@pytest.mark.parametrize("cut", [1, 8, 9, 60, 1000])
def test_truncated_weights_are_named(tmp_path: Path, cut: int) -> None:
    path = weights(tmp_path / "model.safetensors", cut)
    with pytest.raises(ModelFilesError, match="is truncated") as caught:
        model_files.require(tmp_path)
    assert str(path) in str(caught.value)
    assert f"it has {path.stat().st_size} bytes" in str(caught.value)
    assert "copy or download the model again" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1",
        (4).to_bytes(8, "little") + b"null",
        (2).to_bytes(8, "little") + b"{x",
        (11).to_bytes(8, "little") + b'{"a": null}',
        (27).to_bytes(8, "little") + b'{"a": {"data_offsets": [0]}}',
        (37).to_bytes(8, "little") + b'{"a": {"data_offsets": [0, "eight"]}}',
    ],
)
def test_other_files_are_no_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFilesError, match="no safetensors file"):
        model_files.require(tmp_path)


def test_weights_that_the_index_lists_must_be_there(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    weights(tmp_path / "1.safetensors")
    with pytest.raises(ModelFilesError, match=r"lacks 2\.safetensors, which model"):
        model_files.require(tmp_path)
    weights(tmp_path / "2.safetensors")
    model_files.require(tmp_path)


def test_files_that_the_engine_does_not_read_are_not_checked(tmp_path: Path) -> None:
    """With an index, only its files; of a model in Mistral's format, only that one."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors"}}))
    weights(tmp_path / "1.safetensors")
    weights(tmp_path / "left-over.safetensors", cut=3)
    model_files.require(tmp_path)
    (tmp_path / "1.safetensors").unlink()
    weights(tmp_path / "consolidated.safetensors")
    model_files.require(tmp_path)
    model_files.require(tmp_path, "mistral")
    with pytest.raises(ModelFilesError, match=r"lacks 1\.safetensors"):
        model_files.require(tmp_path, "safetensors")
    weights(tmp_path / "consolidated.safetensors", cut=1)
    with pytest.raises(ModelFilesError, match="is truncated"):
        model_files.require(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": 1}'])
def test_a_malformed_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelFilesError, match="is malformed: it lists no weights"):
        model_files.require(tmp_path)
