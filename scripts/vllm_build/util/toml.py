# SPDX-License-Identifier: Apache-2.0
"""The TOML parser: the standard library's from Python 3.11, before that tomli, the same code."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError, loads
else:
    from tomli import TOMLDecodeError, loads

__all__ = ["TOMLDecodeError", "loads"]
