# SPDX-License-Identifier: Apache-2.0
"""Which version of FlashAttention runs where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm import _ops, build_info

if TYPE_CHECKING:
    import torch

#: What runs where the device has nothing better.
DEFAULT_FA_VERSION = 2
#: Written for GPUs of one compute capability.
HOPPER = 3

_LIBRARIES = {2: "_vllm_fa2_C", HOPPER: "_vllm_fa3_C"}
_VERSIONS = (2, 3, 4)
_HOPPER_CAPABILITY = (9, 0)

#: Whether version 3 runs on a device: index → answer. Asking the device takes longer than calling a
#: kernel.
_hopper: dict[int, bool] = {}


def fa_version_unsupported_reason(
    fa_version: int, device: torch.device | int | None = None
) -> str | None:
    """Why a version of FlashAttention cannot be used on ``device`` (default: the current one); None when it can.

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
    if library not in _ops.available():
        return (
            f"the library {library} is not installed: "
            f"{build_info.how_to_get(_ops.LIBRARIES[library].component)}"
        )
    import torch  # noqa: PLC0415 - only here does anything need it

    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    major, minor = torch.cuda.get_device_capability(device)
    if fa_version == HOPPER and (major, minor) != _HOPPER_CAPABILITY:
        return f"FlashAttention 3 needs compute capability 9.0, this device has {major}.{minor}"
    if major < 8:  # noqa: PLR2004 - the first with what the kernels are written with
        return (
            "FlashAttention 2 needs compute capability 8.0 or newer, this device has "
            f"{major}.{minor}"
        )
    return None


def is_fa_version_supported(fa_version: int, device: torch.device | int | None = None) -> bool:
    """Whether a version of FlashAttention can be used on ``device`` (default: the current one).

    Raises:
        ValueError: there is no such version.
    """
    return fa_version_unsupported_reason(fa_version, device) is None


def chosen(fa_version: int | None, q: torch.Tensor, *, slopes: bool) -> int:
    """The version that runs: the one that was asked for, or the device's best.

    Args:
        fa_version: what the caller named, if anything.
        q: where the work is.
        slopes: whether a bias by distance is added, which version 2 alone does.

    Raises:
        NotImplementedError: the version that was asked for is not built.
        ValueError: there is no such version.
    """
    if fa_version is not None:
        if fa_version not in _LIBRARIES:
            raise NotImplementedError(fa_version_unsupported_reason(fa_version))
        return fa_version
    if slopes:
        return DEFAULT_FA_VERSION
    # Also of the CPU, where there is no version: the op says so.
    index = q.get_device()
    if index not in _hopper:
        _hopper[index] = index >= 0 and is_fa_version_supported(HOPPER, index)
    return HOPPER if _hopper[index] else DEFAULT_FA_VERSION
