# SPDX-License-Identifier: Apache-2.0
"""Determines the device for which an installed torch was built.

It only looks at files: importing torch would be slow and could break a build. The evidence, best
first: the attributes of ``torch/version.py``; the local part of its version (``+cpu``, ``+cu130``,
``+rocm6.4``, ``+xpu``); the packages that its metadata requires; the libraries next to it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import re
import sys
import sysconfig
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Folders in which pip, `build` and uv make an environment for one build. The user did not choose a
#: torch there: the front end installed it for the build.
_BUILD_ENVIRONMENT = re.compile(r"pip-build-env-.*|build-env-.*|builds-v[0-9]+")
_LIBRARIES = {
    "cuda": ("libtorch_cuda.so", "libc10_cuda.so"),
    "rocm": ("libtorch_hip.so", "libc10_hip.so"),
    "xpu": ("libtorch_xpu.so",),
}
_REQUIRES = {
    "cuda": r"nvidia-|cuda-",
    "rocm": r"rocm\b|pytorch-triton-rocm|triton-rocm",
    "xpu": r"intel-sycl-rt|dpcpp-cpp-rt|pytorch-triton-xpu",
}


@dataclass(frozen=True)
class TorchFlavour:
    """An installed torch.

    Attributes:
        device: ``cuda``, ``rocm``, ``xpu`` or ``cpu``.
        version: torch's own version string; empty if it is unknown.
        toolkit_version: the CUDA or ROCm release that it was built with, if known.
        path: the folder of the package, or of its metadata, or the prefix of a libtorch without
            Python.
        temporary: it lies in an environment that a build front end made for this build.
        bare: it is a libtorch without its Python part, as in the host environment of a conda build,
            and is only compiled against.
    """

    device: str
    version: str
    toolkit_version: Version | None
    path: Path
    temporary: bool = False
    bare: bool = False

    def __str__(self) -> str:
        release = f" {self.toolkit_version}" if self.toolkit_version else ""
        return (
            f"torch {self.version or 'of unknown version'} built for {self.device}{release} in "
            f"{self.path}"
        )


def _release(text: str | None) -> Version | None:
    """The first two numbers of texts such as ``13.0`` and ``6.4.43483-a187df25c``."""
    match = re.match(r"([0-9]+)\.([0-9]+)", text or "")
    return Version(f"{match[1]}.{match[2]}") if match else None


def from_local(version: str) -> tuple[str, Version | None] | None:
    """The device and release in the local part of a version; None if it has none.

    CUDA's digits are joined, and the first two are the major release. This fails for ``cu92`` and
    similar releases, which no supported torch uses.
    """
    local = version.partition("+")[2]
    if match := re.match(r"cu([0-9][0-9])([0-9]+)(?![0-9])", local):
        return "cuda", Version(f"{match[1]}.{match[2]}")
    if match := re.match(r"rocm([0-9.]*)", local):
        return "rocm", _release(match[1])
    if match := re.match(r"(cpu|xpu)(?![a-z0-9])", local):
        return match[1], None
    return None


def _attributes(path: Path) -> dict[str, str | None]:
    """The assignments of constants in ``torch/version.py``; empty if it is missing or invalid."""
    try:
        module = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return {}
    found: dict[str, str | None] = {}
    for statement in module.body:
        targets = (
            statement.targets
            if isinstance(statement, ast.Assign)
            else [getattr(statement, "target", None)]
        )
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Constant) and (
            value.value is None or isinstance(value.value, str)
        ):
            found |= {target.id: value.value for target in targets if isinstance(target, ast.Name)}
    return found


def _from_attributes(values: dict[str, str | None]) -> tuple[str, Version | None] | None:
    if values.get("hip"):
        return "rocm", _release(values.get("rocm") or values["hip"])
    if values.get("xpu"):
        return "xpu", None
    if values.get("cuda"):
        return "cuda", _release(values["cuda"])
    return ("cpu", None) if "cuda" in values else None


def _from_libraries(folder: Path) -> tuple[str, Version | None] | None:
    for device, names in _LIBRARIES.items():
        if any((folder / name).exists() for name in names):
            return device, None
    return ("cpu", None) if (folder / "libtorch_cpu.so").exists() else None


def _from_requirements(
    distribution: importlib.metadata.Distribution,
) -> tuple[str, Version | None] | None:
    for line in distribution.requires or []:
        for device, pattern in _REQUIRES.items():
            if re.match(pattern, line, re.IGNORECASE):
                return device, None
    return None


def _is_temporary(path: Path) -> bool:
    return any(_BUILD_ENVIRONMENT.fullmatch(part) for part in path.parts)


def in_folder(site: Path) -> TorchFlavour | None:
    """The torch in one ``site-packages`` folder; None if it has neither package nor metadata."""
    package = site / "torch"
    distribution = next(
        iter(importlib.metadata.distributions(name="torch", path=[str(site)])), None
    )
    values = _attributes(package / "version.py")
    if distribution is None and not (package / "__init__.py").is_file() and not values:
        return None
    metadata = distribution.version if distribution is not None else ""
    version = values.get("__version__") or metadata
    found = (
        _from_attributes(values)
        or from_local(version)
        or from_local(metadata)
        or (distribution and _from_requirements(distribution))
        or _from_libraries(package / "lib")
        or ("cpu", None)
    )
    return TorchFlavour(
        found[0], version, found[1], package if package.is_dir() else site, _is_temporary(site)
    )


def in_prefix(prefix: Path) -> TorchFlavour | None:
    """The libtorch without Python part in a prefix; None if there is none.

    The host environment of a conda build has such a libtorch.
    """
    found = _from_libraries(prefix / "lib")
    if found is None:
        return None
    version = ""
    for path in sorted((prefix / "conda-meta").glob("libtorch-[0-9]*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            version = str(record["version"])
            build = str(record["build"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        match = re.match(r"cuda([0-9][0-9])([0-9]+)", build)
        if match and found[0] == "cuda":
            found = "cuda", Version(f"{match[1]}.{match[2]}")
        elif build.startswith("cpu"):
            # The channel's CPU package is made from the CUDA build and still has its libraries.
            found = "cpu", None
    return TorchFlavour(found[0], version, found[1], prefix, _is_temporary(prefix), bare=True)


def _sites(path: Sequence[str] | None) -> list[Path]:
    """Folders that may contain a torch: the import path, then this interpreter's site-packages.

    The latter matter in pip's isolated builds, which hide the environment into which the result
    will be installed.
    """
    sites = [Path(entry) for entry in (sys.path if path is None else path) if entry]
    if path is None:
        spec = (
            importlib.util.find_spec("torch")
            if "torch" not in sys.modules
            else PathFinder.find_spec("torch")
        )
        if spec is not None and spec.origin is not None:
            sites.insert(0, Path(spec.origin).parents[1])
        sites += [Path(sysconfig.get_path(name)) for name in ("platlib", "purelib")]
    return list(dict.fromkeys(sites))


def installed(
    path: Sequence[str] | None = None, prefixes: Sequence[Path] | None = None
) -> tuple[TorchFlavour, ...]:
    """Every torch that is found; the one that an import would find comes first.

    Args:
        path: the folders to search; None means this interpreter's import path and its
            ``site-packages``.
        prefixes: the prefixes to search for a libtorch without Python part; None means this
            interpreter's.
    """
    found = [flavour for site in _sites(path) if (flavour := in_folder(site))]
    if not found:
        found = [
            flavour
            for prefix in (prefixes if prefixes is not None else [Path(sys.prefix)])
            if (flavour := in_prefix(prefix))
        ]
    return tuple(found)
