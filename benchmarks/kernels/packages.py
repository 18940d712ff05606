# SPDX-License-Identifier: Apache-2.0
"""The environment with the packages that ``make package`` has built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kernels.peers import Runner
from vllm_build.commands import package_options
from vllm_build.conda import package_request
from vllm_build.conda.environments import conda_environment
from vllm_build.settings.invocation import Invocation
from vllm_build.util import environ
from vllm_build.util.errors import PackageTestError

if TYPE_CHECKING:
    import argparse

    from vllm_build.util.console import Console

#: Needed in addition to the packages; the compiler is for torch.compile and the machine's limits.
NEEDED = ("python 3.11.*", "gxx_linux-64", "numpy")


def environment(options: argparse.Namespace, console: Console) -> Runner:
    """Create an environment with the packages of the output folder.

    Raises:
        PackageTestError: the packages are missing.
        ToolchainError: the environment cannot be solved.
    """
    options.invocation = Invocation(environ.snapshot())
    request = package_options.request(options, "cpu", console)
    outputs = package_request.expected(request)
    missing = [
        o.filename for o in outputs if not (request.output / o.subdir / o.filename).is_file()
    ]
    if missing:
        raise PackageTestError(
            f"{', '.join(missing)} not in {request.output}",
            expected="the packages of this tree",
            remedy="make package VARIANT=cpu, or --python",
        )
    specs = [*(f"{o.name} =={o.version} {o.build}" for o in outputs), *NEEDED]
    prefix = request.output / ".bench"
    with console.step("environment with the packages"):
        conda_environment.create(prefix, specs, request.channel_urls)
    return Runner(
        prefix / "bin" / "python", conda_environment.environ_of(prefix, os.environ), conda=True
    )
