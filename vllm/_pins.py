# SPDX-License-Identifier: Apache-2.0
"""Which builds of the kernels this installation of vllm requires, as far as a conda environment records it.

The conda package of vllm pins each package of kernels by version and digest. A solver keeps the
pins; ``--no-deps``, ``--force`` and copied files do not. This module compares what is installed
with the pins, so that messages can name both.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

#: A requirement such as ``vllm-kernels ==0.1.0 *_k0123456789ab_*``.
_PIN = re.compile(r"(?P<component>vllm-[a-z0-9-]+) ==(?P<version>\S+) \*_k(?P<digest>[0-9a-f]+)_\*")
_PACKAGE = Path(__file__).absolute().parent


@dataclass(frozen=True)
class Pin:
    """What vllm requires of one component: its version, and the first digits of its kernel digest."""

    version: str
    digest: str


def pins(prefix: Path | None = None, package: Path = _PACKAGE) -> dict[str, Pin]:
    """Component -> what the conda package of vllm requires of it.

    Empty outside of a conda environment, and where ``package`` is not the vllm of that environment,
    such as a source tree.

    Args:
        prefix: the environment; default: this interpreter's.
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
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
        ):  # collect_env reports records that cannot be read
            continue
        matches = (_PIN.fullmatch(str(requirement)) for requirement in requirements)
        found |= {
            match["component"]: Pin(match["version"], match["digest"]) for match in matches if match
        }
    return found


def describe(version: object, digest: object) -> str:
    """A build of kernels in words; parts that are not known are left out."""
    known = [str(version) if isinstance(version, str) and version else "of unknown version"]
    known += [f"with digest {digest[:12]}"] if isinstance(digest, str) and digest else []
    return " ".join(known)


def mismatch(
    component: str, version: str, digest: str, prefix: Path | None = None, package: Path = _PACKAGE
) -> str | None:
    """How an installed component differs from what vllm requires, on several lines with the remedy; None where nothing is known to differ.

    Versions are compared without their local part, which says the device.
    """
    pin = pins(prefix, package).get(component)
    if pin is None or (version.partition("+")[0] == pin.version and digest.startswith(pin.digest)):
        return None
    return explain(component, describe(version, digest), describe(pin.version, pin.digest))


def explain(component: str, found: str, expected: str) -> str:
    """The lines of a message: what was expected, what was found, what to do."""
    return (
        f"  expected: {component} {expected}\n"
        f"  found:    {component} {found}\n"
        f"  to do:    install both of one build: conda install --force-reinstall vllm {component}; "
        "in a source tree, pip install -e ."
    )
