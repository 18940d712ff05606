# SPDX-License-Identifier: Apache-2.0
"""Kernels that this vllm does not require: the message has expected, found and remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from vllm._kernels import build_info, collect_env, pins
from vllm._kernels.pins import Pin
from vllm._kernels.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIGEST = "0123456789ab" + "c" * 52
RECORD = {
    "name": "vllm",
    "version": "0.1.0",
    "build": "py_0",
    "depends": ["python >=3.10", "pytorch >=2.11", "vllm-kernels ==0.1.0 *_k0123456789ab_*"],
    "constrains": ["vllm-flash-attn ==0.1.0 *_kaaaaaaaaaaaa_*", "other ==0.1.0 *_kaaaaaaaaaaaa_*"],
}


def prefix_with(folder: Path, **changes: Any) -> tuple[Path, Path]:
    """A conda environment and the vllm in it."""
    package = folder / "lib" / "python3.13" / "site-packages" / "vllm"
    package.mkdir(parents=True)
    meta = folder / "conda-meta"
    meta.mkdir()
    (meta / "vllm-0.1.0-py_0.json").write_text(json.dumps({**RECORD, **changes}))
    (meta / "vllm-kernels-0.1.0-cpu_0.json").write_text(
        json.dumps({"name": "vllm-kernels", "depends": ["vllm-none ==1 *_kff_*"]})
    )
    (meta / "vllm-broken.json").write_text("{")
    (meta / "vllm-odd.json").write_text("[]")
    return folder, package


def test_pins_are_those_of_the_environments_vllm(tmp_path: Path) -> None:
    prefix, package = prefix_with(tmp_path / "env")
    assert pins.pins(prefix, package) == {
        "vllm-kernels": Pin("0.1.0", "0123456789ab"),
        "vllm-flash-attn": Pin("0.1.0", "a" * 12),
    }
    assert pins.pins(prefix, tmp_path / "tree" / "vllm") == {}, (
        "another vllm than the environment's"
    )
    assert pins.pins(tmp_path, package) == {}, "no conda environment"


def test_a_package_without_pins(tmp_path: Path) -> None:
    prefix, package = prefix_with(tmp_path / "env", depends=["vllm-kernels"], constrains=None)
    assert pins.pins(prefix, package) == {}
    assert pins.mismatch("vllm-kernels", "9", "ff", prefix, package) is None


@pytest.mark.parametrize("version", ["0.1.0", "0.1.0+cpu"])
def test_the_right_kernels(tmp_path: Path, version: str) -> None:
    there = prefix_with(tmp_path / "env")
    assert pins.mismatch("vllm-kernels", version, DIGEST, *there) is None
    assert pins.mismatch("vllm-flashmla", "9", "ff", *there) is None, "vllm pins none"


@pytest.mark.parametrize(
    ("version", "digest", "found"),
    [
        ("0.1.0", "f" * 64, "vllm-kernels 0.1.0 with digest ffffffffffff"),
        ("0.2.0+cpu", DIGEST, "vllm-kernels 0.2.0+cpu with digest 0123456789ab"),
    ],
)
def test_other_kernels(tmp_path: Path, version: str, digest: str, found: str) -> None:
    said = pins.mismatch("vllm-kernels", version, digest, *prefix_with(tmp_path / "env"))
    assert said is not None
    assert said.splitlines() == [
        "  expected: vllm-kernels 0.1.0 with digest 0123456789ab",
        f"  found:    {found}",
        (
            "  to do:    install both of one build: conda install --force-reinstall vllm "
            "vllm-kernels; "
            "in a source tree, pip install -e ."
        ),
    ]


def test_a_record_of_another_release(
    tmp_path: Path, write_record: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a conda environment, the tested vllm has its own pins.
    monkeypatch.setattr(pins, "pins", lambda *_: {})
    path = write_record(tmp_path, schema=2, kernel_digest=DIGEST)
    with pytest.raises(build_info.BuildInfoError) as caught:
        build_info.read(path)
    assert str(caught.value).splitlines() == [
        f"{path}: schema is 2, this vllm reads 1: vllm and vllm-kernels are different releases",
        f"  expected: vllm-kernels of the same release as vllm {__version__}",
        "  found:    vllm-kernels 0.1.0+cpu with digest 0123456789ab",
        (
            "  to do:    install both of one build: conda install --force-reinstall vllm "
            "vllm-kernels; "
            "in a source tree, pip install -e ."
        ),
    ]


def test_a_record_of_another_release_may_lack_everything(tmp_path: Path) -> None:
    path = tmp_path / "vllm-kernels.json"
    path.write_text('{"schema": 2}')
    with pytest.raises(
        build_info.BuildInfoError, match=r"found:    vllm-kernels of unknown version\n"
    ):
        build_info.read(path)


#: Runs in an interpreter whose prefix is the environment, like an installed vllm.
START = "import sys; sys.prefix = sys.argv.pop(1); sys.path.insert(0, sys.argv.pop(1))\n"


@pytest.fixture
def installed(
    tmp_path: Path, copy_modules: Callable[[Path, str], None], write_record: Callable[..., Path]
) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run a program in an environment whose kernels are not those that its vllm requires."""
    prefix, there = prefix_with(tmp_path / "env")
    copy_modules(there, "0.1.0")
    write_record(there, kernel_digest="f" * 64)
    (there / "_C.abi3.so").write_bytes(b"no library")

    def run(code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", START + code, str(prefix), str(there.parent)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    return run


def test_the_report_says_that_kernels_differ(
    installed: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = installed(
        "import json; from vllm._kernels import collect_env; "
        "print(json.dumps(collect_env._components()))"
    )
    assert not done.stderr
    (component,) = json.loads(done.stdout)
    assert component["differs"].startswith(
        "  expected: vllm-kernels 0.1.0 with digest 0123456789ab\n"
        "  found:    vllm-kernels 0.1.0+cpu "
    )


def test_a_library_that_does_not_load_is_compared(
    installed: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    pytest.importorskip("torch", reason="torch is not installed here: no library can be loaded")
    done = installed("from vllm._kernels import loader; loader.load()")
    assert (
        "These kernels are not those that vllm requires:\n  expected: vllm-kernels 0.1.0 with "
        "digest 0123456789ab\n"
    ) in done.stderr


def test_the_report_of_kernels_that_fit_says_nothing(
    tmp_path: Path, write_record: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_info, "DIRECTORY", tmp_path / "vllm" / "_build_info")
    monkeypatch.setattr(pins, "pins", lambda *_: {})
    write_record(tmp_path / "vllm")
    assert "differs" not in collect_env._components()[0]
