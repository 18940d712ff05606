# SPDX-License-Identifier: Apache-2.0
"""A small, good table of kernels, and the files that it lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def write(tree: Path, text: str) -> None:
    """Write a table of kernels into the tree."""
    (tree / "csrc" / "kernels.toml").write_text(text, encoding="utf-8")


def make_tree(folder: Path) -> Path:
    """Write the table and its files into ``folder``; returns the folder."""
    for name in FILES:
        path = folder / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    write(folder, GOOD)
    return folder
