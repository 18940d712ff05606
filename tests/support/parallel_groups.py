# SPDX-License-Identifier: Apache-2.0
"""Which tests stay in one process when pytest-xdist runs tests in parallel."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

#: Files or folders whose tests share what a session's fixture builds -> their group. The tests of
#: any other file are a group. (pytest-xdist 3.8's own groups do not work with pytest 9.2.)
SHARING = {
    "tests/build/pip/": "pip",
    "tests/recipe/engine/test_demonstration.py": "packages",  # it serves from the packages' output
    "tests/recipe/engine/": "engine",
    "tests/recipe/test_built_packages.py": "packages",
    "tests/recipe/test_engine_wheels.py": "packages",
    "tests/recipe/test_package_failures.py": "packages",
    "tests/recipe/test_package_reuse.py": "packages",
}


def group_of(test: str) -> str:
    """The group of a test, which is given by its node ID."""
    file = test.partition("::")[0]
    return next((group for start, group in SHARING.items() if file.startswith(start)), file)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc] # pytest-xdist has no types
    """Gives each group to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
