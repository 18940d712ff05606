# SPDX-License-Identifier: Apache-2.0
"""Ops that this process already has, checked before a library defines them again.

libtorch throws inside a static initialiser when a library defines an op for the second time, and
the process aborts without a traceback. :func:`refuse_second_definition` raises before that.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

#: Number of conflicting ops that a message lists.
_LISTED = 3


def _mapped_files() -> list[Path]:
    """The shared libraries that are mapped into this process; empty if the kernel does not tell."""
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
    """Whether the data contains ``op(`` as a whole word.

    This is a plain search, because a regular expression takes seconds on torch's libraries.
    """
    word = op.encode() + b"("
    at = data.find(word)
    while at > 0 and (data[at - 1 : at].isalnum() or data[at - 1] == ord("_")):
        at = data.find(word, at + 1)
    return at >= 0


def defines(path: Path, ops: list[str]) -> list[str]:
    """Select the ops that a library defines.

    A library contains the schema text of each op that it defines, because it passes it to torch.

    Args:
        path: the library.
        ops: names without namespace.

    Returns:
        The names of ``ops`` that the library defines; none if the file is missing or empty.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return [op for op in ops if _holds_schema(data, op)]
    except (OSError, ValueError):  # unlinked since it was mapped, or empty
        return []


def _owner(path: Path, ops: list[str]) -> str:
    """Name the other libraries in this process that define the ops."""
    import torch  # noqa: PLC0415 - loaded by now

    torch_home = Path(torch.__file__).resolve().parent
    # conda keeps torch's libraries in its prefix and links to them.
    torch_files = {file.resolve() for file in (torch_home / "lib").glob("*")}
    strangers = [
        file
        for file in _mapped_files()
        if file != path and torch_home not in file.resolve().parents
    ]
    others = [
        file for file in strangers if file.resolve() not in torch_files and defines(file, ops)
    ]
    return (
        ", ".join(map(str, others))
        or "Python code (torch.library), or a library that cannot be identified"
    )


def refuse_second_definition(name: str, namespaces: tuple[str, ...], path: Path) -> None:
    """Raise if this process already has an op that a library is about to define.

    Args:
        name: name of the library, for the exception.
        namespaces: namespaces of ``torch.ops`` that the library defines ops in.
        path: file of the library.

    Raises:
        ImportError: lists the ops and, if it can be identified, the other library.
    """
    import torch  # noqa: PLC0415 - `import vllm` must not import torch

    present = [op.partition("::") for op in torch._C._dispatch_get_all_op_names()]  # noqa: SLF001 - torch has no public list of ops
    ops = sorted({op.partition(".")[0] for space, _, op in present if space in namespaces})
    if not ops or _is_mapped(path):
        return
    twice = defines(path, ops)
    if not twice:
        return
    listed = ", ".join(f"{namespaces[0]}::{op}" for op in twice[:_LISTED])
    if len(twice) > _LISTED:
        listed += f" and {len(twice) - _LISTED} more"
    owner = _owner(path, twice)
    remedy = (
        "Both are in one installation, which a solver refuses: install vllm again in a new "
        "environment, without --force or --no-deps."
        if f"{path.parent}/" in owner
        else "Import only one vllm per process, or remove the other from sys.path."
    )
    raise ImportError(
        f"cannot load {path}: this process already has definitions of {listed}.\n"
        f"They come from {owner}.\n"
        f"Two libraries that define the same op abort a process. {remedy}",
        name=f"vllm.{name}",
        path=str(path),
    )
