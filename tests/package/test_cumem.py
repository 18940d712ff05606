# SPDX-License-Identifier: Apache-2.0
"""Sleeping memory without its compiled part.

With the compiled part, it is tested in tests/build, with a replacement for CUDA's driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

REPORT = """
from vllm._kernels import cumem
print(cumem.cumem_available, "torch" in sys.modules)
for use in (
    cumem.CuMemAllocator.get_instance,
    lambda: cumem.create_and_map((0, 0, 0, 0)),
    lambda: cumem.unmap_and_release((0, 0, 0, 0)),
    lambda: cumem.get_pluggable_allocator(print, print),
    lambda: cumem.use_memory_pool_with_allocator(print, print).__enter__(),
):
    try:
        use()
    except ImportError as error:
        print(error.name, error)
print(cumem.CuMemAllocator.instance, "torch" in sys.modules)
"""


def test_it_can_be_imported_without_its_compiled_part(copy: Path, python: Run) -> None:
    done = python(copy, REPORT)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("False False", "None False")
    assert (
        len(
            [
                line
                for line in lines
                if line.startswith("vllm.cumem_allocator vllm.cumem_allocator cannot be imported (")
            ]
        )
        == 5
    )
    assert done.stdout.count("conda install 'vllm-kernels=*=cuda*'") == 5


def test_a_compiled_part_that_does_not_load(copy: Path, python: Run) -> None:
    for suffix in (".abi3.so", ".so"):
        (copy / "vllm" / f"cumem_allocator{suffix}").write_bytes(b"no ELF header")
    assert "cannot be imported (" in python(copy, REPORT).stdout
