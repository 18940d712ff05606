# SPDX-License-Identifier: Apache-2.0
"""Official wheels in place of a build of this tree: refused unless asked for, and then only after an audit."""

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
from vllm_build.reuse.lookup.decisions import REUSE, Decision
from vllm_build.reuse.records import member_names
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import trust
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.reuse.foreign.foreign_audit import Audit
    from vllm_build.reuse.foreign.foreign_wheel import Facts, Pick
    from vllm_build.reuse.net.reuse_context import Context
    from vllm_build.reuse.records.fitness import Machine, Wanted
    from vllm_build.settings.build_settings import Settings

SCHEMA = 1
#: Values of VLLM_PRECOMPILED_FOREIGN that accept a wheel.
WHOLE, INCOMPLETE = "1", "incomplete"


@dataclass(frozen=True)
class Audited:
    """A wheel that was looked at.

    Attributes:
        where: it lies.
        facts: what it says of itself; its torch requirement is in the audit.
        files: the libraries in the cache, each with what it stands in for; none when the audit
            failed before they were fetched.
        audit: what was found.
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
    """For each extension that is a Python module what its stub declares."""
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
    """Look at a wheel: its metadata, its libraries, and, when nothing is wrong so far, what they register once they are loaded.

    Args:
        context: of the reuse.
        root: of the source tree.
        plan: of a build for the device, which says what is needed.
        machine: that the kernels are for.
        location: of the wheel, path or address.
        sha256: that it must have.
        inherited: the variables that a child which loads the libraries starts from.
        stand_ins: see :func:`vllm_build.reuse.foreign.foreign_audit.of_libraries`.

    Raises:
        ConfigurationError: the location is no wheel.
        FetchError: it cannot be had. RefusedError: it is not sound, or a build of this project.
    """
    result = foreign_audit.Audit()
    with foreign_wheel.ForeignWheel(context, location, sha256) as wheel:
        wheel.read()
        picks, missing = foreign_wheel.pick(plan.extensions, wheel.found, machine.cpu_flags)
        foreign_audit.of_metadata(result, wheel.facts, missing, picks)
        if result.failed:
            return Audited(location, wheel.facts, {}, result)
        fetched = wheel.libraries(picks)
    with context.cache.incoming() as folder:
        files = {}
        for number, one in enumerate(picks.picks):
            # Python imports a module by its file's name; the cache has names of its own.
            link = folder / str(number) / one.library.file.rpartition("/")[2]
            link.parent.mkdir()
            try:
                os.link(fetched[one.library.file], link)
            except OSError:  # a file system without links
                shutil.copyfile(fetched[one.library.file], link)
            files[link] = one
        foreign_audit.of_libraries(
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
    """Settings for a plan with FlashAttention, which a wheel brings and a build has only when it is asked for."""
    return dataclasses.replace(settings, flash_attention_set=settings.flash_attention_set or "full")


def require(found: Audited, mode: str, *, table: bool = True) -> None:
    """Refuse what failed the audit.

    Args:
        found: the wheel.
        mode: value of VLLM_PRECOMPILED_FOREIGN.
        table: put the whole table into the message, for whoever has not seen it.

    Raises:
        RefusedError: a line of the audit is against it.
    """
    rows, remedy = (
        found.audit.failed + found.audit.unseen,
        "compile this tree, or take a wheel that fits this machine and this torch",
    )
    if not rows and mode != INCOMPLETE:
        rows = [row for row in found.audit.rows if row.verdict == foreign_audit.LACKING]
        remedy = (
            f"compile this tree, or set VLLM_PRECOMPILED_FOREIGN={INCOMPLETE}: what is "
            "lacking then is an error where it is called"
        )
    if rows:
        raise RefusedError(
            "foreign",
            found.where,
            (
                f"{found.title} does not pass the audit, by {len(rows)} of {len(found.audit.rows)} "
                "lines"
            )
            + (f":\n{found.audit.text()}" if table else ""),
            expected="libraries that can stand in for a build of this tree",
            remedy=remedy,
        )


def record(found: Audited, device: str) -> bytes:
    """What is written beside the libraries: ``vllm/_build_info/foreign.json``, which :mod:`vllm.build_info` reads."""
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
    """Libraries that are taken: a Python module that lacks a function is not."""
    return [one for one in found.files.values() if one.extension not in found.audit.unusable]


@dataclass(frozen=True)
class ForeignReuse:
    """A reuse of an audited wheel; to be used as :class:`vllm_build.reuse.preparation.Reuse` is."""

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
        """The libraries and the record, in the cache, by their places below the folder that holds ``vllm``."""
        taken = usable(self.found)
        files = {one.library.file: path for path, one in self.found.files.items() if one in taken}
        return {
            **files,
            member_names.record_name(member_names.FOREIGN): self.context.cache.add_bytes(
                record(self.found, self.device)
            ),
        }


@contextmanager
def prepared(
    root: Path,
    settings: Settings,
    context: Context,
    plan: Plan,
    machine: Machine,
    needed: Sequence[Wanted],
) -> Iterator[ForeignReuse]:
    """Audit the wheel of ``VLLM_PRECOMPILED_WHEEL_LOCATION``, and refuse it or offer its files.

    Raises:
        ConfigurationError: no location is set.
        FetchError: the wheel cannot be had. RefusedError: it does not pass.
    """
    location = settings.precompiled_location
    if not location:
        raise ConfigurationError(
            "VLLM_PRECOMPILED_FOREIGN is set, and no wheel is named",
            expected="VLLM_PRECOMPILED_WHEEL_LOCATION: an official wheel is never looked for",
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
