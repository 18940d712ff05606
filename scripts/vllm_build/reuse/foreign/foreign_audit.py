# SPDX-License-Identifier: Apache-2.0
"""The audit of an official wheel: whether its libraries can replace a build of this tree here."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from packaging.tags import platform_tags

from vllm_build.checks import elf
from vllm_build.reuse.foreign import binary_checks, load_checks
from vllm_build.reuse.foreign.audit_table import join_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vllm_build.reuse.foreign.audit_table import Audit
    from vllm_build.reuse.foreign.foreign_wheel import Facts, Pick, Picks
    from vllm_build.reuse.records.fitness import Machine


def check_metadata(result: Audit, facts: Facts, missing: Sequence[str], picks: Picks) -> None:
    """Check the platform and the list of libraries, before a library is fetched.

    Args:
        result: gets the rows.
        facts: of the wheel.
        missing: names of the extensions that the wheel has no library for.
        picks: the chosen libraries.
    """
    here = set(platform_tags())
    tags = {tag.platform for tag in facts.tags}
    result.add(
        "platform",
        join_names(tags),
        f"one of pip's tags for {platform.machine()}",
        good=not here.isdisjoint(tags),
    )
    for one in picks.picks:
        flags = f" ({', '.join(sorted(one.cpu_flags))})" if one.cpu_flags else ""
        result.add(
            "library", f"{one.library.file}{flags}", f"a library for {one.extension}", good=True
        )
    for name in missing:
        result.add_lacking("library", "none that this machine can run", f"a library for {name}")
    if not picks.picks:
        result.add("library", "no library of vLLM's kernels", "at least one", good=False)


def check_libraries(
    result: Audit,
    files: Mapping[Path, Pick],
    facts: Facts,
    machine: Machine,
    expected: Mapping[str, tuple[str, ...]],
    functions: Mapping[str, Sequence[str]],
    torch_path: str | None,
    inherited: Mapping[str, str],
    *,
    stand_ins: bool,
) -> None:
    """Check the fetched libraries; they are loaded only if all other checks pass.

    Args:
        result: gets the rows.
        files: fetched library -> the extension that it replaces.
        facts: of the wheel.
        machine: the machine that the kernels are for.
        expected: dispatch key -> schemas that our Python calls, from
            :func:`vllm_build.kernels.op_table.of_plan`.
        functions: extension -> functions that our Python calls, for extensions that are Python
            modules.
        torch_path: ``PYTHONPATH`` with which a child process can import torch; None if there is no
            torch.
        inherited: environment variables of the child process; its ``CC`` compiles the stand-ins.
        stand_ins: load the libraries on a machine without the device, with empty libraries instead
            of the driver and torch's part for the device.

    Raises:
        BuildError: a file is not a valid library.
    """
    libraries = {path: elf.read(path) for path in files}
    modules = {path for path, one in files.items() if one.extension in functions}
    others = {path: library for path, library in libraries.items() if path not in modules}
    binary_checks.check_glibc(result, libraries.values())
    binary_checks.check_python(result, libraries, modules, machine)
    binary_checks.check_torch(result, others, facts, machine)
    binary_checks.check_toolkit(result, libraries.values(), machine)
    if not result.failed:
        load_checks.check_loading(
            result,
            files,
            libraries,
            expected,
            functions,
            torch_path,
            inherited,
            stand_ins=stand_ins,
        )
