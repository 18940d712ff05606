# SPDX-License-Identifier: Apache-2.0
"""Which version is being built (build contract, section 3).

Needs neither git nor torch nor a compiler.
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
            f"{source} holds {text!r}, which is not a version",
            expected="a version as PEP 440 defines it, such as 0.1.0",
            remedy=f"correct {source}",
        ) from error
    return text


def base_version(root: Path) -> str:
    """The version without a suffix: the content of ``VERSION``, the same in a clone, a tarball, an sdist and a conda work directory.

    Raises:
        ConfigurationError: the file is missing or holds no version.
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
    """The version of the source distribution that was unpacked to ``root``; None for a clone, a tarball of one, or a conda work directory.

    A source distribution has its metadata in ``PKG-INFO`` in its root. A repository that has
    committed an unpacked one counts as a clone.

    Raises:
        ConfigurationError: ``PKG-INFO`` cannot be read, or holds no version.
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
    """Major and minor run together, with all digits of both: 12.9 is ``129``, 12.10 is ``1210``."""
    return f"{version.major}{version.minor}"


def suffix(settings: Settings, device: str, toolkit_version: Version | None = None) -> str:
    """What marks a build for ``device`` in the local part of a version; empty for CUDA's main release.

    Without any toolkit (metadata is asked for where nothing can be compiled) CUDA counts as its
    main release, and ROCm has no digits.
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
    """The version of a distribution, as wheels carry it.

    Args:
        root: the source tree.
        settings: the environment; ``VLLM_VERSION_OVERRIDE`` wins over everything.
        device_name: what is built for.
        toolkit_version: release of the CUDA or ROCm toolkit, else of the one that torch was built
            with.
        sdist: a source distribution is for every device: no suffix.
        base: the version without a suffix; None asks the tree for it.

    An unpacked source distribution keeps its version for every device, unless
    ``VLLM_VERSION_SUFFIX=1`` asks for the suffix: pip and uv refuse a wheel whose version differs
    from that of the source distribution it was built from.

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
    """The version of a build here and now.

    Args:
        root: the source tree.
        settings: the environment.
        target: what the build is for; None looks for it, and only where it can make a difference.
        sdist: a source distribution is for every device.

    Raises:
        ConfigurationError: a version is malformed, or the device contradicts the installed torch.
        ToolchainError: the device's toolkit is broken.
    """
    kept = unpacked_version(root) is not None and not settings.version_suffix
    if sdist or settings.version_override or settings.skip_version_suffix or kept:
        return full_version(root, settings, "empty", sdist=sdist)
    found = target or device.resolve(settings)
    return full_version(root, settings, found.name, found.release)


def write_version_file(root: Path, version: str) -> None:
    """Write ``vllm/_version.py``; nothing is touched when it says the same already.

    The version is spelled as packaging tools spell it in metadata (``1.0RC1`` is ``1.0rc1``), so
    that both are equal.
    """
    version = str(Version(version))
    path = root / "vllm" / "_version.py"
    text = (
        '# SPDX-License-Identifier: Apache-2.0\n"""Generated by the build."""\n\n'
        f'__version__ = "{version}"\n'
    )
    write_if_changed(path, text)
