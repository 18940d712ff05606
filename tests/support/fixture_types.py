# SPDX-License-Identifier: Apache-2.0
"""Types of the fixtures in ``tests/build/conftest.py`` that return functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

#: Writes an executable; see the fixtures ``program``, ``nvcc``, ``hipcc`` and ``icpx``.
Program = Callable[..., Path]
#: Writes the files of a torch; see the fixture ``torch``.
Torch = Callable[..., Path]
