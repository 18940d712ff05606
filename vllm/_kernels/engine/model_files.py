# SPDX-License-Identifier: Apache-2.0
"""Checks that the weights in a model's folder are complete, before the engine starts processes.

Only the headers of the safetensors files are read. Their format: eight bytes with the length of the
header, little-endian; the header, JSON, with the place of each tensor; the tensors.
"""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Longer headers are damaged; the format's own limit.
_LONGEST_HEADER = 100_000_000
_REMEDY = "copy or download the model again"


class ModelFilesError(ValueError):
    """A file of the model is missing or incomplete."""


def _require_complete(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        expected = 8 + length
        if size >= expected and length <= _LONGEST_HEADER:
            try:
                header = json.loads(file.read(length))
                ends = [
                    operator.index(entry["data_offsets"][1])
                    for name, entry in header.items()
                    if name != "__metadata__"
                ]
            except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                raise ModelFilesError(
                    f"{path} is no safetensors file: its header is malformed; {_REMEDY}"
                ) from None
            expected += max(ends, default=0)
    if length > _LONGEST_HEADER:
        raise ModelFilesError(
            f"{path} is no safetensors file: its header would have {length} bytes; {_REMEDY}"
        )
    if size < expected:
        raise ModelFilesError(
            f"{path} is truncated: it has {size} bytes instead of {expected}; {_REMEDY}"
        )


def _names(folder: Path, load_format: str) -> tuple[str, str]:
    """The pattern of the files that the engine reads, and the name of their index."""
    mistral = "consolidated*.safetensors"
    if load_format == "mistral" or (load_format == "auto" and any(folder.glob(mistral))):
        return mistral, "consolidated.safetensors.index.json"
    return "*.safetensors", "model.safetensors.index.json"


def require(folder: Path, load_format: str = "auto") -> None:
    """Check the safetensors files that the engine reads of a model: with an index, those it lists.

    A folder without any is not checked, because models have other formats, too.

    Args:
        folder: the model's.
        load_format: the engine's option.

    Raises:
        ModelFilesError: a file that the index lists is missing, or a file is incomplete.
    """
    pattern, name = _names(folder, load_format)
    index = folder / name
    if index.is_file():
        try:
            listed = {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelFilesError(f"{index} is malformed: it lists no weights; {_REMEDY}") from None
        missing = sorted(name for name in listed if not (folder / name).is_file())
        if missing:
            raise ModelFilesError(
                f"{folder} lacks {', '.join(missing)}, which {index.name} lists; {_REMEDY}"
            )
        read = [folder / name for name in listed]
    else:
        read = list(folder.glob(pattern))
    for path in sorted(read):
        _require_complete(path)
