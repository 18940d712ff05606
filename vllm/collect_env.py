# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm.collect_env [--json]``: a report on this installation, for bug reports.

The engine's command ``vllm collect-env`` and its server call the functions of this module.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from vllm._kernels import collect_env

__all__ = ["EnvInfo", "get_env_info", "main"]


class EnvInfo(NamedTuple):
    """The sections of the report."""

    vllm: Any
    engine: Any
    platform: Any
    components: Any
    torch: Any
    kernels: Any
    python: Any
    system: Any
    cpu: Any
    conda: Any
    environment: Any


def get_env_info() -> EnvInfo:
    """The report, in the form that the engine's server sends."""
    report = collect_env.collect()
    return EnvInfo(**{name: report[name] for name in EnvInfo._fields})


def main() -> int:
    """Print the report as text; the command line is ignored."""
    return collect_env.main([])


if __name__ == "__main__":
    sys.exit(collect_env.main())
