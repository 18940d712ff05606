# SPDX-License-Identifier: Apache-2.0
"""Checks that the installed PyTorch computes on the CPU with this environment's libraries only.

It must not find a GPU.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import torch.profiler
from packaging.requirements import Requirement
from torch.nn import functional
from torch.utils import cpp_extension

prefix = Path(os.environ["PREFIX"]).resolve()

a = torch.arange(6, dtype=torch.float32).reshape(2, 3)
assert torch.equal(a @ a.T, torch.tensor([[5.0, 14.0], [14.0, 50.0]]))
assert np.array_equal(a.numpy() + 1, (a + 1).numpy())
assert functional.silu(a.to(torch.bfloat16)).dtype == torch.bfloat16
assert "OpenMP" in torch.__config__.parallel_info()

# Attention and a bfloat16 layer, compared with plain steps in double precision.
generator = torch.Generator().manual_seed(0)
query, key, value = (
    torch.randn(2, 4, 33, 64, generator=generator, dtype=torch.float64) for _ in range(3)
)
expected = torch.softmax(query @ key.transpose(-1, -2) / 8, -1) @ value
for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
    got = functional.scaled_dot_product_attention(
        *(tensor.to(dtype) for tensor in (query, key, value))
    )
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)
layer = torch.nn.Linear(64, 32, dtype=torch.float64)
got = layer.to(torch.bfloat16)(query.to(torch.bfloat16))
torch.testing.assert_close(
    got.double(), query @ layer.weight.double().T + layer.bias.double(), rtol=3e-2, atol=3e-2
)
torch.testing.assert_close(
    torch.linalg.inv(a @ a.T + torch.eye(2)) @ (a @ a.T + torch.eye(2)), torch.eye(2)
)

# PyTorch finds no GPU and reports that with its usual message.
assert not torch.cuda.is_available()
assert torch.cuda.device_count() == 0
assert torch.version.cuda is None
message = ""
try:
    torch.zeros(1, device="cuda")
except RuntimeError as error:
    message = str(error)
assert "Found no NVIDIA driver" in message, message
torch.manual_seed(1)
with torch.profiler.profile() as profile:
    a.sum()
assert any(event.key == "aten::sum" for event in profile.key_averages())
mapped = {
    line.split(maxsplit=5)[5].strip()
    for line in Path("/proc/self/maps").read_text().splitlines()
    if len(line.split(maxsplit=5)) == 6
}
libraries = {Path(name) for name in mapped if ".so" in name}
for wanted in (
    "libtorch_cpu.so",
    "libtorch_python.so",
    "libcudart.so.",
    "libgomp.so.1",
    "libstdc++.so.6",
):
    found = {path for path in libraries if path.name.startswith(wanted)}
    assert len(found) == 1, f"{wanted}: {sorted(map(str, found))}"
    assert prefix in next(iter(found)).resolve().parents, f"{found} is not from {prefix}"

for text in importlib.metadata.requires("torch") or ():
    requirement = Requirement(text)
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        assert importlib.metadata.version(requirement.name) in requirement.specifier, text

# RECORD has the hashes of the files that were changed after the wheel was installed.
for file in importlib.metadata.files("torch") or ():
    if file.name in ("METADATA", "version.py") and file.hash is not None:
        data = file.locate().read_bytes()
        assert len(data) == file.size
        assert (
            base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            == file.hash.value
        ), file

for folder in cpp_extension.include_paths():
    assert Path(folder).is_dir(), folder
assert Path(cpp_extension.include_paths()[0], "torch", "csrc", "stable", "library.h").is_file()
assert Path(cpp_extension.library_paths()[0], "libtorch_cpu.so").is_file()
assert Path(torch.utils.cmake_prefix_path, "Torch", "TorchConfig.cmake").is_file()
print(torch.__version__, "on", sys.version.split()[0])
