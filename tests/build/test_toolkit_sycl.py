# SPDX-License-Identifier: Apache-2.0
"""The oneAPI compiler in every known layout, made of small shell scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from vllm_build.settings.build_settings import Settings
from vllm_build.target.toolkits import (
    sycl_toolkit,
    toolkit_finder,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("bare")


def test_sycl_order(tmp_path: Path, icpx: Callable[..., Path]) -> None:
    icpx(sycl_toolkit.USUAL / "compiler" / "2024.2", "2024.2.0")
    found = toolkit_finder.find_sycl(Settings())
    assert found is not None
    assert (found.kind, found.version, found.root) == (
        "sycl",
        Version("2024.2.0"),
        sycl_toolkit.USUAL / "compiler" / "2024.2",
    )
    one = tmp_path / "one"
    icpx(one / "compiler" / "2025.1")
    icpx(one / "compiler" / "2025.10", "2025.10.0")
    (one / "compiler" / "latest").symlink_to("2025.1")
    found = toolkit_finder.find_sycl(Settings(oneapi_root=one))
    assert found is not None
    assert found.version == Version("2025.10.0")
    icpx(tmp_path / "conda", "2025.2.0")
    found = toolkit_finder.find_sycl(Settings(oneapi_root=one, conda_prefix=tmp_path / "conda"))
    assert found is not None
    assert found.version == Version("2025.2.0")
    icpx(tmp_path / "path", "2025.3.0")
    found = toolkit_finder.find_sycl(
        Settings(conda_prefix=tmp_path / "conda", search_path=str(tmp_path / "path" / "bin"))
    )
    assert found is not None
    assert found.reason == "icpx on PATH"
    found = toolkit_finder.find_sycl(
        Settings(sycl_home=tmp_path / "conda", search_path=str(tmp_path / "path" / "bin"))
    )
    assert found is not None
    assert found.reason.startswith("CMPLR_ROOT=")
