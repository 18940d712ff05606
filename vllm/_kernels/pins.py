# SPDX-License-Identifier: Apache-2.0
"""The builds of the kernels that this installation of vllm requires.

The conda package of vllm pins each kernel package by version and digest. A solver honours the pins;
``--no-deps``, ``--force`` and copied files do not. This module compares the installed kernels with
the pins of the conda environment, so that messages can name both.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

#: A requirement such as ``vllm-kernels ==0.1.0 *_k0123456789ab_*``.
_PIN = re.compile(r"(?P<component>vllm-[a-z0-9-]+) ==(?P<version>\S+) \*_k(?P<digest>[0-9a-f]+)_\*")
_PACKAGE = Path(__file__).absolute().parents[1]


@dataclass(frozen=True)
class Pin:
    """The version and the first digits of the kernel digest that vllm requires of a component."""

    version: str
    digest: str


def pins(prefix: Path | None = None, package: Path = _PACKAGE) -> dict[str, Pin]:
    """The pin of each component, from the conda package of vllm.

    Empty outside a conda environment, and if ``package`` is not the vllm of that environment, such
    as a source tree.

    Args:
        prefix: the conda environment; default: this interpreter's.
        package: the folder of the package.
    """
    prefix = prefix or Path(sys.prefix)
    if not package.is_relative_to(prefix):
        return {}
    found: dict[str, Pin] = {}
    for path in sorted((prefix / "conda-meta").glob("vllm-*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["name"] != "vllm":
                continue
            requirements = [*(record.get("depends") or []), *(record.get("constrains") or [])]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # collect_env reports unreadable records
        matches = (_PIN.fullmatch(str(requirement)) for requirement in requirements)
        found |= {
            match["component"]: Pin(match["version"], match["digest"]) for match in matches if match
        }
    return found


def describe(version: object, digest: object) -> str:
    """Describe a build of the kernels in words; unknown parts are omitted."""
    known = [str(version) if isinstance(version, str) and version else "of unknown version"]
    known += [f"with digest {digest[:12]}"] if isinstance(digest, str) and digest else []
    return " ".join(known)


def mismatch(
    component: str, version: str, digest: str, prefix: Path | None = None, package: Path = _PACKAGE
) -> str | None:
    """How an installed component differs from the one that vllm requires, with the remedy.

    Versions are compared without their local part, which names the device.

    Returns:
        Several lines, or None if no difference is known.
    """
    pin = pins(prefix, package).get(component)
    if pin is None or (version.partition("+")[0] == pin.version and digest.startswith(pin.digest)):
        return None
    return explain(component, describe(version, digest), describe(pin.version, pin.digest))


def explain(component: str, found: str, expected: str) -> str:
    """The lines of a message: expected build, installed build, remedy."""
    return (
        f"  expected: {component} {expected}\n"
        f"  found:    {component} {found}\n"
        f"  to do:    install both of one build: conda install --force-reinstall vllm {component}; "
        "in a source tree, pip install -e ."
    )
