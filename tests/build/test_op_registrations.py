# SPDX-License-Identifier: Apache-2.0
"""What the engine's C++ sources register is read as a compiler would read it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from vllm_build.kernels import op_table
from vllm_build.kernels.build_plan import Plan, PlannedExtension, PlannedKernel
from vllm_build.sources import engine_kernels, op_registrations
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = textwrap.dedent(
    """\
    #include "ops.h"
    STABLE_TORCH_LIBRARY_FRAGMENT(_C, ops) {
      ops.def(
          "first(Tensor  input,"
          " float scale=1.0) -> Tensor");
    #ifndef USE_ROCM
      ops.def("second(Tensor! out) -> ()");
      #ifdef SWITCH
      ops.def("third() -> ()");
      #else
      ops.def("fourth() -> ()");
      #endif
    #endif
      ops.def("by_function", &f);
    }

    STABLE_TORCH_LIBRARY_IMPL(_C, CUDA, ops) {
      ops.impl("first", TORCH_BOX(&first));
      ops.impl(
          "second",
          TORCH_BOX(&second));
    }
    TORCH_LIBRARY_EXPAND(CONCAT(TORCH_EXTENSION_NAME, _cache_ops), cache) {
      cache.def("fifth(int n) -> int");
    }
    """
)
FIRST = "_C::first(Tensor input, float scale=1.0) -> Tensor"
SECOND = "_C::second(Tensor! out) -> ()"
FIFTH = "_C_cache_ops::fifth(int n) -> int"


@pytest.mark.parametrize(
    ("defined", "more"),
    [
        (set(), [SECOND, "_C::fourth() -> ()"]),
        ({"SWITCH"}, [SECOND, "_C::third() -> ()"]),
        ({"SWITCH", "USE_ROCM"}, []),
    ],
)
def test_the_lines_that_the_preprocessor_keeps(defined: set[str], more: list[str]) -> None:
    found = op_registrations.read(op_registrations.compiled(SOURCE, defined), "_C")
    assert list(found.schemas) == [FIRST, *more, FIFTH]
    assert found.implementations == (("CUDA", "_C::first"), ("CUDA", "_C::second"))


def test_a_condition_for_a_compiler() -> None:
    kept = "#if CUDA_VERSION >= 12040\nint x;\n#else\nint y;\n#endif\n"
    assert op_registrations.compiled(kept, set()).split("\n") == ["int x;", "int y;"]
    for word in ("if CUDA_VERSION >= 12040", "ifdef A\n#elif B"):
        with pytest.raises(IntegrityError, match=r"line [23] .* registers an op"):
            op_registrations.compiled(f'#{word}\n  m.impl("f", g);\n#endif', set())


def plan_of(source: str) -> Plan:
    kernel = PlannedKernel(
        "k",
        (),
        ("SWITCH",),
        (),
        "ordinary",
        third_party=engine_kernels.NAME,
        third_party_sources=(source,),
    )
    return Plan("cuda", (PlannedExtension("vllm._C", "vllm-engine-kernels", (), (kernel,)),), ())


def test_ops_of_a_plan(tmp_path: Path) -> None:
    (tmp_path / "f.cu").write_text(SOURCE, encoding="utf-8")
    assert engine_kernels.ops(plan_of("f.cu"), tmp_path) == {
        "CUDA": (FIRST, SECOND),
        op_table.NO_KEY: ("_C::third() -> ()", FIFTH),
    }


def test_an_op_without_a_schema(tmp_path: Path) -> None:
    text = 'STABLE_TORCH_LIBRARY_IMPL(_C, CUDA, m) {\n  m.impl("g", TORCH_BOX(&g));\n}\n'
    (tmp_path / "g.cu").write_text(text, encoding="utf-8")
    with pytest.raises(IntegrityError, match="implement _C::g and define no such op"):
        engine_kernels.ops(plan_of("g.cu"), tmp_path)
