# SPDX-License-Identifier: Apache-2.0
"""``make package VARIANT=cpu`` with empty caches, PyPI, a Debian mirror and no pip.conf.

Most users have such a machine, with PyPI and a Debian mirror. The test takes 10 minutes to an hour,
1 GB of downloads and 8 GB of disk.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from full_suite import full_only
from trees import copy_tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, full_only]
#: Variables that a machine needs to reach a server. The rest of the environment is that of a new
#: login.
NETWORK = re.compile(
    r"PIP_CERT|PIP_PROXY|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(https?|no|all)_proxy",
    re.IGNORECASE,
)
MB = 1e6


def size(folder: Path, pattern: str = "*") -> float:
    """Megabytes on the disk; a file with several hard links counts once."""
    stats = [path.lstat() for path in folder.rglob(pattern)]
    found = {(stat.st_dev, stat.st_ino): stat.st_blocks * 512 for stat in stats}
    return sum(found.values()) / MB


def test_the_cpu_packages_from_nothing(tmp_path: Path) -> None:
    tree, home = copy_tree(tmp_path / "tree"), tmp_path / "home"
    home.mkdir()
    env = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
    env |= {"HOME": str(home), "PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull}
    begin = time.monotonic()
    command = ["make", "package", "VARIANT=cpu", f"PYTHON={os.path.realpath(sys.executable)}"]
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        status = subprocess.run(
            command,
            cwd=tree,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    text = (tmp_path / "log").read_text(encoding="utf-8", errors="replace")
    assert status == 0, text[-6000:]
    cache = home / ".cache" / "vllm-build"
    downloads = {path.name for path in (cache / "downloads").rglob("*") if path.is_file()}
    assert len([name for name in downloads if name.startswith("torch-")]) == 1
    assert not [name for name in downloads if name.startswith(("nvidia_", "triton"))]
    (torch,) = (cache / "channel").glob("*/pytorch-*.conda")
    assert "-cpu_pypi_" in torch.name
    assert len(list((tree / "output").glob("*/vllm-*.conda"))) >= 2
    print(f"\n{time.monotonic() - begin:6.0f} s for make package VARIANT=cpu from nothing")
    for what, megabytes in (
        ("downloads of the toolchain and the sources", size(cache / "downloads")),
        ("the channel's packages", size(cache / "channel", "*.conda")),
        ("the cache in all", size(cache)),
        ("the tree with .venv and output", size(tree)),
        ("everything", size(tmp_path)),
    ):
        print(f"{megabytes:6.0f} MB {what}")
    assert size(cache / "downloads") < 1500, "NVIDIA's libraries alone are 2200"
