# SPDX-License-Identifier: Apache-2.0
"""Makes wheels of the table in a second process, while the caller makes other builds.

Most builds of the channel use one processor. The two processes share the work through the records
of the channel and the lock of each build, as two runs of ``vllm-build toolchain`` do. If the second
one fails, the caller comes to the same build and reports the failure.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.native import machine_limits
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vllm_build.util.console import Console

#: Fewer wheels are made sooner than a second process starts.
LEAST = 8
#: The memory that two builds may take, in bytes.
_MEMORY = 4 << 30


def is_worthwhile(wheels: int) -> bool:
    """Whether a second process for this many wheels saves time on this machine."""
    cpus = min(limit.amount for limit in machine_limits.cpu_limits())
    memory = min((limit.amount for limit in machine_limits.memory_limits()), default=_MEMORY)
    return wheels >= LEAST and cpus > 1 and memory >= _MEMORY


@contextmanager
def running(
    root: Path, ids: Sequence[str], inherited: Mapping[str, str], console: Console
) -> Iterator[set[str]]:
    """Make builds in a second process while the block runs; an exception ends it.

    Args:
        root: the source tree.
        ids: the builds, in the order of making them.
        inherited: the variables that builds start from.
        console: gets the number of builds.

    Yields:
        A set that contains, after the block, the builds that the process has made.
    """
    there = set[str]()
    if not is_worthwhile(len(ids)):
        yield there
        return
    console.info(f"    a second process helps with {len(ids)} wheels")
    with tempfile.TemporaryDirectory() as folder:
        made, said = Path(folder, "made"), Path(folder, "said")
        made.touch()
        command = children.module("vllm_build.toolchain.second_child", str(root), str(made), *ids)
        with said.open("wb") as log:
            with children.Child(command, env=inherited, stdout=log, stderr=log) as child:
                yield there
            there.update(made.read_text(encoding="utf-8").split())
            if child.returncode:
                console.detail(said.read_text(encoding="utf-8", errors="replace"))
