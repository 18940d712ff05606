# SPDX-License-Identifier: Apache-2.0
"""Limits on sizes and counts in untrusted input.

Each limit is far above any build of these kernels and far below what would exhaust a machine.
"""

from __future__ import annotations

from vllm_build.reuse.records.refusal import RefusedError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
#: One extension library. The largest published one has half a GiB.
LIBRARY = 4 * GIB
#: All libraries of one output.
OUTPUT = 12 * GIB
LIBRARIES = 32
#: A record, and a store's entry of one digest.
DOCUMENT = MIB
#: A signed statement about one file, and a key.
STATEMENT = 16 * KIB
#: The number of an archive's members, and the size of its directory.
MEMBERS = 100_000
DIRECTORY = 32 * MIB
#: An archive that is downloaded whole.
ARCHIVE = 12 * GIB
#: repodata.json of a channel.
REPODATA = 512 * MIB
#: Machine code compresses to a third of its size and tables to a twentieth. Nothing that compresses
#: to a two-hundredth is a library.
RATIO = 200
#: Smaller files need no check of the ratio.
HARMLESS = MIB


def check_size(size: int, limit: int, where: str, what: str) -> None:
    """Refuse more than ``limit`` bytes.

    Raises:
        RefusedError: ``size`` exceeds ``limit``, or is negative.
    """
    if not 0 <= size <= limit:
        raise RefusedError(
            "size-limit", where, f"{what} has {size} bytes", expected=f"at most {limit}"
        )


def check_ratio(size: int, packed: int, where: str, what: str) -> None:
    """Refuse a compression ratio that code and data cannot have.

    Raises:
        RefusedError: ``packed`` bytes would unpack to an implausible ``size``.
    """
    if size > HARMLESS and size > packed * RATIO:
        raise RefusedError(
            "compression-ratio",
            where,
            f"{what} unpacks from {packed} to {size} bytes",
            expected=f"at most {RATIO} to 1",
        )
