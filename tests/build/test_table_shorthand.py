# SPDX-License-Identifier: Apache-2.0
"""The short forms of the table of kernels: their meaning, and the line of every mistake."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.architectures import gpu_targets
from vllm_build.digests import kernel_inputs
from vllm_build.kernels import kernels_table
from vllm_build.kernels.table_shorthand import expand_braces
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.toml import loads

if TYPE_CHECKING:
    from pathlib import Path

SHORT = """\
archs.new = { cuda = "9.0a 12.0f", rocm = "gfx90a" }

group.host = { extension = "vllm._C", devices = ["cpu"], libraries = ["hwy"] }
group.unit.extension = "vllm._C"
group.unit.devices = ["cuda"]
group.unit.archs = "new"
group.unit.sets = ["full"]
group.unit.set_definitions.check = ["FEW"]
group.unit.set_definitions.dev = ["SOME"]

kernel = [
  # A comment with { in it.
  { name = "norm-cpu", group = "host", sources = ["norm/{a,b}_cpu.cc"] },
  { name = "norm-all", group = "unit", sources = [
    "norm/{a,b}.cu",
    "norm/c{,_d}.cc",
  ] },
  { name = "norm-dev", group = "unit", sets = ["dev", "full"], memory = "heavy", \
sources = ["norm/e.cu"] },
  { name = "norm-few", group = "unit", sets = ["check", "dev"], archs = { cuda = "8.0" }, \
sources = ["norm/f.cu"] },
  { name = "norm-host", group = "unit", sources = ["norm/g.cc"], definitions = ["X"] },
]

[[extension]]
name = "vllm._C"
component = "vllm-kernels"
sources = ["module{,_more}.cc"]
"""
LONG = """\
[[extension]]
name = "vllm._C"
component = "vllm-kernels"
sources = ["module.cc", "module_more.cc"]

[[kernel]]
name = "norm-cpu"
extension = "vllm._C"
devices = ["cpu"]
sources = ["norm/a_cpu.cc", "norm/b_cpu.cc"]
libraries = ["hwy"]

[[kernel]]
name = "norm-all"
extension = "vllm._C"
devices = ["cuda"]
sources = ["norm/a.cu", "norm/b.cu", "norm/c.cc", "norm/c_d.cc"]
archs = { cuda = "9.0a 12.0f" }
sets = ["full"]

[[kernel]]
name = "norm-dev"
extension = "vllm._C"
devices = ["cuda"]
sources = ["norm/e.cu"]
archs = { cuda = "9.0a 12.0f" }
memory = "heavy"
sets = ["dev", "full"]
set_definitions = { dev = ["SOME"] }

[[kernel]]
name = "norm-few"
extension = "vllm._C"
devices = ["cuda"]
sources = ["norm/f.cu"]
archs = { cuda = "8.0" }
sets = ["check", "dev"]
set_definitions = { check = ["FEW"], dev = ["SOME"] }

# It has no GPU code: the architectures of its group have no effect.
[[kernel]]
name = "norm-host"
extension = "vllm._C"
devices = ["cuda"]
sources = ["norm/g.cc"]
definitions = ["X"]
sets = ["full"]
"""
FILES = (
    "module.cc",
    "module_more.cc",
    *(f"norm/{name}" for name in ("a_cpu.cc", "b_cpu.cc", "c.cc", "c_d.cc", "g.cc")),
)
GPU_FILES = tuple(f"norm/{name}.cu" for name in "abef")

#: Extension -> numbers of kernels, units of the tree and third-party units. Update them with the
#: table.
COUNTS = {
    "vllm._C": (37, 104, 0),
    "vllm.cumem_allocator": (2, 6, 0),
    "vllm._moe_C": (3, 7, 0),
    "vllm._rocm_C": (4, 10, 0),
    "vllm._flashmla_C": (2, 5, 0),
    "vllm.vllm_flash_attn._vllm_fa2_C": (9, 13, 48),
    "vllm.vllm_flash_attn._vllm_fa3_C": (11, 15, 102),
    "vllm._C_stable_libtorch": (27, 0, 120),
    "vllm._moe_C_stable_libtorch": (5, 0, 36),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES + GPU_FILES:
        path = tmp_path / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    return tmp_path


def write(tree: Path, text: str) -> Path:
    path = tree / kernels_table.TABLE
    path.write_text(text, encoding="utf-8")
    return path


def test_a_short_table_is_the_long_one(tree: Path) -> None:
    path = write(tree, SHORT)
    short, data = kernels_table.load(tree), kernels_table.read(path)[1].data
    write(tree, LONG)
    assert short == kernels_table.load(tree)
    # The digests are equal, too, because they cover the expanded records.
    assert data == loads(LONG)


@pytest.mark.parametrize(
    ("before", "after", "line", "message"),
    [
        ('group = "host"', 'group = "cpu"', 13, "no group is named 'cpu'"),
        ('group = "host"', "group = 3", 13, "group = 3 is not valid"),
        ('archs = "new"', 'archs = "old"', 14, "no archs is named 'old'"),
        ('archs = { cuda = "8.0" }', 'archs = "newer"', 19, "no archs is named 'newer'"),
        (
            '"norm/{a,b}.cu"',
            '"norm/{a,b.cu"',
            15,
            "'norm/{a,b.cu' in 'sources' has braces without a choice",
        ),
        (
            '"norm/{a,b}.cu"',
            '"norm/{a}.cu"',
            15,
            "'norm/{a}.cu' in 'sources' has braces without a choice",
        ),
        ('"norm/c{,_d}.cc"', '"norm/c{,_z}.cc"', 16, "source 'norm/c_z.cc' does not exist"),
        ('"norm/c{,_d}.cc"', '"norm/{b,a}.cu"', 16, "'norm/b.cu' is listed twice in 'sources'"),
        ('memory = "heavy"', 'memory = "vast"', 18, "memory = 'vast' is not valid"),
        ('memory = "heavy"', "libary = 3", 18, "unknown key 'libary' in [[kernel]]"),
        ('libraries = ["hwy"]', "libraries = 3", 3, "libraries = 3 is not valid"),
        ('libraries = ["hwy"]', 'libary = ["hwy"]', 3, "unknown key 'libary' in [[kernel]]"),
        ('libraries = ["hwy"]', 'sources = ["a.cc"]', 3, "'sources' in the group 'host'"),
        (
            'group.unit.devices = ["cuda"]',
            'group.unit.devices = ["tpu"]',
            5,
            "'tpu' in 'devices' is not known",
        ),
        ('group.unit.devices = ["cuda"]', 'group.unit.name = "x"', 5, "'name' in the group 'unit'"),
        ("group.host = {", "group.host = 3 # {", 3, "group = {"),
        (
            'archs.new = { cuda = "9.0a 12.0f"',
            'archs.new = { cuda = "9.1"',
            6,
            "there is no GPU architecture 9.1",
        ),
        (
            '"module{,_more}.cc"',
            '"module{,_less}.cc"',
            26,
            "source 'module_less.cc' does not exist",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_line(
    tree: Path, before: str, after: str, line: int, message: str
) -> None:
    assert SHORT.count(before) == 1
    path = write(tree, SHORT.replace(before, after))
    with pytest.raises(ConfigurationError) as caught:
        kernels_table.load(tree)
    assert caught.value.message.startswith(f"{path}:{line}: {message}")
    assert caught.value.expected


def test_a_group_may_have_a_header_of_its_own(tree: Path) -> None:
    text = SHORT.replace(
        'group.host = { extension = "vllm._C", devices = ["cpu"], libraries = ["hwy"] }\n', ""
    )
    header = '\n[group.host]\nextension = "vllm._C"\ndevices = ["cpu"]\nlibraries = ["hwy"]\n'
    write(tree, SHORT)
    expected = kernels_table.load(tree)
    # Dotted keys and a header cannot extend the same table, so the other group gets a header, too.
    dotted = [line for line in text.splitlines() if line.startswith("group.unit.")]
    rest = "\n".join(line for line in text.splitlines() if not line.startswith("group."))
    unit = (
        "\n[group.unit]\n" + "\n".join(line.removeprefix("group.unit.") for line in dotted) + "\n"
    )
    path = write(tree, rest + header + unit)
    assert kernels_table.load(tree) == expected
    path.write_text(
        (rest + header + unit).replace('libraries = ["hwy"]', "libraries = 3"), encoding="utf-8"
    )
    line = (rest + header + unit).splitlines().index('libraries = ["hwy"]') + 1
    with pytest.raises(ConfigurationError, match=rf"kernels\.toml:{line}: libraries = 3"):
        kernels_table.load(tree)


WORDS = st.text("abc_/.", max_size=3)


@given(st.lists(st.lists(WORDS, min_size=2, max_size=3) | WORDS, max_size=4))
def test_braces_are_a_product_with_the_last_choice_fastest(parts: list[list[str] | str]) -> None:
    text = "".join(part if isinstance(part, str) else "{" + ",".join(part) + "}" for part in parts)
    choices = [[part] if isinstance(part, str) else part for part in parts]
    assert expand_braces(text) == ["".join(chosen) for chosen in itertools.product(*choices)]


@pytest.mark.parametrize(
    "text", ["{", "}", "a{b", "a}b", "{}", "{a}", "{a,b", "a,b}", "{a,{b,c}}", "{a,b}}", "{{a,b}"]
)
def test_braces_without_a_choice(text: str) -> None:
    with pytest.raises(ValueError, match=r"[{}]"):
        expand_braces(text)


def test_the_lists_of_the_tree_s_table_serve_the_default_list(root: Path) -> None:
    archs = loads((root / kernels_table.TABLE).read_text(encoding="utf-8"))["archs"]
    default = gpu_targets.default("cuda", None)
    assert archs["common"]["cuda"].split() == [entry.replace("9.0a", "9.0") for entry in default]
    assert archs["common"]["rocm"].split() == list(gpu_targets.default("rocm", None))
    # A list of architectures that several kernels share has a name.
    lists = [values["cuda"] for values in archs.values()]
    assert len(lists) == len(set(lists))
    inline = [
        record["archs"]["cuda"]
        for record in loads((root / kernels_table.TABLE).read_text(encoding="utf-8"))["kernel"]
        if isinstance(record.get("archs"), dict)
    ]
    assert len(inline) == len(set(inline))


def test_the_tree_s_table_has_as_many_units_as_before_it_had_short_forms(root: Path) -> None:
    table = kernels_table.load(root)
    kernels = {
        extension.name: [k for k in table.kernels if k.extension == extension.name]
        for extension in table.extensions
    }
    counts = {
        name: (
            len(ks),
            sum(len(k.sources) for k in ks),
            sum(len(k.third_party_sources) for k in ks),
        )
        for name, ks in kernels.items()
    }
    assert counts == COUNTS
    written = [
        entry
        for component in kernel_inputs.components(root)
        for entry in kernel_inputs.of(root, component)
        if "[kernel " in entry
    ]
    assert len(written) == sum(count[0] for count in COUNTS.values())
