# SPDX-License-Identifier: Apache-2.0
"""The setuptools commands that assemble the Python package: modules, version and metadata."""

from __future__ import annotations

import json
from pathlib import Path

from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

from vllm_build.digests import tree_digests
from vllm_build.engine import engine_source, faces
from vllm_build.project import distribution_version
from vllm_build.util import paths
from vllm_build.util.files import write_if_changed

#: File in the metadata of wheels: the kernel digest of each output whose libraries the wheel
#: contains.
KERNELS = "kernels.json"
#: The engine that a wheel contains: its version and the sha256 of its source distribution.
ENGINE_RECORD = "vllm/_kernels/_engine.json"


class versioned_build_py(build_py):  # noqa: N801 - setuptools commands are named in lower case
    """Writes ``vllm/_version.py`` next to the built modules, or into the tree if editable."""

    def _place(self) -> Path:
        return paths.source_root() if self.editable_mode else Path(self.build_lib)

    def run(self) -> None:
        """Copy the modules and write the version, so concurrent builds of a tree have their own."""
        super().run()
        distribution_version.write_version_file(self._place(), self.distribution.get_version())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:  # noqa: FBT001, FBT002 - setuptools' signature
        """The files of the package, including the generated one."""
        found: list[str] = super().get_outputs(include_bytecode)
        generated = str(Path(self.build_lib) / "vllm" / "_version.py")
        # An editable install finds it in the tree, like the other modules.
        return found if self.editable_mode or generated in found else [*found, generated]


def engine_build_py(kernels_version: str) -> type[versioned_build_py]:
    """The command that puts the engine around our modules.

    Args:
        kernels_version: the version of the tree, which differs from the distribution's.
    """

    class command(versioned_build_py):  # noqa: N801 - setuptools commands are named in lower case
        """Merges the engine's files with ours, see :mod:`vllm_build.engine.faces`."""

        _merged: tuple[str, ...] = ()

        def run(self) -> None:
            """Copy our modules, then the engine's around them, and write both versions."""
            super().run()
            root, place = paths.source_root(), self._place()
            engine = engine_source.find(root)
            self._merged = tuple(faces.merge(root, engine, place))
            distribution_version.write_version_file(
                place, self.distribution.get_version(), parts=True
            )
            distribution_version.write_version_file(
                place, kernels_version, folder=distribution_version.KERNELS_FOLDER
            )
            text = json.dumps({"version": engine.version, "sha256": engine.sha256}, indent=2)
            write_if_changed(place / ENGINE_RECORD, text + "\n")

        def get_outputs(self, include_bytecode: bool = True) -> list[str]:  # noqa: FBT001, FBT002 - setuptools' signature
            """The files of the package, including the engine's."""
            merged = [
                str(Path(self.build_lib, name))
                for name in (
                    *self._merged,
                    f"{distribution_version.KERNELS_FOLDER}/_version.py",
                    ENGINE_RECORD,
                )
            ]
            return list(dict.fromkeys([*super().get_outputs(include_bytecode), *merged]))

    return command


def stamped_egg_info(outputs: tuple[str, ...]) -> type[egg_info]:
    """The command that writes metadata, with the kernel digests of ``outputs`` in :data:`KERNELS`.

    Without outputs there is no such file. The digests are known before anything is compiled, so
    both hooks of a build backend write the same metadata.
    """

    class command(egg_info):  # noqa: N801 - setuptools commands are named in lower case
        """Writes metadata, see :func:`stamped_egg_info`."""

        def run(self) -> None:
            """Write our file first, because setuptools' own files list it."""
            digests = {
                output: tree_digests.kernel_digest(paths.source_root(), output)
                for output in outputs
            }
            text = (
                json.dumps({"schema": 1, "kernel_digests": digests}, indent=2, sort_keys=True)
                + "\n"
            )
            self.mkpath(self.egg_info)
            self.write_or_delete_file(
                "kernels", str(Path(self.egg_info) / KERNELS), text if outputs else "", force=True
            )
            super().run()

    return command
