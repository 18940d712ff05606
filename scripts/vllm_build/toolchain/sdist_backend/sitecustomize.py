# SPDX-License-Identifier: Apache-2.0
"""Makes every project use the build backend beside this file, whatever its own files say.

Python imports this module when it starts, in pip and in the process in which pip calls a build
backend. A project may name another backend than setuptools, and keep that backend's code in the
source distribution itself (``backend-path``). pip passes both in variables, which are replaced here
before pip's code reads them.
"""

from __future__ import annotations

import os

for _prefix in ("_PYPROJECT_HOOKS", "PEP517"):
    os.environ.pop(f"{_prefix}_BACKEND_PATH", None)
    if f"{_prefix}_BUILD_BACKEND" in os.environ:
        os.environ[f"{_prefix}_BUILD_BACKEND"] = "setuptools.build_meta"
