# SPDX-License-Identifier: Apache-2.0
"""Modules that the engine imports and that are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.engine import engine_imports

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("vllm/__init__.py", "vllm/a/b.py", "vllm/_kernels/loader.py")


def test_imports_are_found(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y.py").write_bytes(
        b"# \xe4\nimport vllm\nif 1:\n    from vllm.a.b import c\nimport vllm.d as e, os\n"
        b"from vllm import f\n# from vllm.g import h\nimport vllmx.i\n"
    )
    assert engine_imports.imported(tmp_path) == dict.fromkeys(
        ("vllm", "vllm.a.b", "vllm.d"), "x/y.py"
    )


def test_modules_that_somebody_has_are_no_differences() -> None:
    imports = dict.fromkeys(("vllm", "vllm.a", "vllm.a.b", "vllm._C", "vllm._kernels.loader"), "x")
    assert engine_imports.differences(imports, FILES, ["vllm/_C"], {}) == []


def test_a_missing_module_is_named_unless_it_is_listed() -> None:
    imports = {"vllm.lost": "x.py", "vllm.lost.deep": "y.py", "vllm.losty": "z.py"}
    found = engine_imports.differences(imports, FILES, [], {"vllm.lost": "r", "vllm.a": "r"})
    assert found == [
        "z.py imports vllm.losty, which neither the engine nor this tree has",
        "vllm.a is in the list 'absent', but no import of it is missing",
    ]
