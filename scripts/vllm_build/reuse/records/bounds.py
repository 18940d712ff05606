# SPDX-License-Identifier: Apache-2.0
"""How large and how many: far above every build of these kernels, far below what would fill a machine."""

from __future__ import annotations

from vllm_build.reuse.records.refusal import RefusedError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
#: One extension library; the largest that anybody ships is half a GiB.
LIBRARY = 4 * GIB
#: All libraries of one output.
OUTPUT = 12 * GIB
LIBRARIES = 32
#: A record, and a store's entry of one digest.
DOCUMENT = MIB
#: A signed statement about one file, and a key.
STATEMENT = 16 * KIB
#: An archive's members, and the part of it that lists them.
MEMBERS = 100_000
DIRECTORY = 32 * MIB
#: An archive that is downloaded whole.
ARCHIVE = 12 * GIB
#: repodata.json of a channel.
REPODATA = 512 * MIB
#: Machine code shrinks to a third, tables to a twentieth; what shrinks to a two-hundredth is no
#: library.
RATIO = 200
#: Below this nothing is a bomb.
HARMLESS = MIB


def check_size(size: int, limit: int, where: str, what: str) -> None:
    """Refuse what is larger than ``limit`` bytes.

    Raises:
        RefusedError: it is.
    """
    if not 0 <= size <= limit:
        raise RefusedError(
            "size-limit", where, f"{what} has {size} bytes", expected=f"at most {limit}"
        )


def check_ratio(size: int, packed: int, where: str, what: str) -> None:
    """Refuse what unpacks to more than code and data do.

    Raises:
        RefusedError: ``packed`` bytes would become an implausible ``size``.
    """
    if size > HARMLESS and size > packed * RATIO:
        raise RefusedError(
            "compression-ratio",
            where,
            f"{what} unpacks from {packed} to {size} bytes",
            expected=f"at most {RATIO} to 1",
        )
