# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import group_order

if TYPE_CHECKING:
    from pathlib import Path


def test_files_that_share_a_fixture_share_a_group() -> None:
    group_of = group_order.group_of
    assert group_of("tests/build/pip/test_pip_wheels.py::test_a[x::y]") == "pip"
    assert group_of("tests/recipe/test_package_reuse.py::test_a") == "packages"
    assert group_of("tests/recipe/engine/test_demonstration.py::test_a") == "packages"
    assert group_of("tests/recipe/engine/test_engine_load.py::test_a") == "engine"
    assert group_of("tests/build/test_elf.py::test_a") == "tests/build/test_elf.py"


def test_every_row_names_files_that_exist(root: Path) -> None:
    assert [entry for entry in group_order.SHARING if not (root / entry).exists()] == []


def test_every_long_group_has_tests(root: Path) -> None:
    groups = set(group_order.SHARING.values())
    assert [
        name for name in group_order.LONGEST if name not in groups and not (root / name).is_file()
    ] == []
    assert group_order.rank_of("tests/build/pip/test_pip_wheels.py::test_a") == 1
    assert group_order.rank_of("tests/build/test_elf.py::test_a") == len(group_order.LONGEST)
