# SPDX-License-Identifier: Apache-2.0
"""A source tree with two small recipes, for tests of the toolchain channel with real packages."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from typing import TYPE_CHECKING

from vllm_build.toolchain import channel_build, channel_views, lock_update

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.toolchain import toolchain_lock
    from vllm_build.toolchain.channel_build import ChannelReport
    from vllm_build.util.console import Console

RECIPE = """
context:
  version: ${{ env.get("TOOLCHAIN_VERSION") }}
package:
  name: NAME
  version: ${{ version }}
build:
  string: h${{ env.get("TOOLCHAIN_DIGEST") }}_0
  noarch: generic
  script:
    content:
      - mkdir -p "$PREFIX/share"
      - cp "$TOOLCHAIN_SOURCES"/* "$PREFIX/share/"
    env:
      TOOLCHAIN_SOURCES: ${{ env.get("TOOLCHAIN_SOURCES") }}
requirements:
  run: RUN
"""


class Tree:
    """A source tree with an index for pip and two recipes, ``low`` and ``high``, which needs it."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.root = folder / "tree"
        self.index = folder / "index"
        self.cache = folder / "cache"
        self.console = console
        self.index.mkdir(parents=True)
        self.recipe("low")
        self.recipe("high", needs="low")
        for name in ("low", "high"):
            self.wheel(name)

    @classmethod
    def copied(cls, other: Tree, console: Console, name: str = "checkout") -> Tree:
        """Make another checkout with the same content, index and cache."""
        made = cls.__new__(cls)
        made.root, made.index, made.cache, made.console = (
            other.root.with_name(name),
            other.index,
            other.cache,
            console,
        )
        shutil.copytree(other.root, made.root)
        return made

    def recipe(self, name: str, *, needs: str = "", text: str = RECIPE) -> None:
        folder = self.root / "toolchain" / "recipes" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(
            text.replace("NAME", name).replace("RUN", f"[{needs}]"), encoding="utf-8"
        )
        line = f'needs = ["{needs}"]\n' if needs else ""
        sources = (
            f'[[build]]\nid = "{name}"\n{line}[[build.source]]\ntype = "pypi"\n'
            f'requirement = "{name}==1.0"\n'
        )
        (folder / "sources.toml").write_text(sources, encoding="utf-8")

    def wheel(self, name: str, content: str = "") -> Path:
        path = self.index / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}.py", content)
            archive.writestr(
                f"{name}-1.0.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            )
            archive.writestr(
                f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"
            )
        return path

    def update(self, only: list[str] | None = None) -> list[toolchain_lock.LockedFile]:
        return lock_update.update(self.root, self.console, only, inherited=os.environ)

    def ensure(self, only: list[str] | None = None) -> ChannelReport:
        return channel_build.ensure(self.root, self.console, only, inherited=os.environ)

    def actions(self, only: list[str] | None = None) -> dict[str, str]:
        return {outcome.id: outcome.action for outcome in self.ensure(only).outcomes}

    def packages(self) -> set[str]:
        """The packages in the index of this tree; checks that each exists and has its sha256."""
        listed: dict[str, tuple[Path, str]] = {}
        for subdir in ("linux-64", "noarch"):
            index = json.loads((self.view / subdir / "repodata.json").read_text(encoding="utf-8"))[
                "packages.conda"
            ]
            listed |= {
                name: (self.view / subdir / name, entry["sha256"]) for name, entry in index.items()
            }
        for path, sha256 in listed.values():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        return set(listed)

    @property
    def view(self) -> Path:
        return channel_views.view_of(self.root)

    @property
    def pool(self) -> set[str]:
        return {path.name for path in (self.cache / "channel" / "pool").glob("*/*.conda")}

    def edit(self, name: str) -> None:
        """Change the recipe ``name`` so that its package gets another digest."""
        with (self.root / "toolchain" / "recipes" / name / "recipe.yaml").open(
            "a", encoding="utf-8"
        ) as stream:
            stream.write("about:\n  summary: another one\n")
