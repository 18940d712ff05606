# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vllm_build.errors import BusyError
from vllm_build.locks import exclusive

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, pathlib
from vllm_build.locks import exclusive
with exclusive(pathlib.Path(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_told_who_and_what(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(root / "scripts")}
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="the output folder") as caught, exclusive(tmp_path, "the output folder"):
            pass
        assert str(tmp_path) in caught.value.message
        holder.kill()
    with exclusive(tmp_path, "the output folder"):
        pass
