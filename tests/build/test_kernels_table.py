# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version
from table_scene import GOOD, make_tree, write

from vllm_build.kernels import kernels_table
from vllm_build.kernels.kernel_records import Extension, Kernel
from vllm_build.kernels.kernels_table import load
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


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
    # Third-party GPU code needs architectures, too.
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
    with pytest.raises(ConfigurationError, match=r"kernels\.toml is not UTF-8"):
        load(tree)
