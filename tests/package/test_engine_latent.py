# SPDX-License-Identifier: Apache-2.0
"""The plugin's choice of an attention over latent rows: one whose ops the library has."""

from __future__ import annotations

import enum
import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "vllm._kernels.engine.latent"


class Backend(enum.Enum):
    """Upstream's list of backends, as far as it matters here."""

    CPU_MLA = 1
    AMX_MLA = 2


class Logger:
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning_once(self, text: str, *values: object) -> None:
        self.warnings.append(text % values)


@pytest.fixture
def logger() -> Logger:
    return Logger()


@pytest.fixture
def latent(monkeypatch: pytest.MonkeyPatch, logger: Logger) -> Iterator[Any]:
    """The module, with stand-ins for those of the engine that it imports."""
    contents: dict[str, dict[str, Any]] = {
        "vllm.logger": {"init_logger": lambda _: logger},
        "vllm.v1.attention.backends": {},
        "vllm.v1.attention.backends.registry": {"AttentionBackendEnum": Backend},
    }
    for name, values in contents.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)


def config(*, latent: bool = True, backend: Backend | None = None) -> Any:
    return types.SimpleNamespace(
        model_config=types.SimpleNamespace(use_mla=latent),
        attention_config=types.SimpleNamespace(backend=backend),
    )


def library(monkeypatch: pytest.MonkeyPatch, latent: Any, *ops: str) -> None:
    """Let the library have ``ops``."""
    monkeypatch.setattr(
        latent, "namespace", lambda _: types.SimpleNamespace(**dict.fromkeys(ops, 1))
    )


def test_without_ops_for_amx_the_attention_is_that_for_every_cpu(
    monkeypatch: pytest.MonkeyPatch, latent: Any, logger: Logger
) -> None:
    library(monkeypatch, latent, "bmm_cpu")
    for backend in (None, Backend.CPU_MLA):
        found = config(backend=backend)
        latent.choose(found)
        assert found.attention_config.backend is Backend.CPU_MLA
    assert logger.warnings == []


def test_a_backend_that_was_asked_for_is_replaced_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, latent: Any, logger: Logger
) -> None:
    library(monkeypatch, latent)
    found = config(backend=Backend.AMX_MLA)
    latent.choose(found)
    assert found.attention_config.backend is Backend.CPU_MLA
    assert logger.warnings == [
        "The kernels have no attention backend AMX_MLA: the model runs with CPU_MLA."
    ]


def test_other_models_and_a_library_with_all_ops_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, latent: Any, logger: Logger
) -> None:
    library(monkeypatch, latent)
    without = config(latent=False)
    latent.choose(without)
    assert without.attention_config.backend is None
    latent.choose(types.SimpleNamespace(model_config=None))
    library(monkeypatch, latent, "decode_attention_cpu", "extend_attention_cpu", "bmm_cpu")
    found = config()
    latent.choose(found)
    assert found.attention_config.backend is None
    assert logger.warnings == []
