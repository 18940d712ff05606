# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from types import ModuleType


def load_version() -> ModuleType:
    """The tree's ``vllm/version.py``: an installed package may have the engine's in its place."""
    path = Path(__file__).resolve().parents[2] / "vllm" / "version.py"
    spec = importlib.util.spec_from_file_location("version_of_the_tree", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


version = load_version()


def test_generated_version_wins(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (copy / "VERSION").write_text("9.9\n")
    done = python(copy, "import vllm; print(vllm.__version__, vllm.__version_tuple__)")
    assert done.stdout == "1.2.3+test (1, 2, 3, 'test')\n"


def test_import_is_cheap(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    code = (
        "import vllm, vllm._kernels.envs, vllm._kernels.platforms; "
        "vllm._kernels.platforms.current_platform; "
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = python(copy, code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_importing_the_ops_imports_no_torch_until_there_is_a_library(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert (
        python(copy, "import vllm._kernels.ops; print('torch' in sys.modules)").stdout == "False\n"
    )


def test_source_tree_is_marked(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("0.4.0\n")
    assert version._of_source_tree(tmp_path / "vllm") == "0.4.0+source"
    (tmp_path / "VERSION").write_text("0.4.0+mine")
    assert version._of_source_tree(tmp_path / "vllm") == "0.4.0+mine.source"


def test_incomplete_installation_says_what_to_do(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (copy / "vllm" / "_version.py").unlink()
    done = python(copy, "import vllm")
    assert done.returncode == 1
    assert f"ImportError: {copy / 'vllm'} has no _version.py" in done.stderr
    assert "pip install -e ." in done.stderr


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.1.0", (0, 1, 0)),
        ("0.1.0+cpu", (0, 1, 0, "cpu")),
        ("1.0rc1.dev3+cu129.x", (1, "0rc1", "dev3", "cu129", "x")),
    ],
)
def test_parts(text: str, parts: tuple[int | str, ...]) -> None:
    assert version._parts(text) == parts


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_release_numbers_compare_as_numbers(numbers: list[int]) -> None:
    assert version._parts(".".join(map(str, numbers))) == tuple(numbers)
