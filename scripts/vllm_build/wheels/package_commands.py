# SPDX-License-Identifier: Apache-2.0
"""The setuptools commands that assemble the Python package: modules, version and metadata."""

from __future__ import annotations

import json
from pathlib import Path

from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

from vllm_build.digests import tree_digests
from vllm_build.project import distribution_version
from vllm_build.util import paths

#: File in the metadata of wheels: the kernel digest of each output whose libraries the wheel
#: contains.
KERNELS = "kernels.json"


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
