# SPDX-License-Identifier: Apache-2.0
"""The loader.

Changes of torch's dispatcher cannot be undone, so most tests use new interpreters.
"""

from __future__ import annotations

import shutil
import sysconfig
from typing import TYPE_CHECKING

import pytest

from vllm._kernels import conflicts, loader

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

REPORT = """
from vllm._kernels import loader
try:
    loader.load()
    import torch
    print("loaded", hasattr(torch.ops._C, "silu_and_mul"))
except ImportError as error:
    print(type(error).__name__, error.name, error.path)
    print(error)
"""


@pytest.fixture
def torch_here() -> None:
    pytest.importorskip("torch", reason="torch is not installed here")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder without libraries, which replaces the real one."""
    monkeypatch.setattr(loader, "_PACKAGE", tmp_path)
    monkeypatch.setattr(loader, "_loaded", {})
    return tmp_path


def test_available_lists_files_and_imports_nothing(empty: Path) -> None:
    assert loader.available() == frozenset()
    (empty / "_moe_C.abi3.so").touch()
    (empty / "vllm_flash_attn").mkdir()
    (empty / "vllm_flash_attn" / "_vllm_fa2_C.so").touch()
    (empty / "_unknown_C.abi3.so").touch()
    (empty / "_C.abi3.so").mkdir()  # a folder, not a file
    assert loader.available() == {"_moe_C", "_vllm_fa2_C"}


def test_the_interpreters_own_kind_comes_first(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {empty / "_C.abi3.so", empty / "_C.so"}
    for path in both:
        path.touch()
    for free_threaded, first in ((1, "_C.so"), (0, "_C.abi3.so"), (None, "_C.abi3.so")):
        monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": free_threaded}.get)
        found = loader._find(loader.LIBRARIES["_C"])
        assert found == empty / first
        found.unlink()
        assert (
            loader._find(loader.LIBRARIES["_C"]) == (both - {found}).pop()
        )  # the other kind works as well
        found.touch()


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="vllm has no library '_D'; it knows _C, _moe_C"):
        loader.load("_D")


def test_missing_in_an_installation(copy: Path, python: Run) -> None:
    lines = python(copy, REPORT).stdout.splitlines()
    assert lines[0].startswith(f"ImportError vllm._C {copy / 'vllm' / '_C.'}")
    assert {f"  {copy / 'vllm' / name}" for name in ("_C.abi3.so", "_C.so")} < set(lines)
    assert (
        lines[-2]
        == "Install the kernels of this release for your device: conda install vllm-kernels"
    )
    assert "cpu_" in lines[-1]


def test_missing_in_a_source_tree(copy: Path, python: Run) -> None:
    (copy / "VERSION").write_text("0.1.0\n")
    text = python(copy, REPORT).stdout
    assert f"This vllm is a source tree. Build it with: pip install -e {copy}\n" in text
    assert "conda install" not in text


def test_every_library_names_its_package(empty: Path) -> None:
    for name, component in (
        ("_C", "vllm-kernels"),
        ("_vllm_fa3_C", "vllm-flash-attn"),
        ("_flashmla_C", "vllm-flashmla"),
    ):
        library = loader.LIBRARIES[name]
        assert library.component == component
        assert str(empty) in str(loader._missing(library))


def test_an_absent_namespace_complains_when_it_is_used(empty: Path) -> None:
    absent = loader.namespace("_C")
    with pytest.raises(ImportError, match=f"_C is not installed. Looked for:\n  {empty}"):
        absent.silu_and_mul()


def test_without_torch(copy: Path, python: Run) -> None:
    (copy / "vllm" / "_C.abi3.so").write_bytes(b"never read")
    done = python(copy, "sys.modules['torch'] = None\n" + REPORT)
    assert done.stdout.splitlines()[0] == "ImportError torch None"
    assert "conda install pytorch" in done.stdout


@pytest.mark.usefixtures("torch_here")
def test_a_file_that_is_no_library(copy: Path, python: Run) -> None:
    (copy / "vllm" / "_C.abi3.so").write_bytes(b"no ELF header")
    text = python(copy, REPORT).stdout
    assert text.startswith(
        f"ImportError vllm._C {copy / 'vllm' / '_C.abi3.so'}\nthe dynamic linker cannot load "
    )
    assert "torch here is " in text


@pytest.mark.usefixtures("torch_here")
def test_torch_older_than_the_kernels_ask_for(
    copy: Path, python: Run, write_record: Callable[..., Path]
) -> None:
    (copy / "vllm" / "_C.abi3.so").write_bytes(b"never read")
    write_record(copy / "vllm", torch_target="99.10")
    text = python(copy, REPORT).stdout
    assert (
        f"{copy / 'vllm' / '_C.abi3.so'} needs torch >= 99.10; this environment has torch " in text
    )


@pytest.mark.usefixtures("torch_here")
def test_torch_releases_compare_as_numbers(
    copy: Path, python: Run, write_record: Callable[..., Path]
) -> None:
    (copy / "vllm" / "_C.abi3.so").write_bytes(b"no ELF header")
    write_record(copy / "vllm", torch_target="2.9")
    assert "the dynamic linker cannot load" in python(copy, REPORT).stdout


@pytest.mark.usefixtures("torch_here")
def test_a_damaged_record(copy: Path, python: Run, write_record: Callable[..., Path]) -> None:
    (copy / "vllm" / "_C.abi3.so").write_bytes(b"never read")
    write_record(copy / "vllm", torch_target=None)
    assert (
        "the kernels' record is damaged, install vllm-kernels again: "
        in python(copy, REPORT).stdout
    )


@pytest.mark.usefixtures("torch_here")
def test_ops_defined_by_python_code_are_in_the_way(copy: Path, python: Run) -> None:
    (copy / "vllm" / "_C.abi3.so").write_bytes(b"\0silu_and_mul(Tensor! out, Tensor input) -> ()\0")
    text = python(
        copy,
        "import torch\ntorch.library.define('_C::silu_and_mul', '(Tensor x) -> ()')\n" + REPORT,
    ).stdout
    assert (
        "already has definitions of _C::silu_and_mul.\nThey come from Python code (torch.library)"
        in text
    )


@pytest.mark.usefixtures("torch_here")
def test_other_ops_in_the_same_namespace_are_not(copy: Path, python: Run) -> None:
    (copy / "vllm" / "_C.abi3.so").write_bytes(
        b"\0my_silu_and_mul(Tensor! out, Tensor input) -> ()\0"
    )
    text = python(
        copy,
        "import torch\ntorch.library.define('_C::silu_and_mul', '(Tensor x) -> ()')\n" + REPORT,
    ).stdout
    # The check of conflicts has passed; the file is not a library.
    assert "the dynamic linker cannot load" in text


def test_a_package_of_links_is_looked_at_where_it_appears(
    copy: Path, python: Run, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    for source in sorted((copy / "vllm").rglob("*.py")):
        target = linked / source.relative_to(copy)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    (linked / "vllm" / "_C.abi3.so").touch()
    code = (
        "from vllm._kernels import build_info, loader; "
        "print(*loader.available(), build_info.DIRECTORY)"
    )
    assert python(linked, code).stdout == f"_C {linked}/vllm/_build_info\n"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"op(Tensor x)", ["op"]),
        (b"\0op(\0other(", ["op", "other"]),
        (b"an_op( 1op( Xop(", []),
        (b"an_op(\0::op(", ["op"]),
        (b"op \0 opp( op", []),
        (b"", []),
    ],
)
def test_schemas_are_found_as_whole_words(tmp_path: Path, data: bytes, found: list[str]) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(data)
    assert conflicts.defines(path, ["op", "other"]) == found
    path.unlink()
    assert conflicts.defines(path, ["op"]) == []


def install(library: Path, site: Path) -> Path:
    target = site / "vllm" / library.name
    shutil.copy(library, target)
    return target


def test_loads_from_any_folder(library: Path, copy: Path, python: Run) -> None:
    install(library, copy)
    done = python(
        copy, REPORT + "print(loader.load('_C') == loader.load() == {'_C'}, loader.loaded())"
    )
    assert (
        done.stdout == f"loaded True\nTrue {{'_C': PosixPath('{copy / 'vllm' / library.name}')}}\n"
    ), done.stderr


def test_a_second_library_with_the_same_ops_is_refused(
    library: Path, copy: Path, python: Run, tmp_path: Path
) -> None:
    install(library, copy)
    other = tmp_path / "other_vllm" / "_C_stable.so"
    other.parent.mkdir()
    shutil.copy(library, other)
    done = python(copy, f"import torch\ntorch.ops.load_library({str(other)!r})\n" + REPORT)
    assert done.returncode == 0, done.stderr  # an abort would be -6
    assert (
        f"cannot load {copy / 'vllm' / library.name}: this process already has definitions of _C::"
        in done.stdout
    )
    assert f"They come from {other}.\n" in done.stdout


def test_our_kernels_and_the_engines_in_one_installation(
    library: Path, copy: Path, python: Run
) -> None:
    """As after ``conda install --no-deps``."""
    first = install(library, copy)
    second = first.with_name("_C_stable_libtorch.abi3.so")
    shutil.copy(library, second)
    done = python(copy, "from vllm._kernels import loader\nloader.load()")
    assert f"cannot load {second}: this process already has definitions of _C::" in done.stderr
    assert f"They come from {first}.\n" in done.stderr
    assert "Both are in one installation, which a solver refuses: install vllm again" in done.stderr
    assert done.returncode == 1, done.stderr  # an abort would be -6


def test_the_same_file_loaded_by_somebody_else_is_not_second(
    library: Path, copy: Path, python: Run, tmp_path: Path
) -> None:
    path = install(library, copy)
    link = tmp_path / "link.so"
    link.symlink_to(path)
    done = python(copy, f"import torch\ntorch.ops.load_library({str(link)!r})\n" + REPORT)
    assert done.stdout == "loaded True\n", done.stderr


def test_a_reloaded_module_loads_again(library: Path, copy: Path, python: Run) -> None:
    install(library, copy)
    again = (
        "\nimport importlib; importlib.reload(loader); print(loader.loaded()); "
        "print(sorted(loader.load()))"
    )
    assert python(copy, REPORT + again).stdout == "loaded True\n{}\n['_C']\n"


def test_threads_may_race(library: Path, copy: Path, python: Run) -> None:
    install(library, copy)
    code = """
import threading
from vllm._kernels import loader
barrier, seen = threading.Barrier(8), []
def work():
    barrier.wait()
    seen.append(loader.load())
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
print(set(seen))
"""
    assert python(copy, code).stdout == "{frozenset({'_C'})}\n"


ALL = """
import torch
from vllm._kernels import loader
loader.load()
done, missing = [], []
for name in torch._C._dispatch_get_all_op_names():
    if name.startswith(("_C::", "_C_cache_ops::", "_moe_C::")):
        schemas = torch._C._jit_get_schemas_for_operator(name.partition(".")[0])
        arguments = [str(argument.type) for schema in schemas for argument in schema.arguments]
        # A handle of packed weights is a number: such calls are made before a graph is traced.
        results = [str(returned.type) for schema in schemas for returned in schema.returns]
        if any("Tensor" in type for type in arguments) and set(results) <= {"Tensor"}:
            has = torch._C._dispatch_has_kernel_for_dispatch_key(name, "Meta")
            (done if has else missing).append(name)
print(len(done), missing)
"""


def test_every_op_with_tensors_is_known_to_torch_compile(
    library: Path, copy: Path, python: Run
) -> None:
    install(library, copy)
    done = python(copy, ALL)
    count, _, missing = done.stdout.partition(" ")
    assert int(count or 0) >= 50, done.stderr
    assert missing == "[]\n"
