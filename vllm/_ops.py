# SPDX-License-Identifier: Apache-2.0
"""Finds the compiled libraries beside this package and loads them into torch's dispatcher.

The libraries register their ops when the dynamic linker loads them; nothing is imported as a Python
module, so the same ``.abi3.so`` serves interpreters with and without the GIL. Loading one twice is
harmless. Loading *another* library that defines the same ops is not: libtorch throws inside a
static initialiser and the process aborts without a traceback. :func:`load` looks for that
beforehand and raises instead.
"""

from __future__ import annotations

import functools
import mmap
import re
import sysconfig
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm import _pins, build_info
from vllm.platforms import host

#: Links are not followed: some package managers link each file to a store of its own, where the
#: libraries of another package do not lie.
_PACKAGE = Path(__file__).absolute().parent


@dataclass(frozen=True)
class Library:
    """A library this package knows how to load.

    Attributes:
        name: file name without suffix, and the name users load it by.
        folder: where it lies, relative to the package.
        component: the conda package that brings it.
        namespaces: where in ``torch.ops`` its ops appear.
    """

    name: str
    folder: str
    component: str
    namespaces: tuple[str, ...]


LIBRARIES = {
    library.name: library
    for library in (
        # On the CPU the MoE ops live in _C; elsewhere in a library of their own.
        Library(
            "_C",
            ".",
            "vllm-kernels",
            ("_C", "_C_cache_ops", "_C_cuda_utils", "_C_custom_ar", "_moe_C"),
        ),
        Library("_moe_C", ".", "vllm-kernels", ("_moe_C",)),
        Library("_rocm_C", ".", "vllm-kernels", ("_rocm_C",)),
        Library("_vllm_fa2_C", "vllm_flash_attn", "vllm-flash-attn", ("_vllm_fa2_C",)),
        Library("_vllm_fa3_C", "vllm_flash_attn", "vllm-flash-attn", ("_vllm_fa3_C",)),
        Library("_flashmla_C", ".", "vllm-flashmla", ("_flashmla_C",)),
    )
}

_lock = threading.RLock()
_loaded: dict[str, Path] = {}


@functools.cache  # every library and every namespace asks
def _foreign() -> build_info.Foreign | None:
    """The official wheel whose libraries are here instead of ours."""
    try:
        return build_info.foreign()
    except build_info.BuildInfoError as error:
        raise ImportError(
            "the record of the official wheel is damaged, build or install the kernels again: "
            f"{error}"
        ) from error


def _candidates(library: Library) -> tuple[Path, ...]:
    """Where the library may lie, best first: a build for this very interpreter's ABI, then the other, which loads as well."""
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
    """Names of the libraries that are installed, loaded or not. Imports nothing."""
    return frozenset(name for name, library in LIBRARIES.items() if _find(library))


def loaded() -> dict[str, Path]:
    """The libraries that this process has loaded, each with its file."""
    return dict(_loaded)


def _missing(library: Library) -> ImportError:
    if (foreign := _foreign()) is not None:
        return ImportError(
            f"the kernels here are those of {foreign.distribution}, which has no library for "
            f"{library.name}.\n"
            f"Build this tree to have it: pip install -e {_PACKAGE.parent}",
            name=f"vllm.{library.name}",
        )
    lines = [f"vllm's kernel library {library.name} is not installed. Looked for:"]
    lines += [f"  {path}" for path in _candidates(library)]
    if (_PACKAGE.parent / "VERSION").is_file():
        lines.append(f"This vllm is a source tree. Build it with: pip install -e {_PACKAGE.parent}")
        lines.append(
            "(VLLM_TARGET_DEVICE=cpu chooses the CPU kernels), or start Python elsewhere to import "
            "an installed vllm."
        )
    else:
        lines.append(
            "Install the kernels of this release for your device: conda install "
            f"{library.component}"
        )
        if library.component == "vllm-kernels":
            lines.append(
                'The solver picks the build that fits the machine; "vllm-kernels=*=cpu_*" asks for '
                "the CPU one."
            )
    return ImportError(
        "\n".join(lines), name=f"vllm.{library.name}", path=str(_candidates(library)[0])
    )


def _mapped_files() -> list[Path]:
    """Files that the dynamic linker has mapped into this process; empty where the kernel does not tell."""
    try:
        with Path("/proc/self/maps").open(encoding="utf-8", errors="surrogateescape") as lines:
            found = {
                fields[5].rstrip("\n")
                for line in lines
                if len(fields := line.split(maxsplit=5)) == 6  # noqa: PLR2004
            }
    except OSError:
        return []
    return sorted(
        Path(name) for name in found if name.startswith("/") and re.search(r"\.so(\.|$)", name)
    )


def _is_mapped(path: Path) -> bool:
    return any(mapped.exists() and mapped.samefile(path) for mapped in _mapped_files())


def _holds_schema(data: mmap.mmap, op: str) -> bool:
    """Whether ``op(`` stands in the data as a whole word; plain search, as a regular expression takes seconds on torch's libraries."""
    word = op.encode() + b"("
    at = data.find(word)
    while at > 0 and (data[at - 1 : at].isalnum() or data[at - 1] == ord("_")):
        at = data.find(word, at + 1)
    return at >= 0


def _defines(path: Path, ops: list[str]) -> list[str]:
    """Those of ``ops`` (names without namespace) whose schema text the library holds: that is what it hands to torch to define them."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return [op for op in ops if _holds_schema(data, op)]
    except (OSError, ValueError):  # unlinked since it was mapped, or empty
        return []


def _refuse_second_definition(library: Library, path: Path) -> None:
    """Raise when something else has defined an op that ``path`` is about to define.

    Raises:
        ImportError: names the ops and, where it can be found out, the other library.
    """
    import torch  # noqa: PLC0415 - only here does anything need it

    defined = [name.partition("::") for name in torch._C._dispatch_get_all_op_names()]  # noqa: SLF001 - torch lists its ops nowhere else
    ops = sorted(
        {op.partition(".")[0] for namespace, _, op in defined if namespace in library.namespaces}
    )
    if not ops or _is_mapped(path):
        return
    twice = _defines(path, ops)
    if not twice:
        return
    torch_home = Path(torch.__file__).resolve().parent
    # conda keeps torch's libraries in its prefix and links to them.
    torch_files = {file.resolve() for file in (torch_home / "lib").glob("*")}
    strangers = [
        file
        for file in _mapped_files()
        if file != path and torch_home not in file.resolve().parents
    ]
    others = [
        file for file in strangers if file.resolve() not in torch_files and _defines(file, twice)
    ]
    owner = (
        ", ".join(map(str, others))
        or "Python code (torch.library), or a library that cannot be identified"
    )
    named = ", ".join(f"{library.namespaces[0]}::{op}" for op in twice[:3]) + (
        f" and {len(twice) - 3} more" if len(twice) > 3 else ""  # noqa: PLR2004
    )
    raise ImportError(
        f"cannot load {path}: this process already has definitions of {named}.\n"
        f"They come from {owner}.\n"
        "Two libraries that define the same op abort a process. Import only one vllm per process, "
        "or remove the other from sys.path.",
        name=f"vllm.{library.name}",
        path=str(path),
    )


def _torch_floor(library: Library) -> str | None:
    """The lowest torch release, ``major.minor``, that the installed build of ``library`` asks for; None where no record says it."""
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
    """Libraries of an official wheel work with one torch and on some processors; on others they would end the process."""
    import torch  # noqa: PLC0415 - only here does anything need it

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
            "Build this tree instead, which serves every torch and every processor: pip install "
            f"-e {_PACKAGE.parent}",
            name=f"vllm.{library.name}",
            path=str(path),
        )


def _check_torch(library: Library, path: Path) -> None:
    import torch  # noqa: PLC0415 - only here does anything need it

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
    """How the library's component differs from the one that vllm requires; None where nothing is known to differ."""
    try:
        record = next(
            (record for record in build_info.installed() if record.component == library.component),
            None,
        )
    except build_info.BuildInfoError as error:
        return str(error)
    return (
        _pins.mismatch(record.component, record.version, record.kernel_digest) if record else None
    )


def _load(library: Library) -> None:
    path = _find(library)
    if path is None:
        raise _missing(library)
    try:
        import torch  # noqa: PLC0415 - `import vllm` stays cheap; the first op pays

        from vllm import _fake  # noqa: PLC0415 - imports torch
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
    _refuse_second_definition(library, path)
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        differs = _differs(library)
        raise ImportError(
            f"the dynamic linker cannot load {path}: {error}\n"
            f"torch here is {torch.__version__}. A missing symbol or library means that the two do "
            "not fit: install them from one channel."
            + (f"\nThese kernels are not those that vllm requires:\n{differs}" if differs else ""),
            name=f"vllm.{library.name}",
            path=str(path),
        ) from error
    _fake.register(library.namespaces)
    _loaded[library.name] = path


def load(*names: str) -> frozenset[str]:
    """Load libraries by name, or all that are installed.

    What is loaded already is left alone; threads may call this at any time.

    Args:
        names: keys of :data:`LIBRARIES`; none means every installed one.

    Returns:
        The names of all libraries that are loaded now.

    Raises:
        ImportError: a library is not installed (with no names: none is), torch is missing or too
            old, the file does not load, or another library in this process defines the same ops.
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
    """Stands in for an op namespace without a library: the first use of an op says what is missing."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def __getattr__(self, op: str) -> Any:
        raise _missing(self._library)


class _Partial:
    """An op namespace with ops that cannot be called: the first use of one says why."""

    def __init__(self, name: str, ops: Any, foreign: build_info.Foreign) -> None:
        self._name, self._ops, self._foreign = name, ops, foreign

    def __getattr__(self, op: str) -> Any:
        reason = self._foreign.unusable.get(f"{self._name}::{op}")
        if reason is not None:
            raise ImportError(
                f"{self._name}::{op} cannot be called: the kernels here are those of "
                f"{self._foreign.distribution}, and {reason}.\n"
                f"Build this tree to have it: pip install -e {_PACKAGE.parent}"
            )
        return getattr(self._ops, op)


def namespace(name: str) -> Any:
    """``torch.ops.<name>`` with the libraries that register ops there loaded, as far as they are installed.

    Where none is installed, that is reported when an op is used, not here: code that merely
    mentions an op can be imported anywhere.

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
