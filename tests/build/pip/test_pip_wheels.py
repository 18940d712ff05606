# SPDX-License-Identifier: Apache-2.0
"""Real wheels: from a clone and from an sdist, with kernels and without."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from typing import TYPE_CHECKING

import pytest
from full_suite import full_only
from wheel_files import assert_is_the_cpu_wheel, member, metadata, names, only_wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.build.pip.conftest import Developer

pytestmark = pytest.mark.slow

COMPUTE = """
import torch, vllm
from vllm._kernels import build_info, loader
loader.load("_C")
x = torch.randn(3, 34)
out = torch.empty(3, 17)
torch.ops._C.silu_and_mul(out, x)
assert torch.allclose(out, torch.nn.functional.silu(x[:, :17]) * x[:, 17:], atol=1e-6)
print(vllm.__version__, vllm.__file__)
"""


def test_wheel_from_a_fresh_clone(
    developer: Developer, clone: Path, tmp_path: Path, version: str
) -> None:
    done = developer.pip(
        "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "w"), cwd=clone
    )
    assert "ops registered as defined" in done.log
    wheel = only_wheel(tmp_path / "w")
    assert_is_the_cpu_wheel(wheel, version)
    # A second wheel in the same tree, for another device, contains nothing of the first one.
    developer.pip(
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path / "e"),
        cwd=clone,
        VLLM_TARGET_DEVICE="empty",
    )
    assert only_wheel(tmp_path / "e").name == f"vllm-{version}+empty-py3-none-any.whl"
    kernels = ("_build_info", "kernels.json", ".so")
    assert not [
        name for name in names(only_wheel(tmp_path / "e")) if any(word in name for word in kernels)
    ]
    developer.pip(
        "install",
        "--no-deps",
        "--no-index",
        "--target",
        str(tmp_path / "site"),
        str(wheel),
        cwd=tmp_path,
    )
    said = developer.run("python", "-c", COMPUTE, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert said.status == 0, said.log
    assert said.log.splitlines()[-1] == f"{version}+cpu {tmp_path}/site/vllm/__init__.py"


def test_sdist_and_the_wheel_from_it(
    developer: Developer, clone: Path, tmp_path: Path, version: str
) -> None:
    (clone / "vllm" / "_version.py").write_text('__version__ = "stale"\n', encoding="utf-8")
    script = (
        "import sys; sys.path.insert(0, 'scripts'); from vllm_build import backend; folder = "
        "sys.argv[1]; "
        "print(backend.get_requires_for_build_sdist(), backend.build_sdist(folder))"
    )
    # The sdist is the same for all devices.
    for folder, device in (("s", "cuda"), ("t", "cpu")):
        (tmp_path / folder).mkdir()
        done = developer.run(
            "python",
            "-c",
            script,
            str(tmp_path / folder),
            cwd=clone,
            VLLM_TARGET_DEVICE=device,
            SOURCE_DATE_EPOCH="315532800",
        )
        assert done.status == 0, done.log[-3000:]
    archive = tmp_path / "s" / f"vllm-{version}.tar.gz"
    with tarfile.open(archive) as first, tarfile.open(tmp_path / "t" / archive.name) as second:
        assert first.getnames() == second.getnames()
        inside = {name.partition("/")[2] for name in first.getnames()}
    have = {p.relative_to(clone).as_posix() for p in clone.rglob("*") if p.is_file()}
    lacking = {
        p
        for p in have - inside
        if not p.startswith(("build/", "vllm.egg-info/", ".hypothesis/", ".coverage"))
        and "__pycache__" not in p
    }
    assert lacking == {"vllm/_version.py"}
    assert not [name for name in inside if name.endswith(".so")]
    # Build without git and without the clone.
    path = f"{developer.prefix}/bin"
    developer.pip(
        "wheel",
        str(archive),
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path / "w"),
        cwd=tmp_path,
        PATH=path,
    )
    # Front ends demand that the wheel has the version of the sdist.
    assert_is_the_cpu_wheel(only_wheel(tmp_path / "w"), version, suffix="")


@pytest.mark.parametrize("device", ["empty", "tpu"])
def test_pure_wheels_need_nothing(clone: Path, tmp_path: Path, version: str, device: str) -> None:
    """An interpreter, pip and the wheels of build-system.requires are enough."""
    local, room = tmp_path / "wheels", tmp_path / "venv"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "-d",
            str(local),
            "setuptools>=77",
            "packaging>=24",
            "tomli>=2; python_version<'3.11'",
        ],
        check=True,
    )
    venv.create(room, with_pip=True)
    env = {
        "PATH": str(tmp_path / "nothing"),
        "HOME": str(tmp_path / "home"),
        "VLLM_TARGET_DEVICE": device,
        "PIP_CONFIG_FILE": os.devnull,
        # Makes every connection fail.
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = [
        str(room / "bin" / "python"),
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-index",
        "--find-links",
        str(local),
        "-w",
        str(tmp_path / "w"),
    ]
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    wheel = only_wheel(tmp_path / "w")
    assert wheel.name == f"vllm-{version}+{device}-py3-none-any.whl"
    assert metadata(wheel, "WHEEL")["Root-Is-Purelib"] == ["true"]
    assert f'"{version}+{device}"'.encode() in member(wheel, "vllm/_version.py")


@full_only
def test_free_threaded_wheel(
    free_threaded: Developer, clone: Path, tmp_path: Path, version: str
) -> None:
    free_threaded.pip(
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path / "w"),
        cwd=clone,
        VLLM_TARGET_DEVICE="cpu",
    )
    wheel = only_wheel(tmp_path / "w")
    assert wheel.name == f"vllm-{version}+cpu-cp313-cp313t-linux_x86_64.whl"
    assert "vllm/_C.so" in names(wheel)
    assert not [name for name in names(wheel) if "abi3" in name]
    free_threaded.pip("install", "--no-deps", "--no-index", str(wheel), cwd=tmp_path)
    # Such an interpreter imports the library without enabling the GIL.
    code = (
        "import sys, vllm._C; from vllm._kernels import loader; "
        "assert not sys._is_gil_enabled(); assert '_C' in loader.available(); "
        "print(vllm._C.__file__)"
    )
    said = free_threaded.run("python", "-W", "error", "-c", code, cwd=tmp_path)
    assert said.status == 0, said.log
    assert said.log.strip().endswith("site-packages/vllm/_C.so")
