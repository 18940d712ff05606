# SPDX-License-Identifier: Apache-2.0
"""The package under test: the installed vllm if there is one, otherwise the tree's."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable

# Same as in tests/conftest.py, which is not loaded when these tests run against an installed vllm.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_ROOT = Path(__file__).resolve().parents[2]
# Test files import modules of this folder, such as flash_ops.
sys.path.append(str(Path(__file__).parent))
if importlib.util.find_spec("vllm") is None:
    sys.path.insert(0, str(_ROOT))


@pytest.fixture(scope="session")
def root() -> Path:
    """The source tree of the tests."""
    return _ROOT


@pytest.fixture(scope="session")
def package() -> Path:
    """The folder of the package under test."""
    import vllm

    return Path(vllm.__file__).resolve().parent


@pytest.fixture
def copy_modules(root: Path, package: Path) -> Callable[[Path, str], None]:
    """Copy our modules, without libraries and records, to a folder ``vllm``, with this version.

    The result is a package with the thin face: its modules come from the tree, because an installed
    package may have the engine in their places. ``vllm._kernels`` is the package's.
    """

    def run(folder: Path, version: str) -> None:
        thin = root / "vllm"
        sources = {path.relative_to(thin): path for path in thin.rglob("*.py")}
        ours = {path.relative_to(package): path for path in (package / "_kernels").rglob("*.py")}
        for name, source in sorted({**sources, **ours}.items()):
            if name.name == "_version.py":
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        (folder / "_version.py").write_text(f"__version__ = {version!r}\n")

    return run


@pytest.fixture
def copy(tmp_path: Path, copy_modules: Callable[[Path, str], None]) -> Path:
    """A folder with a copy of our modules, like a separate installation."""
    copy_modules(tmp_path / "site" / "vllm", "1.2.3+test")
    return tmp_path / "site"


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a new interpreter that finds vllm in ``site``.

    Changes of the dispatcher stay in that interpreter.
    """

    def run(site: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        start = (
            f"import sys; sys.path.insert(0, {str(site)!r}); sys.path[:] = [p for p in "
            "sys.path if p]\n"
        )
        command = [sys.executable, "-c", start + code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=site)

    return run


@pytest.fixture
def library(package: Path) -> Path:
    """The compiled ``_C`` library of the package under test."""
    for name in ("_C.abi3.so", "_C.so"):
        if (package / name).is_file():
            pytest.importorskip(
                "torch", reason="torch is not installed here: no library can be loaded"
            )
            return package / name
    pytest.skip(
        f"no kernels in {package}: build them with `pip install -e .`, or run the tests in an "
        "environment with vllm-kernels"
    )


@pytest.fixture
def copy_with_library(copy: Path, library: Path) -> Path:
    """As ``copy``, with the library of the package under test."""
    (copy / "vllm" / library.name).symlink_to(library)
    return copy


def record(component: str = "vllm-kernels", **changes: Any) -> dict[str, Any]:
    """A record in the form that the build writes."""
    return {
        "schema": 1,
        "component": component,
        "version": "0.1.0+cpu",
        "device": "cpu",
        "kernel_digest": "0123456789ab",
        "torch_target": "2.11",
        "python_abi": "abi3",
        "compiler": {"id": "GNU", "version": "12.2.0"},
        "extensions": [
            {
                "name": "vllm._C",
                "file": "vllm/_C.abi3.so",
                "sha256": hashlib.sha256(b"x").hexdigest(),
                "size": 1,
                "kernels": ["norm-cpu"],
            }
        ],
        **changes,
    }


@pytest.fixture
def write_record() -> Callable[..., Path]:
    """Write a record into a package folder; keyword arguments replace its keys."""

    def write(folder: Path, **changes: Any) -> Path:
        document = record(**changes)
        path = folder / "_build_info" / f"{document['component']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
        return path

    return write
