# SPDX-License-Identifier: Apache-2.0
"""The engine's CUDA sources, copied to the build folder with what its programs write."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.kernels import op_table
from vllm_build.kernels.kernel_records import GENERATORS
from vllm_build.sources import op_registrations, stable_inputs, third_party
from vllm_build.util.errors import ConfigurationError, IntegrityError, ToolchainError
from vllm_build.util.processes import children
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings

NAME = "engine-kernels"
#: The programs that write Marlin's and Machete's kernels import it.
REQUIREMENT = "jinja2>=3"
#: CUTLASS's headers, and its Python modules, which Machete's program imports.
CUTLASS = "engine-cutlass"
#: The oldest release whose headers the engine's kernels compile with.
MINIMUM_CUTLASS = (4, 3)
#: The examples of CUTLASS that a kernel includes, as cmake/vllm_link_library.cmake spells them.
EXAMPLES = "cutlass-examples"
_CUTLASS_FOLDER = "3rdparty/cutlass"
_EXAMPLES_FOLDER = "third_party/cutlass/examples"
_MARLIN = "csrc/quantization/marlin/generate_kernels.py"
_MACHETE = "csrc/quantization/machete"
_EXTENSIONS = "csrc/cutlass_extensions"
#: Macros that cmake/vllm_compile_options.cmake defines and registrations depend on.
_MACROS = ("USE_CUDA",)
#: TORCH_EXTENSION_NAME, which these sources do not use for namespaces.
_LIBRARY = "_C"
#: Runs a program with further folders on its path, regardless of the environment.
_RUN = (
    "import runpy, sys; sys.path[:0] = sys.argv.pop(1).split('|'); sys.argv.pop(0); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


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
    project: Path, cutlass: Path, generator: str, targets: Sequence[str], scratch: Path
) -> dict[str, bytes]:
    """Path below the project → content of each file that a program writes.

    Raises:
        ToolchainError: it failed.
    """
    output, path = scratch / "output", [scratch]
    if generator == "machete":
        # It writes into a folder next to itself.
        program = shutil.copytree(project / _MACHETE, scratch / "machete") / "generate.py"
        arguments: list[str] = []
        output = scratch / "machete" / "generated"
        path = [project / _EXTENSIONS, cutlass / "python"]
    else:
        program = project / _MARLIN
        arguments = [",".join(target.removesuffix("+PTX") for target in targets), str(output)]
        output.mkdir()
    _run(generator, program, arguments, path)
    return {f"{GENERATORS[generator]}/{file.name}": file.read_bytes() for file in output.iterdir()}


def _require_release(folder: Path) -> None:
    """Refuse an old CUTLASS, which fails after minutes with errors in its templates.

    Raises:
        ConfigurationError: the release is older than :data:`MINIMUM_CUTLASS`, or unknown.
    """
    header = folder / "include" / "cutlass" / "version.h"
    text = header.read_text(encoding="utf-8", errors="replace") if header.is_file() else ""
    found = dict(re.findall(r"#define CUTLASS_(MAJOR|MINOR) ([0-9]{1,4})\b", text))
    release = (int(found.get("MAJOR", 0)), int(found.get("MINOR", 0)))
    if release < MINIMUM_CUTLASS:
        said = ".".join(map(str, release)) if found else "of unknown release"
        raise ConfigurationError(
            f"{folder} is CUTLASS {said}",
            expected=f"CUTLASS {'.'.join(map(str, MINIMUM_CUTLASS))} or newer for the engine's "
            "kernels",
            remedy=f"correct {third_party.variable('cutlass')}, or unset it and run `vllm-build "
            f"fetch {CUTLASS}`",
        )


def _cutlass(root: Path, settings: Settings) -> Path:
    """The folder of CUTLASS: the locked one, or the user's checkout.

    Raises:
        ConfigurationError: the user's folder is not a checkout of CUTLASS.
        FetchError, IntegrityError: the locked sources have not been fetched, or were changed.
    """
    folder = third_party.folder(root, CUTLASS, settings.cutlass_source)
    for place in (folder / _CUTLASS_FOLDER, folder):
        if (place / "include" / "cutlass").is_dir() and (place / "tools" / "util").is_dir():
            _require_release(place)
            return place
    raise ConfigurationError(
        f"{folder} does not contain the sources of CUTLASS",
        expected="include/cutlass and tools/util in it",
        remedy=f"correct {third_party.variable('cutlass')}, or unset it and run `vllm-build fetch "
        f"{CUTLASS}`",
    )


def prepare(root: Path, settings: Settings, plan: Plan, inputs: Path) -> dict[str, str]:
    """Copy the sources below ``inputs``, and run the programs that the plan needs.

    Returns CMake variables: none if the plan has no kernel of the engine.

    Raises:
        ConfigurationError: a source of the plan is neither in the sources nor written, or the
            user's folder is not a checkout of CUTLASS.
        FetchError: the locked sources have not been fetched.
        IntegrityError: the fetched sources were changed.
        ToolchainError: a program failed.
    """
    wanted = plan.third_party_sources.get(NAME)
    if wanted is None:
        return {}
    project = third_party.folder(root, NAME, None, ", or unset VLLM_KERNELS")
    cutlass = _cutlass(root, settings)
    generators = dict.fromkeys(
        generator
        for extension in plan.extensions
        for kernel in extension.kernels
        for generator in kernel.generators
    )
    written: dict[str, bytes] = {}
    for generator in generators:
        with tempfile.TemporaryDirectory() as scratch:
            written |= _generate(project, cutlass, generator, plan.targets, Path(scratch))
    for name in wanted:
        if name not in written and not (project / name).is_file():
            raise ConfigurationError(
                f"{project / name} does not exist",
                expected="every source that csrc/kernels.toml lists, or a program that writes it",
            )
    copy = stable_inputs.mirror(
        project, inputs / NAME, ("csrc",), more=written, what="the sources of the engine"
    )
    found = {
        "ENGINE_KERNELS_SRC_DIR": str(copy),
        "ENGINE_CUTLASS_DIR": str(stable_inputs.link(inputs / CUTLASS, cutlass)),
    }
    if EXAMPLES in plan.libraries:
        examples = third_party.folder(root, EXAMPLES, None) / _EXAMPLES_FOLDER
        found["CUTLASS_EXAMPLES_DIR"] = str(stable_inputs.link(inputs / EXAMPLES, examples))
    return found


def ops(plan: Plan, folder: Path) -> dict[str, tuple[str, ...]]:
    """Dispatch key → schemas that the engine's units of a plan register.

    The key ``op_table.NO_KEY`` has the ops that they define and nothing implements.

    Args:
        plan: what is built.
        folder: the engine's sources. Sources that programs write may be missing: these register
            nothing.

    Raises:
        IntegrityError: the registrations cannot be read, or an op is implemented without a schema.
    """
    schemas: dict[str, str] = {}
    keys: dict[str, list[str]] = {}
    for extension in plan.extensions:
        defined = {macro.partition("=")[0] for macro in (*_MACROS, *extension.definitions)}
        for kernel in extension.kernels:
            if kernel.third_party != NAME:
                continue
            for path in (folder / source for source in kernel.third_party_sources):
                if not path.is_file():
                    continue
                text = path.read_text(encoding="utf-8", errors="replace")
                found = op_registrations.read(
                    op_registrations.compiled(text, {*defined, *kernel.definitions}), _LIBRARY
                )
                schemas |= {schema.partition("(")[0]: schema for schema in found.schemas}
                for key, name in found.implementations:
                    keys.setdefault(key, []).append(name)
    implemented = {name for names in keys.values() for name in names}
    if unknown := sorted(implemented - set(schemas)):
        raise IntegrityError(
            f"the engine's sources implement {', '.join(unknown)} and define no such op",
            expected="a definition in csrc/torch_bindings.cpp or csrc/moe/torch_bindings.cpp",
            remedy="upstream changed them: extend vllm_build/sources/op_registrations.py",
        )
    keys[op_table.NO_KEY] = sorted(set(schemas) - implemented)
    return {key: tuple(schemas[name] for name in names) for key, names in keys.items() if names}
