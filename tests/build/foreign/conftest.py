# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests of official wheels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from foreign_files import install_torch
from foreign_scene import cpu_plan, listed

from vllm_build.checks import library_audit
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.target import torch_flavour

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    context = Context(Cache(tmp_path / "cache"))
    with context.cache.in_use():
        yield context


@pytest.fixture
def has_torch(tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch 2.13.0 whose ops are those of FAKE_OPS."""
    assert bare.is_dir()
    site = install_torch(tmp_path / "torch")
    monkeypatch.setattr(torch_flavour, "_sites", lambda _: [site])
    # The tests must not depend on whether this environment has abi3audit.
    monkeypatch.setattr(library_audit, "limited_api", lambda _: None)
    return site


@pytest.fixture
def ops(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, list[str]]]:
    """The ops that the wheel's library registers: all CPU ops unless a test removes some."""
    found = listed(root, cpu_plan(root))
    monkeypatch.setenv("FAKE_OPS", json.dumps(found))
    return found
