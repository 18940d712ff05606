# SPDX-License-Identifier: Apache-2.0
"""Official wheels that replace a build of this tree, if the user allows it and an audit passes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.checks import op_check
from vllm_build.kernels import op_table
from vllm_build.reuse.foreign import foreign_audit, foreign_wheel
from vllm_build.reuse.foreign.audit_table import LACKING, Audit
from vllm_build.reuse.lookup.decisions import REUSE, Decision
from vllm_build.reuse.records import member_names
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import trust
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.reuse.foreign.foreign_wheel import Facts, Pick
    from vllm_build.reuse.net.reuse_context import Context
    from vllm_build.reuse.records.fitness import Machine, Wanted
    from vllm_build.settings.build_settings import Settings

SCHEMA = 1
#: Values of VLLM_PRECOMPILED_FOREIGN that allow an official wheel.
WHOLE, INCOMPLETE = "1", "incomplete"


@dataclass(frozen=True)
class Audited:
    """An audited wheel.

    Attributes:
        where: its location.
        facts: from its metadata; the audit has its torch requirement.
        files: library in the cache -> the extension that it replaces; empty if the audit failed
            before the libraries were fetched.
        audit: the result.
    """

    where: str
    facts: Facts
    files: dict[Path, Pick]
    audit: Audit

    @property
    def title(self) -> str:
        """Name and release of the distribution."""
        return f"{self.facts.name} {self.facts.version}"


def _functions(root: Path, plan: Plan) -> dict[str, tuple[str, ...]]:
    """Extension -> functions that its stub declares, for extensions that are Python modules."""
    found = {}
    for extension in plan.extensions:
        if not extension.torch:
            text = (root / f"{extension.folder}/{extension.module}.pyi").read_text(encoding="utf-8")
            found[extension.name] = tuple(re.findall(r"^def (\w+)", text, re.MULTILINE))
    return found


def audit(
    context: Context,
    root: Path,
    plan: Plan,
    machine: Machine,
    location: str,
    sha256: str | None = None,
    *,
    inherited: Mapping[str, str],
    stand_ins: bool = False,
) -> Audited:
    """Audit a wheel: first its metadata, then its libraries, and then their ops once loaded.

    A failed step ends the audit.

    Args:
        context: of the reuse.
        root: of the source tree.
        plan: of a build for the device; it tells which libraries and ops are needed.
        machine: the machine that the kernels are for.
        location: path or address of the wheel.
        sha256: required sha256 of the wheel; None accepts any.
        inherited: environment variables of the child process that loads the libraries.
        stand_ins: as in :func:`vllm_build.reuse.foreign.foreign_audit.check_libraries`.

    Raises:
        ConfigurationError: the location is not a wheel.
        FetchError: the wheel cannot be fetched. RefusedError: it failed a check of its integrity,
            or is a build of this project.
    """
    result = Audit()
    with foreign_wheel.ForeignWheel(context, location, sha256) as wheel:
        wheel.read()
        picks, missing = foreign_wheel.pick(plan.extensions, wheel.found, machine.cpu_flags)
        foreign_audit.check_metadata(result, wheel.facts, missing, picks)
        if result.failed:
            return Audited(location, wheel.facts, {}, result)
        fetched = wheel.libraries(picks)
    with context.cache.incoming() as folder:
        files = {}
        for number, one in enumerate(picks.picks):
            # Python imports a module by its file name, which the cache does not keep.
            link = folder / str(number) / one.library.file.rpartition("/")[2]
            link.parent.mkdir()
            try:
                os.link(fetched[one.library.file], link)
            except OSError:  # a file system without links
                shutil.copyfile(fetched[one.library.file], link)
            files[link] = one
        foreign_audit.check_libraries(
            result,
            files,
            wheel.facts,
            machine,
            op_table.of_plan(op_table.load(root), plan),
            _functions(root, plan),
            op_check.torch_path(inherited),
            inherited,
            stand_ins=stand_ins,
        )
    return Audited(
        location, wheel.facts, {fetched[one.library.file]: one for one in picks.picks}, result
    )


def with_every_output(settings: Settings) -> Settings:
    """Settings for a plan with every library that a wheel replaces.

    FlashAttention is optional in a build, but in every wheel. The wheel's kernels take the place of
    this project's, whose ops the audit compares, and not that of the engine's own libraries.
    """
    return dataclasses.replace(
        settings, flash_attention_set=settings.flash_attention_set or "full", kernels="own"
    )


def require(found: Audited, mode: str, *, table: bool = True) -> None:
    """Refuse a wheel that failed the audit.

    Args:
        found: the wheel.
        mode: value of VLLM_PRECOMPILED_FOREIGN.
        table: put the whole table into the message; False if the user has already seen it.

    Raises:
        RefusedError: a row of the audit rules the wheel out.
    """
    rows, remedy = (
        found.audit.failed + found.audit.unseen,
        "compile this tree, or use a wheel that fits this machine and this torch",
    )
    if not rows and mode != INCOMPLETE:
        rows = [row for row in found.audit.rows if row.verdict == LACKING]
        remedy = (
            f"compile this tree, or set VLLM_PRECOMPILED_FOREIGN={INCOMPLETE}: calling a missing "
            "op is then an error"
        )
    if rows:
        raise RefusedError(
            "foreign",
            found.where,
            (
                f"{found.title} does not pass the audit: {len(rows)} of "
                f"{len(found.audit.rows)} checks failed"
            )
            + (f":\n{found.audit.text()}" if table else ""),
            expected="libraries that can replace a build of this tree",
            remedy=remedy,
        )


def record(found: Audited, device: str) -> bytes:
    """The content of ``foreign.json``, which :mod:`vllm._kernels.build_info` reads."""
    libraries = {
        one.extension.rpartition(".")[2]: {
            "file": one.library.file,
            "sha256": one.library.sha256,
            "size": one.library.size,
            "cpu_flags": sorted(one.cpu_flags),
        }
        for one in usable(found)
    }
    document = {
        "schema": SCHEMA,
        "distribution": found.facts.name,
        "version": str(found.facts.version),
        "device": device,
        "torch": found.audit.torch,
        "libraries": libraries,
        "unusable": found.audit.unusable,
    }
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def usable(found: Audited) -> list[Pick]:
    """The libraries that are used. A Python module that lacks a function is not."""
    return [one for one in found.files.values() if one.extension not in found.audit.unusable]


@dataclass(frozen=True)
class ForeignReuse:
    """A reuse of an audited wheel, with the interface of ``vllm_build.reuse.preparation.Reuse``."""

    decisions: tuple[Decision, ...]
    context: Context
    found: Audited
    device: str
    compiled: tuple[str, ...] = ()
    compiled_files: tuple[str, ...] = ()

    @property
    def report(self) -> str:
        """The table of the audit."""
        return f"audit of {self.found.title}:\n{self.found.audit.text()}\n"

    def fetch(self) -> dict[str, Path]:
        """Path below the folder that holds ``vllm`` -> cached file, for libraries and record."""
        taken = usable(self.found)
        files = {one.library.file: path for path, one in self.found.files.items() if one in taken}
        return {
            **files,
            member_names.record_name(member_names.FOREIGN): self.context.cache.add_bytes(
                record(self.found, self.device)
            ),
        }


@contextmanager
def prepare(
    root: Path,
    settings: Settings,
    context: Context,
    plan: Plan,
    machine: Machine,
    needed: Sequence[Wanted],
) -> Iterator[ForeignReuse]:
    """Audit the wheel that ``VLLM_PRECOMPILED_WHEEL_LOCATION`` names, and offer its files.

    Raises:
        ConfigurationError: the variable is unset.
        FetchError: the wheel cannot be fetched. RefusedError: it does not pass the audit.
    """
    location = settings.precompiled_location
    if not location:
        raise ConfigurationError(
            "VLLM_PRECOMPILED_FOREIGN is set, but no wheel is named",
            expected="VLLM_PRECOMPILED_WHEEL_LOCATION, because no official wheel is searched for",
            remedy="set it, or unset VLLM_PRECOMPILED_FOREIGN",
        )
    if settings.precompiled_key and not settings.precompiled_sha256:
        raise trust.unsigned(location, "an official wheel")
    found = audit(
        context,
        root,
        plan,
        machine,
        location,
        settings.precompiled_sha256,
        inherited=settings.inherited,
    )
    require(found, settings.precompiled_foreign)
    why = f"{found.title}, an official wheel that passed the audit"
    taken = {one.extension for one in usable(found)}
    outputs = {extension.component for extension in plan.extensions if extension.name in taken}
    decisions = tuple(Decision(w, REUSE, location, why) for w in needed if w.output in outputs)
    yield ForeignReuse(decisions, context, found, machine.device)
