# SPDX-License-Identifier: Apache-2.0
"""Source distributions of small engines that fit the tables of this tree, except where asked."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vllm_build.engine import engine_requirements, faces, op_calls, op_schemas
from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

ROOT = paths.source_root()
#: Device → the source that defines the ops of its library in upstream's tree.
BINDINGS = {
    "cpu": "csrc/cpu/torch_bindings.cpp",
    "cuda": "csrc/torch_bindings.cpp",
    "rocm": "csrc/rocm/torch_bindings.cpp",
}


def _bindings(device: str) -> str:
    """Definitions with our schemas, and with others where the table says that they differ."""
    spaces = defaultdict(list)
    other = op_calls.by_device(op_calls.read(ROOT, "spelled"))[device]
    for name, schema in op_schemas.registered(ROOT)[device].items():
        space, _, text = schema.partition("::")
        named = name.partition("::")[2]
        spaces[space].append(f"{named}(Tensor another) -> ()" if name in other else text)
    blocks = []
    for space, schemas in spaces.items():
        lines = "\n".join(f'  ops.def(\n      "{schema}");' for schema in schemas)
        blocks.append(f"STABLE_TORCH_LIBRARY_FRAGMENT({space}, ops) {{\n{lines}\n}}\n")
    return "\n".join(blocks)


def _calls() -> str:
    """A module that names every op and imports every module that the tables explain."""
    ops = sorted({op for gap in op_calls.read(ROOT) for op in gap.ops})
    absent = "".join(f"import {name}\n" for name in faces.read(ROOT).absent)
    named = "".join(f"torch.ops.{op.replace('::', '.')}\n" for op in ops)
    return f"import torch\n{absent}{named}"


def _project() -> str:
    recipe = (ROOT / "recipe" / "vllm" / "recipe.yaml").read_text(encoding="utf-8")
    commands = re.findall(r"^ +- ([\w-]+) = ([\w.]+:\w+)$", recipe, re.MULTILINE)
    (python,) = re.findall(r"^ +- python ([<>=]\S+)$", recipe, re.MULTILINE)
    scripts = "".join(f'{name} = "{place}"\n' for name, place in commands)
    return (
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "vllm"\ndynamic = ["version"]\nrequires-python = "{python}"\n'
        f"[project.scripts]\n{scripts}"
    )


def files(version: str) -> dict[str, str]:
    """The files of an engine that differs in nothing from the tables, without its top folder."""
    table, requirements = faces.read(ROOT), engine_requirements.read(ROOT)
    licenses = ROOT / "third_party" / "licenses" / "vllm"
    return {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n",
        "pyproject.toml": _project(),
        "LICENSE": (licenses / "LICENSE").read_text(encoding="utf-8"),
        **{
            f"requirements/{file}.txt": "".join(
                f"{name}{specifier}\n" for name, specifier in requirements.of_file(file).items()
            )
            for file in (engine_requirements.COMMON, *engine_requirements.DEVICES)
        },
        **{name: f"# the engine's {name}\n" for name in (*table.thin, *table.ours)},
        "vllm/calls.py": _calls(),
        "CMakeLists.txt": "project(vllm)\n",
        "cmake/utils.cmake": "",
        **{path: _bindings(device) for device, path in BINDINGS.items()},
    }


@dataclass
class Index:
    """A folder in which pip looks for source distributions."""

    folder: Path
    sha256: dict[str, str] = field(default_factory=dict)

    def add(self, version: str, changes: dict[str, str | None] | None = None) -> Path:
        """Add or replace a release.

        Args:
            version: of the engine.
            changes: file → its content; None removes the file.
        """
        content: dict[str, str | None] = {**files(version), **(changes or {})}
        path = self.folder / f"vllm-{version}.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for name, text in sorted(content.items()):
                if text is None:
                    continue
                info, data = tarfile.TarInfo(f"vllm-{version}/{name}"), text.encode()
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        self.sha256[version] = hashlib.sha256(path.read_bytes()).hexdigest()
        return path
