# SPDX-License-Identifier: Apache-2.0
"""Finds the compiled libraries of this package and loads them into torch's dispatcher.

The libraries register their ops when the dynamic linker loads them. They are not imported as Python
modules, so the same ``.abi3.so`` serves interpreters with and without the GIL. Loading a library
twice is harmless. Loading *another* library that defines the same ops aborts the process;
:mod:`vllm._kernels.conflicts` detects that first.
"""

from __future__ import annotations

import functools
import re
import sysconfig
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm._kernels import build_info, conflicts, pins
from vllm._kernels.platforms import host

#: Links are not followed: some package managers link each file into a store, which does not contain
#: the libraries of other packages.
_PACKAGE = Path(__file__).absolute().parents[1]


@dataclass(frozen=True)
class Library:
    """A library that this package can load.

    Attributes:
        name: file name without suffix; :func:`load` takes it.
        folder: folder of the file, relative to the package.
        component: the conda package that contains it.
        namespaces: namespaces of ``torch.ops`` that its ops are in.
    """

    name: str
    folder: str
    component: str
    namespaces: tuple[str, ...]


LIBRARIES = {
    library.name: library
    for library in (
        # In CPU builds, _C contains the MoE ops; other builds have a separate library.
        Library(
            "_C",
            ".",
            "vllm-kernels",
            ("_C", "_C_cache_ops", "_C_cuda_utils", "_C_custom_ar", "_moe_C"),
        ),
        Library("_moe_C", ".", "vllm-kernels", ("_moe_C",)),
        Library("_rocm_C", ".", "vllm-kernels", ("_rocm_C",)),
        # The engine's own kernels have the ops that the two above then lack.
        Library(
            "_C_stable_libtorch",
            ".",
            "vllm-engine-kernels",
            ("_C", "_C_cache_ops", "_C_cuda_utils", "_C_custom_ar"),
        ),
        Library("_moe_C_stable_libtorch", ".", "vllm-engine-kernels", ("_moe_C",)),
        Library("_vllm_fa2_C", "vllm_flash_attn", "vllm-flash-attn", ("_vllm_fa2_C",)),
        Library("_vllm_fa3_C", "vllm_flash_attn", "vllm-flash-attn", ("_vllm_fa3_C",)),
        Library("_flashmla_C", ".", "vllm-flashmla", ("_flashmla_C",)),
    )
}

_lock = threading.RLock()
_loaded: dict[str, Path] = {}


@functools.cache  # called for every library and namespace
def _foreign() -> build_info.Foreign | None:
    """The official wheel whose libraries are installed instead of ours, or None."""
    try:
        return build_info.foreign()
    except build_info.BuildInfoError as error:
        raise ImportError(
            "the record of the official wheel is damaged, build or install the kernels again: "
            f"{error}"
        ) from error


def _candidates(library: Library) -> tuple[Path, ...]:
    """Possible files of a library, best first.

    A build for this interpreter's ABI comes first; the other kind loads as well.
    """
    if (foreign := _foreign()) is not None:
        found = foreign.libraries.get(library.name)
        return (_PACKAGE.parent / found.file,) if found else ()
    suffixes = (
        (".so", ".abi3.so") if sysconfig.get_config_var("Py_GIL_DISABLED") else (".abi3.so", ".so")
    )
    return tuple(_PACKAGE / library.folder / f"{library.name}{suffix}" for suffix in suffixes)


def _find(library: Library) -> Path | None:
    return next((path for path in _candidates(library) if path.is_file()), None)


def _known(name: str) -> Library:
    try:
        return LIBRARIES[name]
    except KeyError:
        raise ValueError(f"vllm has no library {name!r}; it knows {', '.join(LIBRARIES)}") from None


def available() -> frozenset[str]:
    """Names of the installed libraries, loaded or not. Imports nothing."""
    return frozenset(name for name, library in LIBRARIES.items() if _find(library))


def loaded() -> dict[str, Path]:
    """The libraries that this process has loaded, with their files."""
    return dict(_loaded)


def _missing(library: Library) -> ImportError:
    if (foreign := _foreign()) is not None:
        return ImportError(
            f"the kernels here are those of {foreign.distribution}, which has no library for "
            f"{library.name}.\n"
            f"Build this tree to get it: pip install -e {_PACKAGE.parent}",
            name=f"vllm.{library.name}",
        )
    lines = [f"vllm's kernel library {library.name} is not installed. Looked for:"]
    lines += [f"  {path}" for path in _candidates(library)]
    if (_PACKAGE.parent / "VERSION").is_file():
        lines.append(f"This vllm is a source tree. Build it with: pip install -e {_PACKAGE.parent}")
        lines.append(
            "(VLLM_TARGET_DEVICE=cpu selects the CPU kernels), or start Python in another folder "
            "to import an installed vllm."
        )
    else:
        lines.append(
            "Install the kernels of this release for your device: conda install "
            f"{library.component}"
        )
        if library.component == "vllm-kernels":
            lines.append(
                'The solver selects the build that fits the machine; "vllm-kernels=*=cpu_*" '
                "requests the CPU build."
            )
    return ImportError(
        "\n".join(lines), name=f"vllm.{library.name}", path=str(_candidates(library)[0])
    )


def _torch_floor(library: Library) -> str | None:
    """The lowest torch release, ``major.minor``, that the installed ``library`` supports.

    None if no record contains it.
    """
    try:
        records = build_info.installed()
    except build_info.BuildInfoError as error:
        raise ImportError(
            f"the kernels' record is damaged, install {library.component} again: {error}"
        ) from error
    return next(
        (record.torch_target for record in records if record.component == library.component), None
    )


def _check_foreign(library: Library, path: Path) -> None:
    """Refuse libraries of an official wheel that would end the process.

    They work with one torch release and only on some processors.

    Raises:
        ImportError: torch or the processor does not fit.
    """
    import torch  # noqa: PLC0415 - `import vllm` must not import torch

    foreign = _foreign()
    if foreign is None:
        return
    found = foreign.libraries[library.name]
    why = ""
    if foreign.torch is not None and torch.__version__.partition("+")[0] != foreign.torch:
        why = f"needs exactly torch {foreign.torch}; this environment has torch {torch.__version__}"
    elif lacking := found.cpu_flags - host.cpu_flags():
        why = f"needs a processor with {', '.join(sorted(lacking))}; this is {host.cpu_model()}"
    if why:
        raise ImportError(
            f"{path}, which comes from {foreign.distribution}, {why}.\n"
            "Build this tree instead, which supports every torch and every processor: pip install "
            f"-e {_PACKAGE.parent}",
            name=f"vllm.{library.name}",
            path=str(path),
        )


def _check_torch(library: Library, path: Path) -> None:
    import torch  # noqa: PLC0415 - `import vllm` must not import torch

    floor = _torch_floor(library)
    release = re.match(r"([0-9]+)\.([0-9]+)", torch.__version__)
    wanted = re.fullmatch(r"([0-9]+)\.([0-9]+)", floor) if floor else None
    if release and wanted and tuple(map(int, release.groups())) < tuple(map(int, wanted.groups())):
        raise ImportError(
            f"{path} needs torch >= {floor}; this environment has torch {torch.__version__}.\n"
            f"Install a newer one: conda install 'pytorch>={floor}'",
            name=f"vllm.{library.name}",
            path=str(path),
        )


def _differs(library: Library) -> str | None:
    """How the library's component differs from the one that vllm requires; None if unknown."""
    try:
        record = next(
            (record for record in build_info.installed() if record.component == library.component),
            None,
        )
    except build_info.BuildInfoError as error:
        return str(error)
    return pins.mismatch(record.component, record.version, record.kernel_digest) if record else None


def _load(library: Library) -> None:
    path = _find(library)
    if path is None:
        raise _missing(library)
    try:
        import torch  # noqa: PLC0415 - `import vllm` must not import torch

        from vllm._kernels import fakes  # noqa: PLC0415 - imports torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "vllm's ops need torch, which is not installed: conda install pytorch, or pip install "
            "torch",
            name="torch",
        ) from error
    _check_foreign(library, path)
    _check_torch(library, path)
    conflicts.refuse_second_definition(library.name, library.namespaces, path)
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        differs = _differs(library)
        raise ImportError(
            f"the dynamic linker cannot load {path}: {error}\n"
            f"torch here is {torch.__version__}. A missing symbol or library means that this torch "
            "and the kernels do not fit together: install both from one channel."
            + (f"\nThese kernels are not those that vllm requires:\n{differs}" if differs else ""),
            name=f"vllm.{library.name}",
            path=str(path),
        ) from error
    # The engine's modules register some fakes of their own.
    engine = (_PACKAGE / "engine").is_dir()
    fakes.register(library.namespaces, fakes.ENGINES if engine else frozenset())
    _loaded[library.name] = path


def load(*names: str) -> frozenset[str]:
    """Load libraries by name, or all installed ones.

    Libraries that are already loaded are skipped. The function is thread-safe.

    Args:
        names: keys of :data:`LIBRARIES`; without names, every installed library is loaded.

    Returns:
        The names of all loaded libraries.

    Raises:
        ImportError: a library is not installed (without names: no library is), torch is missing or
            too old, the file does not load, or another library in this process defines the same
            ops.
        ValueError: a name is unknown.
    """
    wanted = (
        [_known(name) for name in names]
        or [LIBRARIES[name] for name in sorted(available())]
        or [LIBRARIES["_C"]]
    )
    with _lock:
        for library in wanted:
            if library.name not in _loaded:
                _load(library)
        return frozenset(_loaded)


class _Absent:
    """An op namespace without a library: the first use of an op raises an error."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def __getattr__(self, op: str) -> Any:
        raise _missing(self._library)


class _Partial:
    """An op namespace with ops that cannot be called: using one raises the reason."""

    def __init__(self, name: str, ops: Any, foreign: build_info.Foreign) -> None:
        self._name, self._ops, self._foreign = name, ops, foreign

    def __getattr__(self, op: str) -> Any:
        reason = self._foreign.unusable.get(f"{self._name}::{op}")
        if reason is not None:
            raise ImportError(
                f"{self._name}::{op} cannot be called: the kernels here are those of "
                f"{self._foreign.distribution}, and {reason}.\n"
                f"Build this tree to get it: pip install -e {_PACKAGE.parent}"
            )
        return getattr(self._ops, op)


def namespace(name: str) -> Any:
    """``torch.ops.<name>``, after loading the installed libraries that define its ops.

    If no such library is installed, the error is raised when an op is used, not here. Code that
    only mentions an op can therefore be imported anywhere.

    Raises:
        ImportError: see :func:`load`.
        ValueError: no library registers ops under ``name``.
    """
    libraries = [library for library in LIBRARIES.values() if name in library.namespaces]
    if not libraries:
        known = sorted({space for library in LIBRARIES.values() for space in library.namespaces})
        raise ValueError(f"vllm has no ops in {name!r}; it knows {', '.join(known)}")
    installed = [library.name for library in libraries if _find(library)]
    if not installed:
        return _Absent(libraries[0])
    load(*installed)
    import torch  # noqa: PLC0415 - loaded by now

    ops, foreign = getattr(torch.ops, name), _foreign()
    return _Partial(name, ops, foreign) if foreign is not None and foreign.unusable else ops
