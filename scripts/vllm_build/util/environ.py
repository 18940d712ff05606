# SPDX-License-Identifier: Apache-2.0
"""Reads this process's environment; no other module of the library does.

Entry points take a snapshot and pass on what other code needs: settings, or the variables that a
program starts from. A test can therefore pass any environment as an argument.
``tests/build/test_environ.py`` lists the modules that may call :func:`snapshot` or :func:`places`,
and finds every other reader.
"""

from __future__ import annotations

import os

from vllm_build.util.places import Places


def snapshot() -> dict[str, str]:
    """The variables of this process as they are now."""
    return dict(os.environ)


def places() -> Places:
    """The folders of the user who runs this process."""
    return Places.of(os.environ)
