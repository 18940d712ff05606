# SPDX-License-Identifier: Apache-2.0
"""Every mistake in the table of kernels is reported with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from table_scene import GOOD, make_tree, write

from vllm_build.kernels.kernels_table import load
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


MISTAKES = {
    "unknown key": (
        'libraries = ["hwy"]',
        'libary = ["hwy"]',
        16,
        "unknown key 'libary' in [[kernel]]",
    ),
    "unknown key of an extension": (
        'component = "vllm-kernels"',
        'output = "vllm-kernels"',
        4,
        "unknown key 'output' in [[extension]]",
    ),
    "unknown table": (
        "[[extension]]\nname",
        "[extra]\nx = 1\n[[extension]]\nname",
        2,
        "unknown key 'extra'",
    ),
    "missing key": (
        'extension = "vllm._C"\ndevices = ["cpu"]',
        'devices = ["cpu"]',
        7,
        "[[kernel]] has no 'extension'",
    ),
    "missing source": (
        '"norm/norm.cu"',
        '"norm/gone.cu"',
        22,
        "source 'norm/gone.cu' does not exist",
    ),
    "source outside": (
        '"norm/norm.cu"',
        '"../norm.cu"',
        22,
        "source '../norm.cu' leaves the folder",
    ),
    "absolute source": ('"norm/norm.cu"', '"/norm.cu"', 22, "source '/norm.cu' leaves the folder"),
    "source twice in a record": (
        '"norm/binding.cc",\n]',
        '"norm/norm_cpu.cc",\n]',
        12,
        "'norm/norm_cpu.cc' is listed twice in 'sources'",
    ),
    "source not in its shortest form": (
        '"norm/norm.cu"',
        '"norm/./norm.cu"',
        22,
        "source 'norm/./norm.cu' is not in its shortest form",
    ),
    "source twice for a device": (
        'devices = ["cpu"]',
        'devices = ["cpu", "cuda"]',
        22,
        "source 'norm/binding.cc' is listed by 'norm-cpu' too",
    ),
    "source of an extension": (
        '"norm/norm.cu", "norm/binding.cc"',
        '"norm/norm.cu", "module.cc"',
        22,
        "source 'module.cc' is listed by 'vllm._C' too",
    ),
    "name twice": ('"norm-gpu"', '"norm-cpu"', 19, "a second [[kernel]] is named 'norm-cpu'"),
    "bad name": ('"norm-gpu"', '"Norm GPU"', 19, "name = 'Norm GPU' is not valid"),
    "bad definition": ("VLLM_NORM_GPU", "norm_gpu", 23, "'norm_gpu' in 'definitions' is not valid"),
    "macro, which definitions have replaced": (
        'definitions = ["VLLM_NORM_GPU"]',
        'macro = "X"',
        23,
        "unknown key 'macro' in [[kernel]]",
    ),
    "bad module name": (
        'name = "vllm._C"',
        'name = "torch._C"',
        3,
        "name = 'torch._C' is not valid",
    ),
    "no such extension": (
        'extension = "vllm._C"\ndevices = ["cpu"]',
        'extension = "vllm._E"\ndevices = ["cpu"]',
        9,
        "no [[extension]] is named",
    ),
    "unknown device": (
        '["cuda", "rocm"]',
        '["cuda", "tpu"]',
        21,
        "'tpu' in 'devices' is not known",
    ),
    "no device": ('["cuda", "rocm"]', "[]", 21, "devices = [] is not valid"),
    "string for a list": ('["cuda", "rocm"]', '"cuda"', 21, "devices = 'cuda' is not valid"),
    "number in a list": (
        '["cuda", "rocm"]',
        '["cuda", 9]',
        21,
        "devices = ['cuda', 9] is not valid",
    ),
    "number for a string": ('"norm-gpu"', "7", 19, "name = 7 is not valid"),
    "unknown memory class": (
        'definitions = ["VLLM_NORM_GPU"]',
        'memory = "vast"',
        23,
        "memory = 'vast' is not valid",
    ),
    "no archs": ('archs = { cuda = "12.0f" }\n', "", 35, "no archs for cuda"),
    "no archs for one device": (', rocm = "gfx90a"', "", 24, "no archs for rocm"),
    "archs for no GPU": (
        'rocm = "gfx90a"',
        'cpu = "avx2"',
        24,
        "'cpu' in 'archs' is not a GPU device of this record",
    ),
    "archs of host code": (
        'libraries = ["hwy"]',
        'archs = { cpu = "avx2" }',
        16,
        "'cpu' in 'archs' is not a GPU device of this record",
    ),
    "archs without GPU code": (
        '"norm/norm.cu", ',
        "",
        24,
        "archs without a .cu source have no effect",
    ),
    "arch that is none": ('"8.0 9.0a+PTX"', '"8.0 90a"', 24, "'90a' is not a GPU architecture"),
    "arch that does not exist": (
        '"8.0 9.0a+PTX"',
        '"8.0 9.1"',
        24,
        "there is no GPU architecture 9.1",
    ),
    "processor that is none": ('"gfx90a"', '"mi300"', 24, "'mi300' is not an AMD GPU architecture"),
    "archs as a list": ('{ cuda = "12.0f" }', '["12.0f"]', 40, "archs = ['12.0f'] is not valid"),
    "GPU code for the CPU": (
        '["cuda", "rocm"]',
        '["cuda", "cpu"]',
        21,
        ".cu sources are not for cpu",
    ),
    "GPU code of an extension": (
        'sources = ["module.cc"]\ndevices',
        'sources = ["norm/norm.cu"]\ndevices',
        29,
        "'csrc/norm/norm.cu' is GPU code",
    ),
    "device that the extension is not for": (
        'extension = "vllm._D"\ndevices = ["cuda"]',
        'extension = "vllm._D"\ndevices = ["cuda", "rocm"]',
        38,
        "'vllm._D' does not exist for rocm",
    ),
    "need that is none": ('">=8.0"', '">=9.0a"', 31, "needs_arch = '>=9.0a' is not valid"),
    "need that does not exist": ('">=8.0"', '"9.1a"', 31, "there is no GPU architecture 9.1a"),
    "need of the CPU": (
        '{ cuda = ">=8.0" }',
        '{ cpu = "8.0" }',
        31,
        "'cpu' in 'needs_arch' is not a GPU device of this record",
    ),
    "toolkit that is no version": (
        '{ cuda = "12.9" }',
        '{ cuda = "12" }',
        41,
        "min_toolkit = {'cuda': '12'} is not valid",
    ),
    "toolkit that every build has": (
        '{ cuda = "12.9" }',
        '{ cuda = "11.8" }',
        41,
        "cuda 11.8 has no effect: every build has at least that",
    ),
    "toolkit as a number": ('{ cuda = "12.9" }', "12.9", 41, "min_toolkit = 12.9 is not valid"),
    "torch as a string": ("torch = false", 'torch = "no"', 33, "torch = 'no' is not valid"),
    "a project without sources": (
        "memory =",
        'third_party = "x"\nmemory =',
        42,
        "a third-party project without sources, or sources without a project",
    ),
    "sources without a project": (
        "memory =",
        'third_party_sources = ["a.cu"]\nmemory =',
        42,
        "a third-party project without sources, or sources without a project",
    ),
    "source outside of a project": (
        "memory =",
        'third_party = "x"\nthird_party_sources = ["../a.cu"]\nmemory =',
        43,
        "source '../a.cu' leaves the folder of x",
    ),
    "definition that is none": (
        "memory =",
        'definitions = ["a b"]\nmemory =',
        42,
        "'a b' in 'definitions' is not valid",
    ),
    "unknown set": ("memory =", 'sets = ["some"]\nmemory =', 42, "'some' in 'sets' is not known"),
    "definitions of no set": (
        "memory =",
        'set_definitions = { dev = ["A"] }\nmemory =',
        42,
        "'dev' in 'set_definitions' is not known",
    ),
    "definitions of a set as a list": (
        "memory =",
        'sets = ["dev"]\nset_definitions = ["A"]\nmemory =',
        43,
        "set_definitions = ['A'] is not",
    ),
    "definition of a set that is none": (
        "memory =",
        'sets = ["dev"]\nset_definitions = { dev = ["a b"] }\nmemory =',
        43,
        "dev = ['a b'] in 'set_definitions' is not valid",
    ),
    "optional as a string": (
        "optional = true",
        'optional = "yes"',
        43,
        "optional = 'yes' is not valid",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_reported_with_its_line(tree: Path, mistake: str) -> None:
    before, after, line, message = MISTAKES[mistake]
    assert before in GOOD
    write(tree, GOOD.replace(before, after, 1))
    with pytest.raises(ConfigurationError) as caught:
        load(tree)
    assert caught.value.message.startswith(f"{tree / 'csrc' / 'kernels.toml'}:{line}: {message}")
    assert caught.value.expected
