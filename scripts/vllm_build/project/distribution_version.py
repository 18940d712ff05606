# SPDX-License-Identifier: Apache-2.0
"""Determines the version that is built (build contract, section 3).

This needs neither git nor torch nor a compiler.
"""

from __future__ import annotations

from email.parser import HeaderParser
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from vllm_build.target import device
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import read_text, write_if_changed

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.device import Target


def _checked(text: str, source: str) -> str:
    try:
        Version(text)
    except InvalidVersion as error:
        raise ConfigurationError(
            f"{source} contains {text!r}, which is not a version",
            expected="a version as PEP 440 defines it, such as 0.1.0",
            remedy=f"correct {source}",
        ) from error
    return text


def base_version(root: Path) -> str:
    """The version without a suffix: the content of ``VERSION``.

    It is the same in a clone, a tarball, an sdist and a conda work directory.

    Raises:
        ConfigurationError: the file is missing or contains no version.
    """
    path = root / "VERSION"
    try:
        text = read_text(path).strip()
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} does not exist", expected="one line with the base version"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"{path}: {reason}", expected="one line with the base version"
        ) from error
    return _checked(text, str(path))


def unpacked_version(root: Path) -> str | None:
    """The version of the source distribution that was unpacked to ``root``; None for other trees.

    Other trees are a clone, a tarball of one, or a conda work directory. A source distribution has
    its metadata in ``PKG-INFO`` in its root. A repository to which an unpacked one was committed
    counts as a clone.

    Raises:
        ConfigurationError: ``PKG-INFO`` cannot be read, or contains no version.
    """
    path = root / "PKG-INFO"
    if (root / ".git").exists() or not path.exists():
        return None
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"{path}: {reason}", expected="the metadata of a source distribution"
        ) from error
    return _checked(str(HeaderParser().parsestr(text).get("Version", "")), str(path))


def _digits(version: Version) -> str:
    """All digits of major and minor, joined: 12.9 is ``129``, 12.10 is ``1210``."""
    return f"{version.major}{version.minor}"


def suffix(settings: Settings, device: str, toolkit_version: Version | None = None) -> str:
    """The local part of the version of a build for ``device``; empty for CUDA's main release.

    Metadata may be requested on a machine without a toolkit. CUDA then counts as its main release,
    and ROCm's suffix has no digits.
    """
    if device == "cuda":
        if settings.precompiled and not settings.skip_precompiled_version_suffix:
            return "precompiled"
        if (
            toolkit_version is None
            or toolkit_version.release[:2] == settings.main_cuda_version.release[:2]
        ):
            return ""
        return f"cu{_digits(toolkit_version)}"
    if device == "rocm" and toolkit_version is not None:
        return f"rocm{_digits(toolkit_version)}"
    return device


def full_version(
    root: Path,
    settings: Settings,
    device_name: str,
    toolkit_version: Version | None = None,
    sdist: bool = False,  # noqa: FBT001, FBT002 - one switch, named by every caller
    base: str | None = None,
) -> str:
    """The version of a distribution, as its wheels have it.

    A build of an unpacked source distribution has that distribution's version for every device: pip
    and uv refuse a wheel if its version differs from that of the source distribution.
    ``VLLM_VERSION_SUFFIX=1`` adds the suffix nevertheless.

    Args:
        root: the source tree.
        settings: the settings; ``VLLM_VERSION_OVERRIDE`` takes precedence over everything else.
        device_name: the device of the build.
        toolkit_version: the release of the CUDA or ROCm toolkit, else of the one that torch was
            built with.
        sdist: the distribution is a source distribution, which has no suffix because it is for
            every device.
        base: the version without a suffix; None means that of the tree.

    Raises:
        ConfigurationError: the base version or ``VLLM_VERSION_OVERRIDE`` is malformed.
    """
    if settings.version_override:
        return _checked(settings.version_override, "VLLM_VERSION_OVERRIDE")
    unpacked = unpacked_version(root) if base is None else None
    base = unpacked or (base_version(root) if base is None else _checked(base, "the base version"))
    if sdist or settings.skip_version_suffix or (unpacked and not settings.version_suffix):
        return base
    mark = suffix(settings, device_name, toolkit_version)
    return f"{base}{'.' if '+' in base else '+'}{mark}" if mark else base


def of_tree(
    root: Path, settings: Settings, target: Target | None = None, *, sdist: bool = False
) -> str:
    """The version of a build of this tree on this machine.

    Args:
        root: the source tree.
        settings: the settings.
        target: the target of the build; None resolves it if the version depends on it.
        sdist: the distribution is a source distribution, which is for every device.

    Raises:
        ConfigurationError: a version is malformed, or the device contradicts the installed torch.
        ToolchainError: the device's toolkit is broken.
    """
    kept = unpacked_version(root) is not None and not settings.version_suffix
    if sdist or settings.version_override or settings.skip_version_suffix or kept:
        return full_version(root, settings, "empty", sdist=sdist)
    found = target or device.resolve(settings)
    return full_version(root, settings, found.name, found.release)


#: The folder of the file with the kernels' version, in a build with the engine.
KERNELS_FOLDER = "vllm/_kernels"


def write_version_file(
    root: Path,
    version: str,
    *,
    folder: str = "vllm",
    parts: bool = False,
) -> None:
    """Write ``vllm/_version.py``, unless its content is correct already.

    The version is normalised as packaging tools do for metadata (``1.0RC1`` becomes ``1.0rc1``), so
    that both are equal.

    Args:
        root: the folder that contains ``vllm``.
        version: the version.
        folder: the file's folder, relative to ``root``.
        parts: whether to write ``__version_tuple__``, too, which the engine reads.
    """
    normal = Version(version)
    text = (
        '# SPDX-License-Identifier: Apache-2.0\n"""Generated by the build."""\n\n'
        f'__version__ = "{normal}"\n'
    )
    if parts:
        numbers = (*normal.release, normal.local) if normal.local else normal.release
        text += f"__version_tuple__ = {numbers!r}\n"
    write_if_changed(root / folder / "_version.py", text)
