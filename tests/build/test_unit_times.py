# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_build.native import unit_times
from vllm_build.native.unit_times import Unit

if TYPE_CHECKING:
    from pathlib import Path

A, B = Unit("x.dir/a.cc.o", 14.0, 12.0, 3 << 29, 9), Unit("x.dir/b.cu.o", 0.5, 0.5, 1 << 29, 8)


def measured(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    line = [
        sys.executable,
        "-I",
        "-S",
        str(unit_times.LAUNCHER),
        unit_times.RECORD,
        "a.o",
        *command,
    ]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


def test_a_record_and_its_summary(tmp_path: Path) -> None:
    record = tmp_path / "below" / unit_times.RECORD
    unit_times.append(record, [B, A], "")
    assert unit_times.read(record) == (A, B)
    assert unit_times.summary((A, B)) == (
        "2 units, 12 s of processor time, slowest: a.cc.o 12 s, b.cu.o 0 s; the largest process "
        "had 1.5 GiB"
    )
    unit_times.append(record, [A], "other/")
    assert [unit.unit for unit in unit_times.read(record)] == ["other/x.dir/a.cc.o", A.unit, B.unit]
    unit_times.begin(record.parent)
    assert unit_times.read(record) == ()
    unit_times.begin(record.parent)


def test_a_unit_that_is_compiled_twice_counts_once(tmp_path: Path) -> None:
    record = tmp_path / unit_times.RECORD
    unit_times.append(record, [A, Unit(A.unit, 1.0, 1.0, 1, 1)], "")
    assert unit_times.read(record) == (Unit(A.unit, 1.0, 1.0, 1, 1),)


def test_a_command_is_measured_with_what_it_starts(tmp_path: Path) -> None:
    grandchild = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = b\"x\" * "
        f"{300 << 20}'], check=True); print('said')"
    )
    (tmp_path / "a.o").write_bytes(b"object")
    done = measured(tmp_path, sys.executable, "-c", grandchild)
    assert (done.returncode, done.stdout) == (0, "said\n")
    (unit,) = unit_times.read(tmp_path / unit_times.RECORD)
    assert (unit.unit, unit.object_bytes) == ("a.o", 6)
    assert unit.peak_bytes > 300 << 20
    assert 0 < unit.cpu_seconds < unit.seconds * 64


def test_a_command_that_fails_has_its_status_and_no_entry(tmp_path: Path) -> None:
    assert measured(tmp_path, sys.executable, "-c", "raise SystemExit(3)").returncode == 3
    assert measured(tmp_path, "sh", "-c", "kill -9 $$").returncode == 137
    done = measured(tmp_path, "no-such-compiler")
    assert (done.returncode, "no-such-compiler: No such file" in done.stderr) == (127, True)
    assert unit_times.read(tmp_path / unit_times.RECORD) == ()


def test_a_record_that_cannot_be_written_does_not_fail_the_build(tmp_path: Path) -> None:
    (tmp_path / unit_times.RECORD).mkdir()
    assert measured(tmp_path, "true").returncode == 0


def test_a_command_that_makes_no_file_has_no_size(tmp_path: Path) -> None:
    measured(tmp_path, "true")
    assert [unit.object_bytes for unit in unit_times.read(tmp_path / unit_times.RECORD)] == [0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(),
        st.builds(
            json.dumps,
            st.dictionaries(
                st.sampled_from(["unit", "seconds", "cpu_seconds", "peak_bytes", "object_bytes"]),
                st.floats(),
            ),
        ),
    )
)
def test_whatever_stands_in_the_record(tmp_path: Path, text: str) -> None:
    (tmp_path / unit_times.RECORD).write_text(text, encoding="utf-8", errors="replace")
    assert all(unit.seconds is not None for unit in unit_times.read(tmp_path / unit_times.RECORD))
