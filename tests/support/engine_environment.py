# SPDX-License-Identifier: Apache-2.0
"""The environment in which tests run the engine of the CPU packages.

A test module imports the fixtures; their names there have no suffix ``_fixture``.
"""

from __future__ import annotations

import os
from pathlib import Path

import full_suite
import pytest
from package_runs import OUTPUT, ROOT, Done, built_fixture

from vllm_build.conda import package_channel, package_checks, package_request, variants
from vllm_build.conda.environments import conda_environment
from vllm_build.settings.build_settings import Settings
from vllm_build.util.console import Console

__all__ = ["built_fixture", "engine_prefix_fixture"]


@pytest.fixture(scope="session", name="engine_prefix")
def engine_prefix_fixture(built: Done) -> Path:
    """The environment of ``make package``; in ``make test-full`` one with a compiler."""
    if not full_suite.FULL:
        return Path(built.result["prefix"])
    settings = Settings.from_environ(os.environ)
    request = package_request.Request(
        ROOT, variants.load(ROOT, "cpu"), package_channel.choose(None, settings), OUTPUT, settings
    )
    package_checks.prepare(request, Console(quiet=True))  # builds pytest for the channel
    specs = [f"{o.name} =={o.version} {o.build}" for o in package_request.expected(request)]
    prefix = OUTPUT / ".test" / "engine"
    conda_environment.create(
        prefix,
        [*specs, "gxx_linux-64", "pytest"],
        request.channel_urls,
        force=True,
        driver=request.driver,
    )
    return prefix
