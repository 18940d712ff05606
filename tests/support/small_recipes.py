# SPDX-License-Identifier: Apache-2.0
"""Recipes that rattler-build builds in a second, with an empty channel, for tests."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from vllm_build.packing import recipe_builder

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.util.console import Console

RECIPE = """
package:
  name: sample
  version: "1.0"
build:
  noarch: generic
  script:
    content:
SCRIPT
    env:
      GIVEN: ${{ env.get("GIVEN", default="nothing") }}
      KEY: ${{ key }}
requirements:
  host: HOST
tests:
  - script:
      - TEST
"""


def recipe(folder: Path, *script: str, host: str = "[]", test: str = "true") -> Path:
    path = folder / "sample" / "recipe.yaml"
    path.parent.mkdir(exist_ok=True)
    lines = "".join(
        f"      - {json.dumps(line)}\n" for line in script or ('echo "$KEY" > "$PREFIX/key"',)
    ).rstrip("\n")
    path.write_text(
        RECIPE.replace("SCRIPT", lines).replace("HOST", host).replace("TEST", test),
        encoding="utf-8",
    )
    return path


def channel(folder: Path) -> str:
    for subdir in ("linux-64", "noarch"):
        index = folder / "channel" / subdir / "repodata.json"
        index.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "info": {"subdir": subdir},
            "packages": {},
            "packages.conda": {},
            "repodata_version": 1,
        }
        index.write_text(json.dumps(document), encoding="utf-8")
    return (folder / "channel").as_uri()


def build(folder: Path, path: Path, console: Console, **options: object) -> list[Path]:
    given = {
        "variants": {"key": ["value"]},
        "channels": [channel(folder)],
        "output_dir": folder / "out",
        "console": console,
    }
    given |= {"inherited": os.environ} | options
    return recipe_builder.build(path, **given)  # type: ignore[arg-type]


def recipes(folder: Path, **hosts: str) -> Path:
    """A folder with a recipe for each name; the values are the host requirements."""
    for name, host in hosts.items():
        text = recipe(folder, host=host).read_text(encoding="utf-8")
        path = folder / "recipes" / name / "recipe.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text.replace("name: sample", f"name: {name}"), encoding="utf-8")
    return folder / "recipes"
