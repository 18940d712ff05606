# SPDX-License-Identifier: Apache-2.0
"""The one place that reads this process's environment.

Entry points take a snapshot, and hand on what others need of it: settings, or the variables that a
program is started with. So a test chooses an environment by an argument.
``tests/build/test_environ.py`` lists who may take a snapshot, and finds every other reader.
"""

from __future__ import annotations

import os


def snapshot() -> dict[str, str]:
    """The variables of this process as they are now."""
    return dict(os.environ)
