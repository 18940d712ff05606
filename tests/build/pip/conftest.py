# SPDX-License-Identifier: Apache-2.0
"""A developer's environment for real builds, from the toolchain channel.

It has a compiler, ccache, CMake and torch. pip uses this machine's configuration.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomlkit
from packaging.version import Version
from trees import copy_tree

from vllm_build.conda import package_channel
from vllm_build.conda.environments import conda_environment
from vllm_build.settings.build_settings import Settings
from vllm_build.sources import third_party
from vllm_build.toolchain import channel_build, third_party_fetch, toolchain_builds
from vllm_build.util import paths
from vllm_build.util.console import Console
from vllm_build.util.errors import ToolchainError

ROOT = paths.source_root()
#: Variables that say how this machine reaches a package index. A build gets no others.
MACHINE = re.compile(
    r"(PIP_.*|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(https?|no|all)_proxy|XDG_CONFIG_HOME|HOME)",
    re.IGNORECASE,
)
#: In a long build, "; about 9 min left" follows the name.
UNIT = re.compile(r"^\s*\[\d+/\d+\] Building \w+ object ([^\s;]+)", re.MULTILINE)
LINK = re.compile(r"^\s*\[\d+/\d+\] Linking \w+ shared module ([^\s;]+)", re.MULTILINE)


@dataclass(frozen=True)
class Done:
    """The exit status and the output of a command."""

    status: int
    log: str

    @property
    def units(self) -> list[str]:
        """The sources of the compiled objects."""
        return [Path(name).name.removesuffix(".o") for name in UNIT.findall(self.log)]

    @property
    def links(self) -> list[str]:
        """The linked extension libraries."""
        return LINK.findall(self.log)


@dataclass
class Developer:
    """An activated environment."""

    prefix: Path
    variables: dict[str, str]
    folder: Path
    _activated: dict[str, str] = field(default_factory=dict)

    def environ(self, **extra: str) -> dict[str, str]:
        """The variables of a shell after activation."""
        if not self._activated:
            script = 'for f in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do . "$f"; done; env -0'
            text = subprocess.run(
                ["/bin/bash", "-c", script],
                env=self.variables,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            self._activated = dict(
                entry.split("=", 1) for entry in text.split("\0") if "=" in entry
            )
        return {**self._activated, **extra}

    def run(self, *command: str, cwd: Path, **extra: str) -> Done:
        """Run a program of the environment."""
        done = subprocess.run(
            [str(self.prefix / "bin" / command[0]), *command[1:]],
            cwd=cwd,
            env=self.environ(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        return Done(done.returncode, done.stdout)

    def pip(self, *arguments: str, cwd: Path, **extra: str) -> Done:
        """Run pip with `-v`; fail the test if pip fails."""
        done = self.run("python", "-m", "pip", *arguments, "-v", cwd=cwd, **extra)
        assert done.status == 0, done.log[-6000:]
        return done

    def counts(self, cache: str) -> tuple[int, int]:
        """Hits and misses of a compiler cache since the last call."""
        said = self.run("ccache", "--print-stats", cwd=self.folder, CCACHE_DIR=cache).log
        self.run("ccache", "--zero-stats", cwd=self.folder, CCACHE_DIR=cache)
        numbers = {
            key: int(value)
            for key, value in (line.split("\t") for line in said.splitlines() if "\t" in line)
        }
        return numbers["direct_cache_hit"] + numbers["preprocessed_cache_hit"], numbers[
            "cache_miss"
        ]


def make(folder: Path, specs: list[str]) -> Developer:
    """Create an environment from the channel; update the channel if ``specs`` have no solution."""
    url = package_channel.url(package_channel.choose(None, Settings.from_environ(os.environ)))
    try:
        conda_environment.create(folder / "env", specs, [url])
    except ToolchainError:
        channel_build.ensure(ROOT, Console(), inherited=os.environ)
        conda_environment.create(folder / "env", specs, [url])
    prefix, scratch = folder / "env", folder / "tmp"
    scratch.mkdir()
    machine = {key: value for key, value in os.environ.items() if MACHINE.fullmatch(key)}
    own = {
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "CONDA_PREFIX": str(prefix),
        # The environment and all trees, also those that pip unpacks, are below this folder, so that
        # a later run of the tests finds what this one has compiled.
        "CCACHE_BASEDIR": str(folder.parent),
        "TMPDIR": str(scratch),
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_DIR": str(paths.ccache_dir()),
        "VLLM_BUILD_CACHE": str(folder / "cache"),
        "PYTHONNOUSERSITE": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    return Developer(prefix, {**machine, **own}, folder)


TOOLS = ["gxx_linux-64", "ccache", "libhwy", "cmake", "ninja", "pip"]


@pytest.fixture(scope="session")
def developer(tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """Everything that `pip --no-build-isolation` needs."""
    return make(
        tmp_path_factory.mktemp("developer"),
        [*TOOLS, "python 3.11.*", "pytorch", "setuptools", "wheel", "packaging"],
    )


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """A compiler and pip. Isolated builds must install torch and setuptools."""
    return make(tmp_path_factory.mktemp("newcomer"), [*TOOLS, "python 3.11.*"])


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """Everything that `pip --no-build-isolation` needs, except torch, and torch's requirements.

    A test puts a torch into another folder.
    """
    torch = [
        "filelock",
        "fsspec",
        "jinja2",
        "libgomp",
        "networkx",
        "numpy",
        "sympy",
        "typing_extensions",
    ]
    specs = [*TOOLS, *torch, "python 3.11.*", "setuptools", "wheel", "packaging"]
    return make(tmp_path_factory.mktemp("withouttorch"), specs)


@pytest.fixture(scope="session")
def free_threaded(tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """A CPython without the GIL, and libtorch without the Python package."""
    return make(
        tmp_path_factory.mktemp("freethreaded"),
        [*TOOLS, "python 3.13.* *_cp313t", "libtorch", "setuptools", "wheel", "packaging"],
    )


def keep_kernels(tree: Path, names: tuple[str, ...]) -> None:
    """Remove all other kernels from a tree's table."""
    table = tree / "csrc" / "kernels.toml"
    document = tomlkit.parse(table.read_text(encoding="utf-8"))
    kept = [record for record in document["kernel"] if record["name"] in names]
    assert len(kept) == len(names), f"{table} has no record of each of {names}"
    document["kernel"] = kept
    table.write_text(tomlkit.dumps(document), encoding="utf-8")


def copy_with(folder: Path, *names: str) -> Path:
    """A fresh clone in which the table has only these kernels."""
    tree = copy_tree(folder, symlinks=True)
    keep_kernels(tree, names)
    return tree


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone for one test, with a few kernels, because each test compiles them again."""
    return copy_with(tmp_path / "clone", "cpu-dispatch", "activation-cpu", "norm-cpu", "rotary-cpu")


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """A compiler, pip, and libtorch without its Python package, which is not one for ROCm."""
    specs = [*TOOLS, "python 3.11.*", "libtorch", "setuptools", "wheel", "packaging"]
    return make(tmp_path_factory.mktemp("builder"), specs)


@pytest.fixture(scope="session")
def rocm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROCm: the compiler, the headers and the device libraries, without hipcc and a runtime."""
    report = channel_build.ensure(ROOT, Console(), ["hip-clang_linux-64"], inherited=os.environ)
    prefix = tmp_path_factory.mktemp("rocm") / "prefix"
    conda_environment.create(prefix, ["hip-clang_linux-64"], [report.url])
    return prefix


@pytest.fixture(scope="session")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newest CUDA toolkit of the channel, without a driver."""
    names = [build.id for build in toolchain_builds.load(ROOT) if "cuda-nvcc" in build.makes]
    release = max((name.rpartition("-")[2] for name in names), key=Version)
    builds = [f"{name}-{release}" for name in ("cuda-nvcc", "libcublas", "libcurand")]
    report = channel_build.ensure(ROOT, Console(), builds, inherited=os.environ)
    prefix = tmp_path_factory.mktemp("cuda") / "prefix"
    specs = ["cuda-nvcc", "libcublas-dev", "libcurand-dev", f"cuda-version {release}.*"]
    conda_environment.create(prefix, specs, [report.url])
    return prefix


@pytest.fixture(scope="module")
def cuda_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone with a few kernels of every library for CUDA, and the sources they need."""
    sources = third_party.read(ROOT)
    for name in ("cutlass", "flash-attention", "engine-kernels", "engine-cutlass"):
        third_party_fetch.fetch(sources[name], Console(), os.environ)
    return copy_with(
        tmp_path_factory.mktemp("cuda") / "tree",
        *("gpu-runtime", "activation-gpu", "gpu-runtime-moe", "moe-gpu", "cumem-cuda"),
        *("gpu-runtime-flashmla", "flashmla", "gpu-runtime-fa2", "fa2", "fa2-hdim64-bf16"),
        *("gpu-runtime-fa3", "fa3", "fa3-hdim64-bf16-paged"),
        *("engine", "engine-cooperative-topk", "engine-moe"),
    )


@pytest.fixture(scope="module")
def rocm_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone for the tests of a module, with a few kernels of every library for ROCm."""
    return copy_with(
        tmp_path_factory.mktemp("rocm") / "tree",
        *("gpu-runtime", "hip-runtime", "activation-gpu", "cumem-rocm"),
        *("gpu-runtime-moe", "hip-runtime-moe", "moe-gpu"),
        *("gpu-runtime-rocm", "hip-runtime-rocm", "paged-attention-rocm"),
    )


@pytest.fixture
def version(root: Path) -> str:
    return (root / "VERSION").read_text(encoding="utf-8").strip()
