# SPDX-License-Identifier: Apache-2.0
"""Compiles the Python modules of noarch packages when they are installed, as conda does.

Such a package has no byte code, because each interpreter has its own. Without it, every process of
a user who cannot write to the environment compiles all modules that it imports, which takes longer
than to run them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vllm_build.conda.environments import install_limits
from vllm_build.util import failures, redaction
from vllm_build.util.errors import PackageTestError
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Exit statuses of compileall: success, and a file that is not Python of this release. Packages
#: contain such files on purpose, as templates and test data.
_DONE = (0, 1)


def compile_modules(folder: Path, prefix: Path, records: Mapping[str, dict[str, Any]]) -> None:
    """Compile the modules of all noarch packages that have no byte code yet.

    Args:
        folder: the new environment.
        prefix: where it will be, which tracebacks show.
        records: its records, by file name.

    Raises:
        PackageTestError: its interpreter cannot compile.
        ResourceError: disk, memory or file handles are exhausted.
    """
    modules = [
        f"{folder}/{file}"
        for record in records.values()
        if record.get("noarch") == "python"
        for file in record.get("files", ())
        if "/site-packages/" in file and file.endswith(".py")
    ]
    python = folder / "bin" / "python"
    if not modules or not python.exists():
        return
    jobs = str(len(os.sched_getaffinity(0)))
    command = [str(python), "-I", "-m", "compileall", "-q", "-j", jobs, "-i", "-"]
    command += ["-s", str(folder), "-p", str(prefix)]
    # Not the caller's variables, which might change what or where Python writes.
    env = {"PATH": f"{folder}/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    done = children.run(command, env=env, cwd=folder, given="\n".join(modules), merged=True)
    what = f"compiling the Python modules of {prefix}"
    if line := failures.exhausted(done.stdout):
        raise install_limits.exhausted(what, line)
    if done.returncode not in _DONE:
        raise PackageTestError(
            f"{what} failed (exit status {done.returncode})\n"
            f"{redaction.excerpt(done.stdout.rstrip(), 2000, end=True)}"
        )
