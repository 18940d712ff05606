# SPDX-License-Identifier: Apache-2.0
"""Real packages of everything that the engine imports: built, installed together, and imported.

The wheels are a download of 75 MB for each interpreter, and stay in the channel afterwards. The
oldest interpreter is always tested. ``VLLM_TEST_ENGINE_WHEELS=all`` tests the others as well, which
need another wheel of torch (500 MB).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from vllm_build.conda.environments import conda_environment
from vllm_build.toolchain import channel_build, toolchain_lock, wheel_metadata, wheel_table
from vllm_build.toolchain.download_store import Store
from vllm_build.util import paths
from vllm_build.util.console import Console

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
ROOT = paths.source_root()
TABLE = wheel_table.read(ROOT)
PYTHONS = TABLE.pythons if os.environ.get("VLLM_TEST_ENGINE_WHEELS") == "all" else TABLE.pythons[:1]
#: Imports every module of the list on the command line, and prints the errors and the version.
IMPORT = """
import importlib, json, platform, sys
failed = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)
print(json.dumps({"python": platform.python_version(), "failed": failed}))
"""


@pytest.mark.parametrize("python", PYTHONS)
def test_everything_that_the_engine_imports_works_in_one_environment(
    python: str, tmp_path: Path
) -> None:
    targets = [
        target
        for wheel in TABLE.wheels
        if wheel.on_request
        for target in TABLE.targets(wheel)
        if target.series in ("", python)
    ]
    report = channel_build.ensure(
        ROOT,
        Console(),
        [*(target.id for target in targets), f"python-{python}", f"pytorch-{python}"],
        inherited=os.environ,
    )
    prefix = tmp_path / "prefix"
    specs = [f"{target.wheel.name} =={target.wheel.version}" for target in targets]
    records = conda_environment.create(
        prefix, [f"python {python}.*", "pytorch", *specs], [report.url]
    )
    assert {target.wheel.name for target in targets} <= {record["name"] for record in records}

    lock, store = toolchain_lock.read(ROOT), Store(paths.cache_root() / "downloads")
    modules = {
        module
        for target in targets
        for module in wheel_metadata.read(store.path(lock.of_build(target.id)[0])).modules
    }
    assert len(modules) >= len(targets)
    done = conda_environment.run_in(
        prefix,
        ["python", "-c", IMPORT, json.dumps(sorted(modules))],
        cwd=tmp_path,
        inherited=os.environ,
        extra={"HF_HUB_OFFLINE": "1"},
    )
    found = json.loads(done.splitlines()[-1])
    assert found["python"].startswith(f"{python}.")
    assert found["failed"] == {}
    # The installer compiles the modules, also those of compiled wheels.
    site = prefix / "lib" / f"python{python}" / "site-packages"
    assert list((site / "aiohttp" / "__pycache__").glob("*.pyc"))
    assert (prefix / "bin" / "uvicorn").is_file()
