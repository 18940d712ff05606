# SPDX-License-Identifier: Apache-2.0
"""TOML reading for every supported Python: the standard library's parser begins with 3.11, tomli is the same code before."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError, loads
else:
    from tomli import TOMLDecodeError, loads

__all__ = ["TOMLDecodeError", "loads"]
