# SPDX-License-Identifier: Apache-2.0
"""The choice of FlashAttention's version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels import build_info, loader

if TYPE_CHECKING:
    import torch

#: The version for devices that have no better one.
DEFAULT_FA_VERSION = 2
#: The version for GPUs of compute capability 9.0 only.
HOPPER = 3

_LIBRARIES = {2: "_vllm_fa2_C", HOPPER: "_vllm_fa3_C"}
_VERSIONS = (2, 3, 4)
_HOPPER_CAPABILITY = (9, 0)

#: Device index → whether version 3 runs there. Querying the device takes longer than calling a
#: kernel.
_hopper: dict[int, bool] = {}


def fa_version_unsupported_reason(
    fa_version: int, device: torch.device | int | None = None
) -> str | None:
    """Why ``device`` (default: the current one) cannot use a version; None if it can.

    Raises:
        ValueError: there is no such version.
    """
    if fa_version not in _VERSIONS:
        raise ValueError(
            f"there is no FlashAttention {fa_version!r}; the versions are "
            f"{', '.join(map(str, _VERSIONS))}"
        )
    library = _LIBRARIES.get(fa_version)
    if library is None:
        return (
            f"FlashAttention {fa_version} is not built: this release has versions "
            f"{' and '.join(map(str, _LIBRARIES))}"
        )
    if library not in loader.available():
        return (
            f"the library {library} is not installed: "
            f"{build_info.how_to_get(loader.LIBRARIES[library].component)}"
        )
    import torch  # noqa: PLC0415 - importing this module must not import torch

    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    major, minor = torch.cuda.get_device_capability(device)
    if fa_version == HOPPER and (major, minor) != _HOPPER_CAPABILITY:
        return f"FlashAttention 3 needs compute capability 9.0, this device has {major}.{minor}"
    if major < 8:  # noqa: PLR2004 - the first with the instructions that the kernels use
        return (
            "FlashAttention 2 needs compute capability 8.0 or newer, this device has "
            f"{major}.{minor}"
        )
    return None


def is_fa_version_supported(fa_version: int, device: torch.device | int | None = None) -> bool:
    """Whether ``device`` (default: the current one) can use a version of FlashAttention.

    Raises:
        ValueError: there is no such version.
    """
    return fa_version_unsupported_reason(fa_version, device) is None


def chosen(fa_version: int | None, q: torch.Tensor, *, slopes: bool) -> int:
    """Choose the version to run: the requested one, or the best one for the device.

    Args:
        fa_version: the version that the caller requested, or None.
        q: a tensor on the device.
        slopes: whether ALiBi slopes are given; only version 2 supports them.

    Raises:
        NotImplementedError: the requested version is not built.
        ValueError: there is no such version.
    """
    if fa_version is not None:
        if fa_version not in _LIBRARIES:
            raise NotImplementedError(fa_version_unsupported_reason(fa_version))
        return fa_version
    if slopes:
        return DEFAULT_FA_VERSION
    # The CPU has no version and gets the default: the op raises an error there.
    index = q.get_device()
    if index not in _hopper:
        _hopper[index] = index >= 0 and is_fa_version_supported(HOPPER, index)
    return HOPPER if _hopper[index] else DEFAULT_FA_VERSION
