# SPDX-License-Identifier: Apache-2.0
"""The setuptools command that puts the Python package together: its modules, and the version that they report."""

from __future__ import annotations

from pathlib import Path

from setuptools.command.build_py import build_py

from vllm_build import paths, version


class versioned_build_py(build_py):  # noqa: N801 - setuptools commands are named in lower case
    """Writes ``vllm/_version.py``: beside the modules it builds, or into the tree for an editable install."""

    def _place(self) -> Path:
        return paths.source_root() if self.editable_mode else Path(self.build_lib)

    def run(self) -> None:
        """Copy the modules and write the version: two builds of one tree at the same time each carry their own."""
        super().run()
        version.write_version_file(self._place(), self.distribution.get_version())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:  # noqa: FBT001, FBT002 - setuptools' signature
        """The files of the package, the generated one among them."""
        found: list[str] = super().get_outputs(include_bytecode)
        generated = str(Path(self.build_lib) / "vllm" / "_version.py")
        # An editable install finds it in the tree, as the other modules.
        return found if self.editable_mode or generated in found else [*found, generated]
