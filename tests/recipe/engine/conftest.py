# SPDX-License-Identifier: Apache-2.0
"""What the tests of the packaged engine share: environments, a small model, and a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import engine_server
import engine_small
import pytest
from package_runs import OUTPUT, ROOT, Done, built_fixture  # noqa: F401 -- a fixture

from vllm_build.conda import package_channel, package_checks, package_request, variants
from vllm_build.conda.environments import conda_environment
from vllm_build.settings.build_settings import Settings
from vllm_build.util.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", name="prefix")
def prefix_fixture(built: Done) -> Path:
    """The environment of ``make package``, which has no compiler."""
    return Path(built.result["prefix"])


@pytest.fixture(scope="session", name="compiling")
def compiling_fixture(prefix: Path) -> Path:
    """An environment with the packages, a C++ compiler and pytest, for ``make test-full``."""
    settings = Settings.from_environ(os.environ)
    request = package_request.Request(
        ROOT, variants.load(ROOT, "cpu"), package_channel.choose(None, settings), OUTPUT, settings
    )
    package_checks.prepare(request, Console(quiet=True))  # the channel may not have pytest yet
    specs = [f"{o.name} =={o.version} {o.build}" for o in package_request.expected(request)]
    made = OUTPUT / ".test" / "engine"
    conda_environment.create(
        made,
        [*specs, "gxx_linux-64", "pytest"],
        request.channel_urls,
        force=True,
        driver=request.driver,
        constraints=request.constraints,
    )
    assert made != prefix
    return made


@pytest.fixture(scope="session", name="model")
def model_fixture(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with a tokenizer; nothing changes its files."""
    return engine_small.make(prefix, tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="session", name="server")
def server_fixture(
    prefix: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[engine_server.Server]:
    """A server in float32."""
    home = tmp_path_factory.mktemp("server")
    options = (
        *("--dtype", "float32"),
        *("--max-model-len", str(engine_small.CONTEXT)),
        *("--max-num-seqs", str(engine_small.SEQUENCES)),
    )
    with engine_server.serving(prefix, model, home, *options) as running:
        yield running
