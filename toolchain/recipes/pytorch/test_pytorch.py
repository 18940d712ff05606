# SPDX-License-Identifier: Apache-2.0
"""The installed PyTorch computes, and everything it loads comes from this environment."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional
from packaging.requirements import Requirement
from torch.utils import cpp_extension

prefix = Path(os.environ["PREFIX"]).resolve()

a = torch.arange(6, dtype=torch.float32).reshape(2, 3)
assert torch.equal(a @ a.T, torch.tensor([[5.0, 14.0], [14.0, 50.0]]))
assert np.array_equal(a.numpy() + 1, (a + 1).numpy())
assert torch.nn.functional.silu(a.to(torch.bfloat16)).dtype == torch.bfloat16
assert "OpenMP" in torch.__config__.parallel_info()

mapped = {
    line.split(maxsplit=5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines() if len(line.split(maxsplit=5)) == 6
}
libraries = {Path(name) for name in mapped if ".so" in name}
for wanted in ("libtorch_cpu.so", "libtorch_python.so", "libgomp.so.1", "libstdc++.so.6"):
    found = {path for path in libraries if path.name.startswith(wanted)}
    assert len(found) == 1, f"{wanted}: {sorted(map(str, found))}"
    assert prefix in next(iter(found)).resolve().parents, f"{found} is not from {prefix}"

for text in importlib.metadata.requires("torch") or ():
    requirement = Requirement(text)
    wanted_here = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if wanted_here and not requirement.name.startswith(("nvidia-", "cuda-", "triton")):
        assert importlib.metadata.version(requirement.name) in requirement.specifier, text

for folder in cpp_extension.include_paths():
    assert Path(folder).is_dir(), folder
assert Path(cpp_extension.include_paths()[0], "torch", "csrc", "stable", "library.h").is_file()
assert Path(cpp_extension.library_paths()[0], "libtorch_cpu.so").is_file()
assert Path(torch.utils.cmake_prefix_path, "Torch", "TorchConfig.cmake").is_file()
print(torch.__version__, "on", sys.version.split()[0])
