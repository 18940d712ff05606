# SPDX-License-Identifier: Apache-2.0
"""Upstream's schemas of the GPU ops that this project also has."""

from __future__ import annotations

import re
from pathlib import Path

_FILE = Path(__file__).resolve().parents[1] / "data" / "upstream_gpu_schemas.txt"
#: An argument that the op writes into, as torch prints it (``Tensor($0! -> )``) and as sources have
#: it (``Tensor(a!)``, ``Tensor!``).
_WRITTEN = re.compile(r"(Tensor|int)(?:\((?:\$\d+|[a-z])!(?: -> )?\)|!)")
#: Ops of GPUs that upstream does not have under these names.
OURS = frozenset({"_C::fused_gumbel_argmax", "_C::gelu_tanh", "_C::greedy_argmax"})
#: Upstream marks an argument as written that its op only reads.
READ_ONLY = {"_C::merge_attn_states": ("int!? prefill", "int? prefill")}


def spelled(schema: str) -> str:
    """A schema in one spelling: ``!`` after the type of each argument that the op writes into."""
    return _WRITTEN.sub(r"\1!", schema.strip())


def load() -> dict[str, str]:
    """Name with namespace -> schema, in the spelling of :func:`spelled`."""
    found = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("_"):
            name = line.partition("(")[0]
            text = spelled(line)
            if name in READ_ONLY:
                marked, plain = READ_ONLY[name]
                assert marked in text, name
                text = text.replace(marked, plain)
            found[name] = text
    return found
