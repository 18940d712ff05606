# SPDX-License-Identifier: Apache-2.0
"""Whether a build fits this tree and this machine.

All of it is decided on the record, before a library is fetched.
"""

from __future__ import annotations

import platform
import struct
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from vllm_build.native import build_configuration
from vllm_build.reuse.records.refusal import RefusedError

if TYPE_CHECKING:
    from vllm_build.reuse.records.output_record import Record
    from vllm_build.target.device import Target

#: ``e_machine`` of the processors that packages are made for (gABI).
_MACHINES = {"x86_64": 62, "aarch64": 183, "ppc64le": 21, "riscv64": 243}
_ELF_HEAD = struct.Struct("<4sBB10xHH")
_SHARED_OBJECT, _CLASS64, _LITTLE = 3, 2, 1


@dataclass(frozen=True)
class Machine:
    """What kernels are wanted for.

    Attributes:
        device: as in ``VLLM_TARGET_DEVICE``.
        toolkit: release of the device's toolkit; None where the device has none, or it is not
            known.
        torch: the installed torch; None when there is none.
        platform: as ``sysconfig.get_platform()`` names it.
        python_abi: of the extensions.
        cpu_flags: instruction sets of the processor, as /proc/cpuinfo spells them; none where it
            has no such line.
    """

    device: str
    toolkit: Version | None
    torch: Version | None
    platform: str
    python_abi: str
    cpu_flags: frozenset[str] = frozenset()

    @classmethod
    def here(cls, target: Target) -> Machine:
        """This interpreter on this machine."""
        # A torch that pip brought for the build alone is not the one that will load the kernels.
        torch = target.torch if target.torch is not None and not target.torch.temporary else None
        version = Version(torch.version) if torch is not None and torch.version else None
        return cls(
            target.name,
            target.release,
            version,
            sysconfig.get_platform(),
            build_configuration.python_abi(),
            _cpu_flags(),
        )


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split()
    )


@dataclass(frozen=True)
class Wanted:
    """An output that this tree needs.

    Attributes:
        output: its name.
        digest: its build digest, which tells one build from all others: sources, device, toolkit,
            architectures, ABI.
        kernel_digest: of its sources alone, which is in the build strings of conda packages.
        libraries: their paths below the folder that holds ``vllm``.
        tree_digest: where private builds are accepted: what ``digest`` would be without this
            environment's own flags and sources.
    """

    output: str
    digest: str
    kernel_digest: str
    libraries: tuple[str, ...]
    tree_digest: str = ""


def _require_digest(record: Record, wanted: Wanted, where: str) -> None:
    """Compare the build digests; a private build is another build than its tree's.

    Raises:
        RefusedError: check private or digest.
    """
    if record.private and not wanted.tree_digest:
        raise RefusedError(
            "private",
            where,
            f"{record.output} is a private build: {', '.join(record.private)}",
            expected="a build that its sources describe, without flags or third-party sources of "
            "somebody's own",
            remedy="take another build; to take this one, set VLLM_PRECOMPILED_PRIVATE=1",
        )
    if record.digest != wanted.digest and not (
        record.private and record.tree_digest == wanted.tree_digest
    ):
        raise RefusedError(
            "digest",
            where,
            f"{record.output} was built from other sources, or with other choices: build digest "
            f"{record.digest}",
            expected=f"{wanted.digest}, the digest of this tree",
            remedy="take a build of this very tree, or set VLLM_PRECOMPILED_PARTIAL=1 to compile "
            "what does not match",
        )


def require(record: Record, wanted: Wanted, machine: Machine, where: str) -> None:
    """Compare a record with what is wanted.

    Raises:
        RefusedError: the first check that fails: private, digest, device, toolkit, platform,
            python-abi, torch, member-name.
    """

    def refuse(check: str, found: str, expected: str, remedy: str) -> RefusedError:
        return RefusedError(
            check, where, f"{record.output} {found}", expected=expected, remedy=remedy
        )

    _require_digest(record, wanted, where)
    other = "build and publish for this machine, or unset VLLM_USE_PRECOMPILED to compile"
    if record.device != machine.device:
        raise refuse(
            "device",
            f"is for {record.device}",
            machine.device,
            "set VLLM_TARGET_DEVICE, or take a build for that device",
        )
    if (record.toolkit.major if record.toolkit else None) != (
        machine.toolkit.major if machine.toolkit else None
    ):
        raise refuse(
            "toolkit",
            f"was built with toolkit {record.toolkit}",
            f"the major release of {machine.toolkit}",
            other,
        )
    if record.platform != machine.platform:
        raise refuse("platform", f"is for {record.platform}", machine.platform, other)
    if record.python_abi != machine.python_abi:
        raise refuse(
            "python-abi", f"has the Python ABI {record.python_abi}", machine.python_abi, other
        )
    if machine.torch is not None and machine.torch.release[:2] < record.torch.release[:2]:
        raise refuse(
            "torch",
            f"needs torch >= {record.torch}",
            f"the installed torch, {machine.torch}, or older",
            "install a newer torch",
        )
    listed = {library.file for library in record.libraries}
    if listed != set(wanted.libraries):
        odd = ", ".join(sorted(listed ^ set(wanted.libraries)))
        raise refuse(
            "member-name",
            f"lists {', '.join(sorted(listed)) or 'nothing'}; the difference is {odd}",
            ", ".join(wanted.libraries),
            other,
        )


def require_wheel_name(filename: str, where: str) -> None:
    """Compare the tags of a wheel's file name with this interpreter; other names say nothing.

    Raises:
        RefusedError: no tag is one of this interpreter's.
    """
    try:
        tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:
        return
    if tags.isdisjoint(sys_tags()):
        said = ", ".join(sorted(map(str, tags)))
        raise RefusedError(
            "platform",
            where,
            f"the wheel is for {said}",
            expected="a wheel that pip would install here",
        )


def require_machine(head: bytes, where: str, file: str) -> None:
    """Check the first bytes of a library: what a record says of its platform is worth nothing if the library is for another.

    Raises:
        RefusedError: it is no shared library for this machine's processor.
    """
    if platform.system() != "Linux":
        return
    expected = f"a 64-bit ELF shared library for {platform.machine()}"
    if len(head) < _ELF_HEAD.size:
        raise RefusedError("elf", where, f"{file} is too short", expected=expected)
    magic, word, order, kind, machine = _ELF_HEAD.unpack_from(head)
    if (magic, word, order, kind) != (b"\x7fELF", _CLASS64, _LITTLE, _SHARED_OBJECT):
        raise RefusedError("elf", where, f"{file} begins with {head[:8]!r}", expected=expected)
    if machine != _MACHINES.get(platform.machine()):
        raise RefusedError("elf", where, f"{file} is for ELF machine {machine}", expected=expected)
