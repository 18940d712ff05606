# SPDX-License-Identifier: Apache-2.0
"""The reader of code objects that the tests of the ROCm packages use."""

from __future__ import annotations

import struct

import code_objects
import pytest
from code_objects import Kernel

NOTES = """Displaying notes found in: .note
  Owner                Data size \tDescription
  AMDGPU               0x000002ef\tNT_AMDGPU_METADATA (AMDGPU Metadata)
    AMDGPU Metadata:
        ---
amdhsa.kernels:
  - .agpr_count:     0
    .args:
      - .name:           value
        .offset:         0
        .size:           424
    .private_segment_fixed_size: 0
    .symbol:         _Z5FirstPf.kd
    .uses_dynamic_stack: false
    .vgpr_spill_count: 0
    .wavefront_size: 64
  - .args:           []
    .private_segment_fixed_size: 36
    .symbol:         _Z6SecondPf.kd
    .uses_dynamic_stack: true
    .vgpr_spill_count: 9
    .wavefront_size: 32
amdhsa.target:   amdgcn-amd-amdhsa--gfx90a
amdhsa.version:
  - 1
  - 2
...
"""


def bundle(content: bytes, version: int = 3) -> bytes:
    return b"CCOB" + struct.pack("<HHQ", version, 1, 16 + len(content)) + content


def test_the_metadata_of_kernels() -> None:
    assert code_objects.read_notes(NOTES) == (
        Kernel("_Z5FirstPf.kd", scratch=0, spills=0, stack=False, wave=64),
        Kernel("_Z6SecondPf.kd", scratch=36, spills=9, stack=True, wave=32),
    )
    assert code_objects.read_notes("amdhsa.kernels:  []\namdhsa.version:\n  - 1\n") == ()


def test_metadata_without_a_field_is_no_kernel_without_scratch() -> None:
    with pytest.raises(AssertionError, match="vgpr_spill_count"):
        code_objects.read_notes(NOTES.replace("    .vgpr_spill_count: 9\n", ""))


def test_bundles_between_padding() -> None:
    first, second = bundle(b"CCOB inside"), bundle(b"x" * 100)
    section = first + bytes(37) + second + bytes(5)
    assert code_objects.split_bundles(section) == [first, second]
    with pytest.raises(AssertionError, match="2"):
        code_objects.split_bundles(bundle(b"", version=2))
