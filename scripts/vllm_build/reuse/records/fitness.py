# SPDX-License-Identifier: Apache-2.0
"""Checks whether a build fits this tree and this machine.

The record alone decides, before any library is fetched.
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

#: ELF ``e_machine`` values (gABI) of the processors that packages are built for.
_MACHINES = {"x86_64": 62, "aarch64": 183, "ppc64le": 21, "riscv64": 243}
_ELF_HEAD = struct.Struct("<4sBB10xHH")
_SHARED_OBJECT, _CLASS64, _LITTLE = 3, 2, 1


@dataclass(frozen=True)
class Machine:
    """The machine that the kernels will run on.

    Attributes:
        device: as in ``VLLM_TARGET_DEVICE``.
        toolkit: release of the device's toolkit; None if the device has none or the release is
            unknown.
        torch: version of the installed torch; None if there is none.
        platform: as ``sysconfig.get_platform()`` names it.
        python_abi: the extensions' Python ABI.
        cpu_flags: the processor's instruction sets, as /proc/cpuinfo spells them; empty if it
            lists none.
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
        # A torch that pip installed only for the build is not the one that will load the kernels.
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
        digest: its build digest, which identifies one build by its sources, device, toolkit,
            architectures and ABI.
        kernel_digest: digest of its sources alone; conda packages have it in their build strings.
        libraries: paths of its libraries, relative to the folder that holds ``vllm``.
        tree_digest: if private builds are accepted, what ``digest`` would be without this
            environment's own flags and sources; otherwise empty.
    """

    output: str
    digest: str
    kernel_digest: str
    libraries: tuple[str, ...]
    tree_digest: str = ""


def _require_digest(record: Record, wanted: Wanted, where: str) -> None:
    """Compare the build digests. A private build differs from the build of the same tree.

    Raises:
        RefusedError: the check ``private`` or ``digest`` failed.
    """
    if record.private and not wanted.tree_digest:
        raise RefusedError(
            "private",
            where,
            f"{record.output} is a private build: {', '.join(record.private)}",
            expected="a build with only the tree's own flags and third-party sources",
            remedy="use another build, or set VLLM_PRECOMPILED_PRIVATE=1 to accept this one",
        )
    if record.digest != wanted.digest and not (
        record.private and record.tree_digest == wanted.tree_digest
    ):
        raise RefusedError(
            "digest",
            where,
            f"{record.output} was built from different sources or with different settings: its "
            f"build digest is {record.digest}",
            expected=f"{wanted.digest}, the digest of this tree",
            remedy="use a build of exactly this tree, or set VLLM_PRECOMPILED_PARTIAL=1 to compile "
            "the outputs that do not match",
        )


def require(record: Record, wanted: Wanted, machine: Machine, where: str) -> None:
    """Compare a record with the wanted output and the machine.

    Raises:
        RefusedError: a check failed. The checks run in this order: private, digest, device,
            toolkit, platform, python-abi, torch, member-name.
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
            f"use a build for {machine.device}, or correct VLLM_TARGET_DEVICE",
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
            f"lists {', '.join(sorted(listed)) or 'no library'}; the difference is {odd}",
            ", ".join(wanted.libraries),
            other,
        )


def require_wheel_name(filename: str, where: str) -> None:
    """Compare the tags of a wheel's file name with this interpreter.

    A name that is not a valid wheel name passes: it has no tags.

    Raises:
        RefusedError: this interpreter supports none of the tags.
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
    """Check a library's ELF header, because a record may name the wrong platform.

    Raises:
        RefusedError: it is not a shared library for this machine's processor.
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
