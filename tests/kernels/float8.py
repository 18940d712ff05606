# SPDX-License-Identifier: Apache-2.0
"""The float8 formats of the device under test."""

from __future__ import annotations

import os

import torch


def find_e4m3() -> torch.dtype:
    """The dtype of E4M3: ``float8_e4m3fnuz`` on gfx942 and its siblings."""
    if os.environ.get("KERNEL_TEST_DEVICE") == "cuda":
        from vllm.platforms import current_platform

        found: torch.dtype = current_platform.fp8_dtype()
        return found
    emulated = os.environ.get("KERNEL_TEST_ARCHITECTURE", "")
    return torch.float8_e4m3fnuz if emulated.startswith("gfx94") else torch.float8_e4m3fn


E4M3 = find_e4m3()
FNUZ = torch.float8_e4m3fnuz == E4M3
#: E4M3 of other devices, which is an error.
FOREIGN = torch.float8_e4m3fn if FNUZ else torch.float8_e4m3fnuz
#: In messages of errors.
NAME, FOREIGN_NAME = (str(kind).replace("torch.f", "F") for kind in (E4M3, FOREIGN))
#: The end of the message about a tensor of dtype FOREIGN.
REFUSED = f"is of dtype {FOREIGN_NAME}, expected {NAME}, the format of this device"
#: The largest numbers, at which results saturate.
LARGEST = {E4M3: 240.0 if FNUZ else 448.0, torch.float8_e5m2: 57344.0}
#: The numbers at which a scale that an op finds puts the largest magnitude.
SCALED = {E4M3: 224.0 if FNUZ else 448.0, torch.float8_e5m2: 57344.0}
