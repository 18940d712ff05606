# SPDX-License-Identifier: Apache-2.0
"""The engine's CUDA sources, copied to the build folder with what its programs write."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.kernels.kernel_records import GENERATORS
from vllm_build.sources import stable_inputs, third_party
from vllm_build.util.errors import ConfigurationError, ToolchainError
from vllm_build.util.processes import children
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm_build.kernels.build_plan import Plan

NAME = "engine-kernels"
#: CUTLASS's Python modules, which Machete's program imports.
LIBRARY = "cutlass-library"
_MARLIN = "csrc/quantization/marlin/generate_kernels.py"
_MACHETE = "csrc/quantization/machete"
_EXTENSIONS = "csrc/cutlass_extensions"
#: Runs a program with further folders on its path, whatever the environment says.
_RUN = "import runpy, sys; sys.path[:0] = sys.argv.pop(1).split('|'); sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"


def _run(what: str, program: Path, arguments: Sequence[str], path: Sequence[Path]) -> None:
    """Run a program of the engine's sources.

    Raises:
        ToolchainError: it failed; it needs jinja2.
    """
    folders = "|".join(map(str, path))
    command = [sys.executable, "-I", "-B", "-c", _RUN, folders, str(program), *arguments]
    done = children.run(command, merged=True)
    if done.returncode:
        raise ToolchainError(
            f"the engine's program {what} failed (exit status {done.returncode})\n"
            f"{excerpt(done.stdout.rstrip(), 2000, end=True)}",
            expected="sources of kernels, which it writes with jinja2",
            remedy=f"install jinja2 for {sys.executable}",
        )


def _generate(
    root: Path, project: Path, generator: str, targets: Sequence[str], scratch: Path
) -> dict[str, bytes]:
    """Path below the project → content of each file that a program writes.

    Raises:
        ToolchainError: it failed.
        FetchError, IntegrityError: CUTLASS's modules have not been fetched, or were changed.
    """
    output, path = scratch / "output", [scratch]
    if generator == "machete":
        # It writes into a folder next to itself.
        program = shutil.copytree(project / _MACHETE, scratch / "machete") / "generate.py"
        arguments: list[str] = []
        output = scratch / "machete" / "generated"
        path = [project / _EXTENSIONS, third_party.folder(root, LIBRARY, None)]
    else:
        program = project / _MARLIN
        arguments = [",".join(target.removesuffix("+PTX") for target in targets), str(output)]
        output.mkdir()
    _run(generator, program, arguments, path)
    return {f"{GENERATORS[generator]}/{file.name}": file.read_bytes() for file in output.iterdir()}


def prepare(root: Path, plan: Plan, inputs: Path) -> dict[str, str]:
    """Copy the sources below ``inputs``, and run the programs that the plan needs.

    Returns CMake variables: none if the plan has no kernel of the engine.

    Raises:
        ConfigurationError: a source of the plan is neither in the sources nor written.
        FetchError: the locked sources have not been fetched.
        IntegrityError: the fetched sources were changed.
        ToolchainError: a program failed.
    """
    wanted = plan.third_party_sources.get(NAME)
    if wanted is None:
        return {}
    project = third_party.folder(root, NAME, None, ", or unset VLLM_KERNELS")
    generators = dict.fromkeys(
        generator
        for extension in plan.extensions
        for kernel in extension.kernels
        for generator in kernel.generators
    )
    written: dict[str, bytes] = {}
    for generator in generators:
        with tempfile.TemporaryDirectory() as scratch:
            written |= _generate(root, project, generator, plan.targets, Path(scratch))
    for name in wanted:
        if name not in written and not (project / name).is_file():
            raise ConfigurationError(
                f"{project / name} does not exist",
                expected="every source that csrc/kernels.toml lists, or a program that writes it",
            )
    copy = stable_inputs.mirror(
        project, inputs / NAME, ("csrc",), more=written, what="the sources of the engine"
    )
    return {"ENGINE_KERNELS_SRC_DIR": str(copy)}
