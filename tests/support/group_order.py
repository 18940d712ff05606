# SPDX-License-Identifier: Apache-2.0
"""Which tests stay in one process of a parallel run, and which of the slow ones begin first."""

from __future__ import annotations

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

#: The groups that take longest, minutes each, which begin first. Each process gets two at once: the
#: first three begin, and the next three follow them, the shortest after the longest.
LONGEST = (
    *("packages", "pip", "engine"),
    *("tests/build/test_every_command.py", "tests/recipe/test_installed.py"),
    *("tests/recipe/test_same_bytes.py", "tests/build/test_command_signals.py"),
)


def group_of(test: str) -> str:
    """The group of a test, which is given by its node ID."""
    file = test.partition("::")[0]
    return next((group for start, group in SHARING.items() if file.startswith(start)), file)


def rank_of(test: str) -> int:
    """The place of a test in the order of the slow ones."""
    group = group_of(test)
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)
