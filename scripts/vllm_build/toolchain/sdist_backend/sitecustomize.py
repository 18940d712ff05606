# SPDX-License-Identifier: Apache-2.0
"""Makes every project use the build backend in this folder, regardless of its own files.

Python imports this module when it starts, in pip and in the process in which pip calls a build
backend. A project may name another backend than setuptools, and keep that backend's code in the
source distribution itself (``backend-path``). pip passes both in variables, which are replaced here
before pip's code reads them.
"""

from __future__ import annotations

import os

# The names have changed from one release of pip to another.
for _name in tuple(os.environ):
    if "_BACKEND_PATH" in _name:
        del os.environ[_name]
    elif _name.endswith("_BUILD_BACKEND"):
        os.environ[_name] = "setuptools.build_meta"
