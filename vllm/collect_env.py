# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm.collect_env [--json]``: a report on this installation, for bug reports."""

from __future__ import annotations

import sys

from vllm._kernels.collect_env import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
