# SPDX-License-Identifier: Apache-2.0
"""A fake CMake that records its calls, and the programs and torch files that configuring needs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

from vllm_build.native.build_configuration import Configuration
from vllm_build.settings.build_settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = (
    "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 0\n"
)
#: Imitates what callers of CMake observe. Every call is a line of calls.json.
CMAKE = """#!{python}
import json, os, pathlib, shutil, sys
here, args = pathlib.Path({here!r}), sys.argv[1:]
if args == ["--version"]:
    print("cmake version 3.31.0")
    sys.exit(0)
with (here / "calls.json").open("a") as calls:
    calls.write(json.dumps({{"args": args, "env": dict(os.environ)}}) + "\\n")
if (here / "fail").exists():
    print("CMake Error at CMakeLists.txt:1: told to fail")
    sys.exit(1)
if "-B" in args:
    build = pathlib.Path(args[args.index("-B") + 1])
    (build / "CMakeCache.txt").write_text("cache")
    (build / "build.ninja").touch()
elif args[0] == "--build" and not (here / "links-nothing").exists():
    shutil.copy(here / "library", pathlib.Path(args[1]) / (here / "name").read_text())
elif args[0] == "--install" and not (here / "installs-nothing").exists():
    target = pathlib.Path(args[args.index("--prefix") + 1]) / "vllm"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(here / "library", target / (here / "name").read_text())
"""


def install(
    here: Path, site: Path, program: Callable[..., Path], torch: Callable[..., Path]
) -> Path:
    """Put cmake, ninja and compilers into ``here``, and a torch into ``site``.

    Returns:
        ``here``, where cmake records its calls.
    """
    program(here / "ninja", "1.13.0")
    program(here / "cc")
    program(here / "c++")
    (here / "cmake").write_text(
        CMAKE.format(python=sys.executable, here=str(here)), encoding="utf-8"
    )
    (here / "cmake").chmod(0o755)
    (extension,) = Path(zstandard.__file__).parent.glob("backend_c.*.so")
    shutil.copy(extension, here / "library")
    (here / "name").write_text("_C.abi3.so", encoding="utf-8")
    package = torch(site, "2.11.0+cpu")
    for folder in ("torch/headeronly", "torch/csrc/stable", "torch/csrc/inductor/aoti_torch"):
        (package / "include" / folder).mkdir(parents=True)
        (package / "include" / folder / "version.h").write_text(HEADER, encoding="utf-8")
    (package / "lib").mkdir()
    (package / "lib" / "libtorch_cpu.so").touch()
    return here


def calls(tools: Path) -> list[dict[str, Any]]:
    """The calls of cmake since the last time this function was called."""
    path = tools / "calls.json"
    found = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.exists()
        else []
    )
    path.unlink(missing_ok=True)
    return found


def configuration(root: Path, **settings: Any) -> Configuration:
    return Configuration.of(
        root, replace(Settings.from_environ(os.environ), target_device="cpu", **settings)
    )


def defined(call: dict[str, Any]) -> dict[str, str]:
    return dict(
        argument[2:].split("=", 1) for argument in call["args"] if argument.startswith("-D")
    )
