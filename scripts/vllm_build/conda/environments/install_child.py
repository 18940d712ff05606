# SPDX-License-Identifier: Apache-2.0
"""Solves and installs an environment in a separate process.

``conda_environment.create`` starts this module with ``-m``: py-rattler 0.28 sometimes crashes when
an interpreter that has installed something exits.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattler import Client, install
from rattler.config import Config
from rattler.exceptions import InstallerError
from rattler.package_cache import PackageCache, ValidationMode

from vllm_build.conda.environments import install_limits, solver
from vllm_build.packing import index_check
from vllm_build.util import failures, paths, removal
from vllm_build.util.environ import snapshot
from vllm_build.util.errors import IntegrityError, PackageTestError, VllmBuildError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rattler import RepoDataRecord

#: Files are copied from the cache, as clones if the file system supports them. Hard links are
#: faster (an environment with torch: 2 to 4 s instead of 4 to 11 s) and save its 1.2 GB, but an
#: edit in one environment would change all others and the cache. This also holds for libraries,
#: because patchelf and strip edit in place.
_COPIES = "allow-hard-links = false"


def _link(records: Sequence[RepoDataRecord], folder: Path, prefix: Path) -> None:
    """Install ``records`` into ``folder``, with the paths of ``prefix``.

    Raises:
        FetchError: a package is missing. IntegrityError: it differs from its channel's index.
        PackageTestError: a package cannot be installed. ResourceError: the disk is full.
    """
    # Packages that stay may no longer be in any channel.
    present = (
        {(r.name.normalized, str(r.version), r.build, r.sha256) for r in solver.installed(folder)}
        if folder.is_dir()
        else set()
    )
    new = [
        r for r in records if (r.name.normalized, str(r.version), r.build, r.sha256) not in present
    ]
    listed = [index_check.of_record(r.url, r.sha256, r.size) for r in new]
    states = index_check.require(package for package in listed if package is not None)
    # This hashes every extracted file. A package that was edited in the cache is extracted again
    # before it is installed.
    removal.claim_cache()
    cache = PackageCache.new_layered(
        [paths.extracted_packages()], validation_mode=ValidationMode.full()
    )

    async def run() -> None:
        await install(
            list(records),
            folder,
            client=Client(),
            show_progress=False,
            execute_link_scripts=False,
            alternative_target_prefix=prefix,
            package_cache=cache,
            config=Config.from_toml(_COPIES),
        )

    try:
        asyncio.run(run())
    except InstallerError as error:
        if "hash mismatch" in str(error):
            raise IntegrityError(
                f"a package differs from the one that its channel lists\n{error}",
                expected="the sha256 in the channel's index",
                remedy="try again later: the channel may be in the middle of an update",
            ) from error
        if reason := failures.exhausted(str(error)) or install_limits.cut_short(folder):
            raise install_limits.exhausted(
                f"installing into {prefix} with the cache {paths.cache_root()}", reason
            ) from error
        raise PackageTestError(
            f"the packages cannot be installed into {prefix}\n{error}"
        ) from error
    index_check.require_unchanged(states)


def main(arguments: dict[str, Any], environ: Mapping[str, str]) -> int:
    """Solve and install; writes the packages as JSON to stdout, or the error as JSON to stderr.

    Args:
        arguments: of ``conda_environment.create``.
        environ: names the variable that chose an unusable path.

    Returns:
        The exit status.
    """
    try:
        folder, prefix = Path(arguments["folder"]), Path(arguments["prefix"])
        records = solver.solve_specs(
            arguments["specs"],
            arguments["channels"],
            prefix if arguments["update"] else None,
            arguments["driver"],
            arguments["constraints"],
        )
        if arguments["update"]:
            # Some files are written in place, so links would change the environment that is in use.
            shutil.copytree(prefix, folder, symlinks=True)
        _link(records, folder, prefix)
    except (VllmBuildError, OSError, MemoryError) as raised:
        error = failures.of_exception(raised, {}, environ)
        if not isinstance(error, PackageTestError):
            sys.stderr.write(
                json.dumps(
                    {"message": error.message, "expected": error.expected, "remedy": error.remedy}
                )
            )
        else:
            sys.stderr.write(error.message)
        return error.exit_code
    facts = [
        {
            "name": r.name.normalized,
            "version": str(r.version),
            "build": str(r.build),
            "channel": str(r.channel),
        }
        for r in records
    ]
    sys.stdout.write(json.dumps(facts))
    return 0


if __name__ == "__main__":
    status = main(json.loads(sys.argv[1]), snapshot())
    sys.stdout.flush()
    sys.stderr.flush()
    # This skips the interpreter's own exit, where py-rattler may crash.
    os._exit(status)
