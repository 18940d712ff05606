# SPDX-License-Identifier: Apache-2.0
"""An activated environment of a developer, in which tests run pip and other programs."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from vllm_build.conda import package_channel
from vllm_build.conda.environments import conda_environment
from vllm_build.settings.build_settings import Settings
from vllm_build.toolchain import channel_build
from vllm_build.util import paths
from vllm_build.util.console import Console
from vllm_build.util.errors import ToolchainError

ROOT = paths.source_root()
#: How this machine reaches a package index. Nothing else of its environment gets into a build.
MACHINE = re.compile(
    r"(PIP_.*|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(https?|no|all)_proxy|XDG_CONFIG_HOME|TMPDIR|HOME)",
    re.IGNORECASE,
)
UNIT = re.compile(r"^\s*\[\d+/\d+\] Building \w+ object (\S+)", re.MULTILINE)
LINK = re.compile(r"^\s*\[\d+/\d+\] Linking \w+ shared module (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Done:
    """One command: its exit status and all that it printed."""

    status: int
    log: str

    @property
    def units(self) -> list[str]:
        """Objects that were compiled, by the source they come from."""
        return [Path(name).name.removesuffix(".o") for name in UNIT.findall(self.log)]

    @property
    def links(self) -> list[str]:
        """Extension libraries that were linked."""
        return LINK.findall(self.log)


@dataclass
class Developer:
    """An activated environment."""

    prefix: Path
    variables: dict[str, str]
    folder: Path
    _activated: dict[str, str] = field(default_factory=dict)

    def environ(self, **extra: str) -> dict[str, str]:
        """What a shell has after activation."""
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
        """Run pip with its log on; fails the test when pip fails."""
        done = self.run("python", "-m", "pip", *arguments, "-v", cwd=cwd, **extra)
        assert done.status == 0, done.log[-6000:]
        return done

    def misses(self) -> tuple[int, int]:
        """Hits and misses of the compiler cache since the last call."""
        said = self.run("ccache", "--print-stats", cwd=self.folder).log
        self.run("ccache", "--zero-stats", cwd=self.folder)
        numbers = {
            key: int(value)
            for key, value in (line.split("\t") for line in said.splitlines() if "\t" in line)
        }
        return numbers["direct_cache_hit"] + numbers["preprocessed_cache_hit"], numbers[
            "cache_miss"
        ]


def make(folder: Path, specs: list[str]) -> Developer:
    """An environment of its own from the channel, which is brought up to date when it cannot serve ``specs``."""
    url = package_channel.url(package_channel.choose(None, Settings.from_environ(os.environ)))
    try:
        conda_environment.create(folder / "env", specs, [url])
    except ToolchainError:
        channel_build.ensure(ROOT, Console())
        conda_environment.create(folder / "env", specs, [url])
    prefix = folder / "env"
    machine = {key: value for key, value in os.environ.items() if MACHINE.fullmatch(key)}
    own = {
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "CONDA_PREFIX": str(prefix),
        "CCACHE_DIR": str(folder / "ccache"),
        "VLLM_BUILD_CACHE": str(folder / "cache"),
        "PYTHONNOUSERSITE": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    return Developer(prefix, {**machine, **own}, folder)
