# SPDX-License-Identifier: Apache-2.0
"""Shell in this tree: what shellcheck does not see."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: A reader that ends before its input does: the writer then gets SIGPIPE, and under ``pipefail``
#: the pipe fails, but only now and then.
EARLY = re.compile(r"\|\s*(grep\s+-\w*[qm]|head\b|sed\s+\S*q\b)")


def test_no_pipe_ends_before_its_writer(root: Path) -> None:
    listed = ["git", "ls-files", "-z", "--", "*.sh", "toolchain", "recipe", "examples"]
    files = subprocess.run(
        listed, cwd=root, capture_output=True, text=True, check=True
    ).stdout.split("\0")[:-1]
    shell = [root / file for file in files if file.endswith((".sh", "recipe.yaml", "tests.yaml"))]
    assert len(shell) > 30
    lines = [
        (path, line) for path in shell for line in path.read_text(encoding="utf-8").splitlines()
    ]
    early = [
        f"{path.relative_to(root)}: {line.strip()}" for path, line in lines if EARLY.search(line)
    ]
    assert early == [], "write `| grep X > /dev/null`, `| sed -n 1p`"
