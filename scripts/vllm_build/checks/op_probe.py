# SPDX-License-Identifier: Apache-2.0
"""A separate program that loads compiled libraries into torch and prints what they register.

    stdin   {"libraries": [path, ...], "schemas": [text, ...]}
    stdout  {"registered": {op: [schema, [dispatch key, ...]]}, "expected": {text: schema}}

torch prints the schemas, so different spellings of one schema are equal. The program runs in its
own process, because libtorch aborts when a library defines an op a second time.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

KEYS = (
    "CPU",
    "CUDA",
    "HIP",
    "XPU",
    "Meta",
    "CompositeExplicitAutograd",
    "CompositeImplicitAutograd",
)


def probe(libraries: list[str], schemas: list[str]) -> dict[str, Any]:
    """Load the libraries and list their ops; exceptions of torch pass through."""
    private: Any = torch._C  # noqa: SLF001 - torch lists its ops nowhere else
    before = set(private._dispatch_get_all_op_names())  # noqa: SLF001
    for library in libraries:
        torch.ops.load_library(library)
    registered = {}
    for name in sorted(set(private._dispatch_get_all_op_names()) - before):  # noqa: SLF001
        base, _, overload = name.partition(".")
        keys = [key for key in KEYS if private._dispatch_has_kernel_for_dispatch_key(name, key)]  # noqa: SLF001
        registered[name] = [str(private._get_schema(base, overload)), keys]  # noqa: SLF001
    return {
        "registered": registered,
        "expected": {text: str(private.parse_schema(text)) for text in schemas},
    }


if __name__ == "__main__":
    request = json.load(sys.stdin)
    json.dump(probe(request["libraries"], request["schemas"]), sys.stdout)
