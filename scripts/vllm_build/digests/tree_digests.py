# SPDX-License-Identifier: Apache-2.0
"""Digests of the source tree: of each output's binaries, the Python package and the packing.

A digest is the sha256 over one line ``<entry> NUL <sha256 of its content> LF`` per input, entries
in byte order. An entry is a path relative to the tree, with forward slashes, or a record of a
table. :mod:`vllm_build.digests.kernel_inputs` and :mod:`vllm_build.digests.digest_rules` choose the
inputs. A digest is the same on every machine, in every folder, with and without git.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from vllm_build.digests import digest_rules, kernel_inputs
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vllm_build.digests.influence import Influence
    from vllm_build.kernels.build_plan import Plan

#: Twelve hex digits are enough for names that people compare. The package's build_info contains the
#: full digest.
SHORT = 12


def of_entries(entries: Mapping[str, str]) -> str:
    """The hexadecimal digest of named inputs; ``entries`` maps each name to a sha256."""
    total = hashlib.sha256()
    for name, value in sorted(entries.items(), key=lambda item: item[0].encode()):
        total.update(f"{name}\0{value}\n".encode())
    return total.hexdigest()


def package_inputs(root: Path) -> dict[str, str]:
    """Entry → sha256 of everything that affects the Python package: files, and the locked engine.

    Raises:
        ConfigurationError: the tree lacks a file, or the lock is malformed.
    """
    files = digest_rules.digests_of(root, digest_rules.of_package(root))
    return files | kernel_inputs.locked(root, "vllm")


def package_digest(root: Path) -> str:
    """Digest of everything in the tree that affects the Python package."""
    return of_entries(package_inputs(root))


def recipe_inputs(root: Path, package: str) -> dict[str, str]:
    """Path → sha256 of everything that shapes how a conda package is packed.

    Raises:
        ConfigurationError: the tree lacks one of them.
    """
    return digest_rules.digests_of(root, digest_rules.of_recipe(root, package))


def recipe_digest(root: Path, package: str) -> str:
    """Digest of everything in the tree that shapes how a conda package is packed.

    Wheels do not depend on it.

    Raises:
        ConfigurationError: of :func:`recipe_inputs`.
    """
    return of_entries(recipe_inputs(root, package))


def kernel_digest(root: Path, component: str) -> str:
    """Digest of everything in the tree that affects the libraries of one output, for all devices.

    Raises:
        ConfigurationError: there is no such output, or the tree is incomplete.
    """
    return of_entries(kernel_inputs.of(root, component))


def build_digest(
    kernels: str, component: str, plan: Plan, abi: str, influences: Sequence[Influence] = ()
) -> str:
    """Digest of the libraries that a plan builds for one output.

    It covers the kernel digest, the device, the toolkit's major version, each extension's kernels
    with their architectures, definitions and options, and the Python ABI. It does not cover the
    compiler, the optimisation level and the toolkit's minor version: libraries that differ only in
    these are interchangeable.

    Args:
        kernels: the output's kernel digest.
        component: the output.
        plan: what is built.
        abi: ``abi3``, or an interpreter's SOABI.
        influences: result of :func:`vllm_build.native.private_build.influences`. The digest of a
            private build differs from that of a clean one.

    Raises:
        ConfigurationError: the plan builds no library of the output.
    """
    extensions = [extension for extension in plan.extensions if extension.component == component]
    if not extensions:
        raise ConfigurationError(
            f"this build has no library of {component}",
            expected="one of " + ", ".join(plan.components),
        )
    choices = {
        "device": plan.device,
        "toolkit": plan.toolkit_version.partition(".")[0] if plan.toolkit_version else "",
        "abi": abi,
        "extensions": {
            extension.name: {
                kernel.name: [
                    kernel.archs,
                    kernel.definitions,
                    kernel.options,
                    kernel.third_party_sources,
                ]
                for kernel in extension.kernels
            }
            for extension in extensions
        },
    }
    text = json.dumps(choices, sort_keys=True, separators=(",", ":"))
    entries = {"kernels": kernels, "choices": hashlib.sha256(text.encode()).hexdigest()}
    return of_entries(
        entries
        | {
            f"private {number} {influence.name}": influence.digest
            for number, influence in enumerate(influences)
        }
    )
