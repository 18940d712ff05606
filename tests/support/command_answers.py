# SPDX-License-Identifier: Apache-2.0
"""What a subcommand answers, as JSON or as a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build import cli
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    import pytest

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "gpu_tree"
VARIABLES = (
    "MAX_JOBS",
    "NVCC_THREADS",
    "VLLM_TARGET_DEVICE",
    "TORCH_CUDA_ARCH_LIST",
    "PYTORCH_ROCM_ARCH",
    "CMAKE_CUDA_ARCHITECTURES",
    "CMAKE_ARGS",
)


def forget_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the variables of this machine that choose a target or a number of jobs."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def use_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands read the sample table instead of the tree's."""
    monkeypatch.setattr(paths, "source_root", lambda: SAMPLE)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The document of a command that succeeds."""
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that ends with a configuration error and prints no document."""
    assert cli.main([*arguments]) == ConfigurationError.exit_code
    said = capsys.readouterr()
    assert not said.out
    return said.err
