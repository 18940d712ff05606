# SPDX-License-Identifier: Apache-2.0
"""The engine's platform plugin: which platform fits the installed kernels.

Upstream chooses a platform by the version of the distribution and by the drivers that it finds.
Here, the record of the installed kernels decides (:mod:`vllm._kernels.build_info`), so that one
package serves every device. The modules with the platforms import the engine; this one does not.
"""

from __future__ import annotations

from vllm._kernels import build_info
from vllm._kernels.engine import failure, orphans, sockets

#: Device of the kernels -> the platform that the engine imports.
PLATFORMS = {
    "cpu": "vllm._kernels.engine.cpu.KernelsCpuPlatform",
    "cuda": "vllm._kernels.engine.cuda.KernelsCudaPlatform",
    "rocm": "vllm._kernels.engine.rocm.KernelsRocmPlatform",
}


def device() -> str | None:
    """The device of the installed kernels; None without kernels.

    Raises:
        BuildInfoError: their record is damaged.
    """
    for record in build_info.installed():
        if record.component == "vllm-kernels":
            return record.device
    foreign = build_info.foreign()
    return foreign.device if foreign is not None else None


def platform() -> str | None:
    """The qualified name of the platform, for the entry point ``vllm.platform_plugins``.

    None if no kernels are installed, or none for a device that has a platform. The engine then
    looks for a platform itself.

    Raises:
        BuildInfoError: the kernels' record is damaged.
    """
    # Every process of the engine asks for its platform.
    failure.watch()
    orphans.watch()
    sockets.shorten()
    found = device()
    return PLATFORMS.get(found) if found else None
