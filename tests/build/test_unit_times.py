# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_build import unit_times
from vllm_build.unit_times import Unit

if TYPE_CHECKING:
    from pathlib import Path

LOG = """\
# ninja log v7
0\t12000\t1\tCMakeFiles/_C.dir/a.cc.o\tf00
0\t500\t1\tCMakeFiles/_C.dir/b.cu.o\tf01
12000\t12250\t1\t_C.abi3.so\tf02
"""


def test_slowest_first(tmp_path: Path) -> None:
    (tmp_path / unit_times.LOG).write_text(LOG, encoding="utf-8")
    assert unit_times.steps(tmp_path) == 4
    found = unit_times.units(tmp_path)
    assert found == (Unit("CMakeFiles/_C.dir/a.cc.o", 12.0), Unit("CMakeFiles/_C.dir/b.cu.o", 0.5), Unit("_C.abi3.so", 0.25))
    assert unit_times.summary(found, 3 * 2**29) == (
        "3 steps, 13 s in all, slowest: a.cc.o 12 s, b.cu.o 0 s, _C.abi3.so 0 s; the largest process had 1.5 GiB"
    )


def test_only_this_builds(tmp_path: Path) -> None:
    (tmp_path / unit_times.LOG).write_text(LOG + "0\t7000\t1\tCMakeFiles/_C.dir/a.cc.o\tf00\n", encoding="utf-8")
    assert unit_times.units(tmp_path, 4) == (Unit("CMakeFiles/_C.dir/a.cc.o", 7.0),)
    assert unit_times.units(tmp_path)[0].seconds == 7.0
    assert len(unit_times.units(tmp_path, 99)) == 3  # written anew


def test_no_log(tmp_path: Path) -> None:
    assert unit_times.steps(tmp_path) == 0
    assert unit_times.units(tmp_path) == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_whatever_stands_in_the_log(tmp_path: Path, text: str) -> None:
    (tmp_path / unit_times.LOG).write_text(text, encoding="utf-8", errors="replace")
    assert all(unit.seconds is not None for unit in unit_times.units(tmp_path))


def test_the_largest_process_counts_what_children_started() -> None:
    grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = b\"x\" * {300 << 20}'], check=True)"
    subprocess.run([sys.executable, "-c", grandchild], check=True)
    assert unit_times.largest_process() > 300 << 20
