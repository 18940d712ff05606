# SPDX-License-Identifier: Apache-2.0
"""Downloads Debian packages with a private apt, without changing the system's apt.

The private apt has its own package lists, cache and sources. It takes the mirror and the keys from
the machine's apt configuration. apt checks signatures and hashes itself; the caller checks sha256
again.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.toolchain.debian_suites import MAIN, SUITES, ListGroup
from vllm_build.toolchain.toolchain_lock import UPDATE_COMMAND
from vllm_build.util import removal
from vllm_build.util.errors import FetchError, ResourceError, ToolchainError
from vllm_build.util.files import disk_errors, write_text
from vllm_build.util.processes import children
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping, Sequence

    from vllm_build.util.console import Console

_DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_RELEASES = (*SUITES, "stable", "testing", "oldstable", "oldoldstable", "unstable", "sid", "forky")
_SECURITY = re.compile(r"[a-z]+(-security|/updates)")
_GONE = re.compile(
    r"Version '.*' for '.*' was not found|Unable to locate package|Unable to find a source "
    r"package|Can not find version '|No packages found"
)
_STALE = re.compile(r"404 +Not Found|File has unexpected size|Hash Sum mismatch")
_FULL = re.compile(r"No space left on device|don't have enough free space|Disk quota exceeded")
#: The machine's settings that the private apt uses: how to reach a mirror (proxies, certificates,
#: retries). Hooks are left out because they would touch the system's caches.
_TAKEN = re.compile(r"Acquire::(?!IndexTargets|Languages|GzipIndexes|CompressionTypes)[A-Za-z]")


def require_apt() -> None:
    """Check that this machine has apt.

    Raises:
        ToolchainError: a program of apt or dpkg is missing.
    """
    missing = [
        tool
        for tool in ("apt-get", "apt-cache", "apt-config", "dpkg-deb")
        if shutil.which(tool) is None
    ]
    if missing:
        raise ToolchainError(
            f"this machine has no {', '.join(missing)}, but parts of the toolchain channel are "
            "made from Debian packages",
            expected="Debian, or a distribution based on it",
            remedy="build against conda-forge instead: make package CHANNEL=conda-forge",
        )


def _run(
    command: Sequence[str], env: dict[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return children.run(command, env=env, cwd=folder)


def _errors_of(output: str) -> str:
    lines = [
        line.strip() for line in output.splitlines() if line.startswith(("E:", "W:", "Err:", "  "))
    ]
    return (
        "; ".join(dict.fromkeys(lines[-4:]))
        or excerpt(output.strip(), 300, end=True)
        or "no output"
    )


def choose_mirror(targets: str, *, security: bool = False) -> str | None:
    """Return the address of the first Debian mirror, or ``None`` if there is none.

    Args:
        targets: lines ``REPO_URI|RELEASE|COMPONENT``, the output of ``apt-get indextargets``.
        security: choose the archive of security updates, which does not hold the base suites.
    """
    for line in targets.splitlines():
        address, _, rest = line.partition("|")
        release, _, component = rest.partition("|")
        fits = _SECURITY.fullmatch(release) if security else release in _RELEASES
        if fits and component == "main" and not address.startswith("cdrom:"):
            return address.rstrip("/")
    return None


def choose_keys(configuration: str, mirror: str) -> str | None:
    """Return the ``signed-by`` file of the entry for ``mirror``, or ``None`` if it names none.

    Args:
        configuration: the machine's source lists, in deb822 or one-line format.
        mirror: the address of the mirror.
    """
    for stanza in re.split(r"\n\s*\n", configuration):
        if mirror not in stanza:
            continue
        found = re.search(r"^Signed-By:[ \t]*(/\S+)[ \t]*$", stanza, re.MULTILINE | re.IGNORECASE)
        if found:
            return found.group(1)
        for line in stanza.splitlines():
            one_line = re.match(r"deb(?:-src)?\s+\[([^\]]*)\]\s+(\S+)", line.strip())
            if one_line and one_line.group(2).rstrip("/") == mirror:
                option = re.search(r"signed-by=(/\S+)", one_line.group(1), re.IGNORECASE)
                if option:
                    return option.group(1)
    return None


def transport_settings(dump: str) -> list[str]:
    """Select the lines of ``apt-config dump`` that configure how to reach a mirror."""
    return [line for line in dump.splitlines() if _TAKEN.match(line) and not line.endswith(' "";')]


@dataclass
class PrivateApt:
    """An apt with all of its state in one folder, for one group of package lists.

    Attributes:
        folder: holds the state.
        console: shows the progress.
        inherited: the variables that apt starts from, such as a proxy.
        group: the package lists that it reads.
    """

    folder: Path
    console: Console
    inherited: Mapping[str, str] = field(repr=False)
    group: ListGroup = MAIN
    _fresh: bool = field(default=False, init=False)

    @property
    def _config(self) -> Path:
        return self.folder / "apt.conf"

    def environment(self) -> dict[str, str]:
        """The environment of every apt command: English messages and our configuration."""
        return {
            **self.inherited,
            "LC_ALL": "C.UTF-8",
            "APT_CONFIG": str(self._config),
            "DEBIAN_FRONTEND": "noninteractive",
        }

    def _machine(self) -> tuple[str, str, str]:
        """Transport settings, mirror address and keys of the machine's own apt."""
        require_apt()
        env = {**self.inherited, "LC_ALL": "C.UTF-8"}
        targets = _run(
            [
                "apt-get",
                "indextargets",
                "--no-release-info",
                "--format",
                "$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
            ],
            env,
        )
        security = self.group.security
        mirror = choose_mirror(targets.stdout, security=security)
        if mirror is None:
            raise ToolchainError(
                "the apt configuration of this machine names no Debian "
                + ("security archive" if security else "mirror"),
                expected=f"an entry for one of the suites {', '.join(self.group.suites)} in the "
                "machine's apt sources",
                remedy="add one, or build against conda-forge instead: make package "
                "CHANNEL=conda-forge",
            )
        places = dict(
            line.split("=", 1)
            for line in _run(
                [
                    "apt-config",
                    "shell",
                    "F",
                    "Dir::Etc::sourcelist/f",
                    "D",
                    "Dir::Etc::sourceparts/d",
                ],
                env,
            ).stdout.splitlines()
        )
        files = [
            Path(places.get("F", "").strip("'")),
            *sorted(Path(places.get("D", "").strip("'")).glob("*.[ls]*")),
        ]
        text = "\n\n".join(
            path.read_text(encoding="utf-8", errors="replace")
            for path in files
            if path.is_file() and path.suffix in (".list", ".sources")
        )
        keys = choose_keys(text, mirror) or (str(_DEBIAN_KEYS) if _DEBIAN_KEYS.exists() else "")
        return "\n".join(transport_settings(_run(["apt-config", "dump"], env).stdout)), mirror, keys

    def prepare(self) -> None:
        """Write the private configuration, and remove package lists of another mirror.

        Raises:
            ToolchainError: apt is missing, or its configuration names no Debian mirror.
            ResourceError: the disk is full.
        """
        transport, mirror, keys = self._machine()
        options = f" [arch=amd64 signed-by={keys}]" if keys else " [arch=amd64]"
        lines = [
            f"{kind}{options} {mirror} {suite} {self.group.component}"
            for suite in self.group.suites
            for kind in ("deb", "deb-src")
        ]
        sources = self.folder / "sources.list"
        with disk_errors(self.folder):
            if sources.is_file() and sources.read_text(encoding="utf-8") != "\n".join(lines) + "\n":
                removal.claim(self.folder, "apt's private state", ("*",), ("apt.conf",))
                removal.remove_tree(self.folder / "lists", below=self.folder)
            for name in ("lists/partial", "cache/archives/partial", "state", "none"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            # Empty, so that the machine's installed packages do not affect what is downloaded.
            write_text(self.folder / "status", "")
        # The address of a mirror or proxy may contain a password.
        write_text(sources, "\n".join(lines) + "\n", private=True)
        settings = {
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": self.folder / "none",
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": self.folder / "none",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": self.folder / "none",
            "Dir::State": self.folder / "state",
            "Dir::State::lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Acquire::Languages": "none",
            "APT::Architecture": "amd64",
            # When root runs apt, apt downloads as the user _apt, who may not enter the user's
            # cache.
            "APT::Sandbox::User": "root",
        }
        write_text(
            self._config,
            transport
            + "\n"
            + "".join(f'{key} "{value}";\n' for key, value in settings.items())
            + 'APT::Architectures { "amd64"; };\n',
            private=True,
        )

    def _have_lists(self) -> bool:
        lists = self.folder / "lists"
        return all(
            any(lists.glob(f"*_dists_{suite}_*{kind}*"))
            for suite in self.group.suites
            for kind in ("Packages", "Sources")
        )

    def refresh(self, *, force: bool = False) -> None:
        """Update the private package lists if they are missing.

        Args:
            force: update existing lists too, but only once per process.

        Raises:
            FetchError: the mirror cannot be reached or refuses the request.
            ResourceError: the disk is full.
        """
        if self._fresh or (not force and self._have_lists()):
            return
        with self.console.step("download the Debian mirror's package lists"):
            done = _run(["apt-get", "update", "-q", "--error-on=any"], self.environment())
        self._check(done, "the package lists of the Debian mirror cannot be downloaded")
        self._fresh = True

    def _check(self, done: subprocess.CompletedProcess[str], message: str) -> None:
        if done.returncode == 0:
            return
        output = done.stdout + done.stderr
        if _FULL.search(output):
            raise ResourceError(
                f"no space left on the disk of {self.folder}",
                remedy="free some space, or set VLLM_BUILD_CACHE to another disk",
            )
        raise FetchError(
            f"{message}: {_errors_of(output)}",
            expected="an answer from the mirror of the machine's apt configuration",
            remedy="check the network and the machine's apt sources, then run the same command "
            "again",
        )

    def show(self, arguments: Sequence[str]) -> str:
        """Return the output of ``apt-cache``, which is empty for an unknown package."""
        return _run(["apt-cache", *arguments], self.environment()).stdout

    def download(
        self, items: Iterable[tuple[str, str]], folder: Path, *, source: bool = False
    ) -> None:
        """Download exact (name, version) pairs into ``folder``.

        Raises:
            FetchError: the mirror no longer has a version (the message names the update command),
                or it does not answer.
            ResourceError: the disk is full.
        """
        wanted = [f"{name}={version}" for name, version in items]
        command = [
            "apt-get",
            "-q",
            *(("source", "--download-only") if source else ("download",)),
            *wanted,
        ]
        self.refresh()
        done = _run(command, self.environment(), folder)
        output = done.stdout + done.stderr
        if done.returncode and (_GONE.search(output) or _STALE.search(output)):
            # The lists may be older than the mirror: update them before reporting a version as
            # gone.
            self.refresh(force=True)
            done = _run(command, self.environment(), folder)
            output = done.stdout + done.stderr
        if done.returncode and _GONE.search(output):
            raise FetchError(
                f"the Debian mirror no longer has a locked version: {_errors_of(output)}",
                expected=", ".join(wanted),
                remedy=f"{UPDATE_COMMAND} locks the versions that it has now",
            )
        self._check(done, "the download from the Debian mirror failed")
