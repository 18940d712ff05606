# SPDX-License-Identifier: Apache-2.0
"""What the tests of the allocator for ROCm run first, in a child process (``cumem_child``)."""

from __future__ import annotations

#: Chunks of 4 MiB, so that small allocations have several.
SMALL = {"VLLM_SLEEP_MEM_CHUNK_SIZE": "4"}
#: An allocation of three chunks, the last of which is smaller.
THREE = """
init()
address = malloc(9 * MIB)
handle = known[address]
assert [size for _, size in handle[3]] == [4 * MIB, 4 * MIB, 2 * MIB]
AWAKE = {"ranges": 1, "mapped": 3, "physical": 3, "bytes": 10 * MIB}
ASLEEP = {"ranges": 1, "mapped": 0, "physical": 0, "bytes": 0}
assert left() == AWAKE
TEXT = bytes(range(250)) * (10 * MIB // 250) + bytes(10 * MIB % 250)
"""
