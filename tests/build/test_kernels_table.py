# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build.kernels import kernels_table
from vllm_build.kernels.kernels_table import Extension, Kernel, load
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
# a comment with [[kernel]] and sources = in it
[[extension]]
name = "vllm._C"
component = "vllm-kernels"
sources = ["module.cc"]

[[kernel]]
name = "norm-cpu"
extension = "vllm._C"
devices = ["cpu"]
sources = [
  "norm/norm_cpu.cc", # [[kernel]]
  "norm/binding.cc",
]
definitions = ["VLLM_NORM_CPU"]
libraries = ["hwy"]

[[kernel]]
name = "norm-gpu"
extension = "vllm._C"
devices = ["cuda", "rocm"]
sources = ["norm/norm.cu", "norm/binding.cc"]
definitions = ["VLLM_NORM_GPU"]
archs = { cuda = "8.0 9.0a+PTX", rocm = "gfx90a" }

[[extension]]
name = "vllm._D"
component = "vllm-kernels"
sources = ["module.cc"]
devices = ["cuda"]
needs_arch = { cuda = ">=8.0" }
min_toolkit = { cuda = "12.3" }
torch = false

[[kernel]]
name = "extra"
extension = "vllm._D"
devices = ["cuda"]
sources = ["extra/gone.cu"]
archs = { cuda = "12.0f" }
min_toolkit = { cuda = "12.9" }
memory = "heavy"
optional = true
"""
FILES = ("module.cc", "norm/norm_cpu.cc", "norm/binding.cc", "norm/norm.cu")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    write(tmp_path, GOOD)
    return tmp_path


def write(tree: Path, text: str) -> None:
    (tree / "csrc" / "kernels.toml").write_text(text, encoding="utf-8")


def test_records_are_typed(tree: Path) -> None:
    table = load(tree)
    assert table.path == tree / "csrc" / "kernels.toml"
    assert table.extensions == (
        Extension("vllm._C", "vllm-kernels", ("csrc/module.cc",)),
        Extension(
            "vllm._D",
            "vllm-kernels",
            ("csrc/module.cc",),
            ("cuda",),
            {"cuda": ">=8.0"},
            {"cuda": Version("12.3")},
            torch=False,
        ),
    )
    assert table.kernels == (
        Kernel(
            "norm-cpu",
            "vllm._C",
            ("cpu",),
            ("csrc/norm/norm_cpu.cc", "csrc/norm/binding.cc"),
            ("hwy",),
            "ordinary",
            definitions=("VLLM_NORM_CPU",),
        ),
        Kernel(
            "norm-gpu",
            "vllm._C",
            ("cuda", "rocm"),
            ("csrc/norm/norm.cu", "csrc/norm/binding.cc"),
            (),
            "ordinary",
            {"cuda": ("8.0", "9.0a+PTX"), "rocm": ("gfx90a",)},
            definitions=("VLLM_NORM_GPU",),
        ),
        Kernel(
            "extra",
            "vllm._D",
            ("cuda",),
            ("csrc/extra/gone.cu",),
            (),
            "heavy",
            {"cuda": ("12.0f",)},
            {"cuda": Version("12.9")},
            optional=True,
            missing=("csrc/extra/gone.cu",),
        ),
    )


def test_sources_of_a_third_party(tree: Path) -> None:
    more = (
        'third_party = "flash-attention"\nthird_party_sources = ["src/a.cu", "src/b.cu"]\n'
        'definitions = ["A_B", "C=1"]\nsets = ["full"]\n'
    )
    write(tree, GOOD + more)
    extra = load(tree).kernels[-1]
    assert (extra.third_party, extra.third_party_sources) == (
        "flash-attention",
        ("src/a.cu", "src/b.cu"),
    )
    assert (extra.definitions, extra.sets) == (("A_B", "C=1"), ("full",))
    assert extra.set_definitions == {}
    write(
        tree,
        GOOD
        + more.replace('["full"]', '["dev", "full"]\nset_definitions = { dev = ["A", "B=2"] }'),
    )
    assert load(tree).kernels[-1].set_definitions == {"dev": ("A", "B=2")}
    # GPU code of a third party is GPU code: it makes the architectures necessary.
    only = GOOD.replace('sources = ["extra/gone.cu"]', 'sources = ["extra/gone.cc"]') + more
    write(tree, only)
    assert load(tree).kernels[-1].archs == {"cuda": ("12.0f",)}


def test_libraries_may_share_sources(tree: Path) -> None:
    write(tree, GOOD.replace('sources = ["extra/gone.cu"]', 'sources = ["norm/norm.cu"]'))
    assert load(tree).kernels[-1].sources == load(tree).kernels[1].sources[:1]


def test_the_tree_s_own_table_lists_every_source(root: Path) -> None:
    table = load(root)
    records: list[Extension | Kernel] = [*table.extensions, *table.kernels]
    listed = {source for record in records for source in record.sources}
    assert listed == {
        path.relative_to(root).as_posix() for path in (root / "csrc").rglob("*.c[cu]")
    }


def test_libraries_may_share_a_source(tree: Path) -> None:
    (tree / "csrc" / "kernels.toml").write_text(
        GOOD.replace('["extra/gone.cu"]', '["extra/gone.cu", "norm/binding.cc"]'), encoding="utf-8"
    )
    shared = "csrc/norm/binding.cc"
    assert [kernel.name for kernel in load(tree).kernels if shared in kernel.sources] == [
        "norm-cpu",
        "norm-gpu",
        "extra",
    ]


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
        "'norm/norm_cpu.cc' stands twice in 'sources'",
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
        'memory = "huge"',
        23,
        "memory = 'huge' is not valid",
    ),
    "no archs": ('archs = { cuda = "12.0f" }\n', "", 35, "no archs for cuda"),
    "no archs for one device": (', rocm = "gfx90a"', "", 24, "no archs for rocm"),
    "archs for no GPU": (
        'rocm = "gfx90a"',
        'cpu = "avx2"',
        24,
        "'cpu' in 'archs' is no GPU device of this record",
    ),
    "archs of host code": (
        'libraries = ["hwy"]',
        'archs = { cpu = "avx2" }',
        16,
        "'cpu' in 'archs' is no GPU device of this record",
    ),
    "archs without GPU code": (
        '"norm/norm.cu", ',
        "",
        24,
        "archs without a .cu source have no effect",
    ),
    "arch that is none": ('"8.0 9.0a+PTX"', '"8.0 90a"', 24, "'90a' is no GPU architecture"),
    "arch that does not exist": (
        '"8.0 9.0a+PTX"',
        '"8.0 9.1"',
        24,
        "there is no GPU architecture 9.1",
    ),
    "processor that is none": ('"gfx90a"', '"mi300"', 24, "'mi300' is no AMD GPU architecture"),
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
        "'cpu' in 'needs_arch' is no GPU device of this record",
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
        "cuda 11.8 is what every build has",
    ),
    "toolkit as a number": ('{ cuda = "12.9" }', "12.9", 41, "min_toolkit = 12.9 is not valid"),
    "torch as a string": ("torch = false", 'torch = "no"', 33, "torch = 'no' is not valid"),
    "a project without sources": (
        "memory =",
        'third_party = "x"\nmemory =',
        42,
        "a project without sources, or sources without one",
    ),
    "sources without a project": (
        "memory =",
        'third_party_sources = ["a.cu"]\nmemory =',
        42,
        "a project without sources, or sources without one",
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[extension]\n", "kernels.toml: "),
        ("", "kernels.toml:1: the table has no [[extension]] records"),
        ("extension = 3\n", "kernels.toml:1: the table has no [[extension]] records"),
        ("kernel = []\nextension = [3]\n", "kernels.toml:2: extension is not a record"),
        (GOOD[: GOOD.index("[[kernel]]\nname")], "the table has no [[kernel]] records"),
    ],
)
def test_what_is_no_table(tree: Path, text: str, message: str) -> None:
    write(tree, text)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load(tree)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"kernels\.toml: No such file"):
        load(tmp_path)


LINES = st.sampled_from(
    [
        *GOOD.splitlines(),
        "[[kernel]]",
        "[extension]",
        "name = 3",
        "sources = []",
        'group = "x"',
        "group.x.archs = 3",
        "archs = 1",
        '  { name = "x", group = "x", sources = ["{a,b}{"] },',
        "kernel = [",
        "]",
        '"',
        "kernel = 1",
        "[kernel.x]",
        "x.y = 1",
    ]
)


@given(st.lists(LINES, max_size=30).map("\n".join) | st.text(max_size=60))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
def test_any_text_is_a_table_or_a_configuration_error(tree: Path, text: str) -> None:
    write(tree, text.encode("utf-8", "replace").decode())
    try:
        table = load(tree)
    except ConfigurationError as error:
        table, message = None, error.message
    else:
        message = ""
    assert (table is None) == message.startswith(str(tree / kernels_table.TABLE))


def test_not_utf8(tree: Path) -> None:
    (tree / kernels_table.TABLE).write_bytes(b'name = "\xff"\n')
    with pytest.raises(ConfigurationError, match=r"kernels\.toml: is not UTF-8"):
        load(tree)
