# SPDX-License-Identifier: Apache-2.0
"""Builds the CPU kernels with AddressSanitizer and UndefinedBehaviorSanitizer, and runs tests of this folder with them.

    python tests/kernels/sanitize.py [pytest's arguments]      all tests without arguments

Needs what a build and the tests need: torch, a GCC with its sanitizers' libraries, CMake, Ninja,
Highway, pytest, hypothesis. The build has a folder of its own, build/cmake-sanitize, and is kept;
the package that is tested lies inside it. The first report of a sanitizer ends the run; it goes to
the standard error output.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from child import HERE, ROOT, copy_package, pytest

FOLDER = ROOT / "build" / "cmake-sanitize"

#: Tests that say nothing here: AddressSanitizer keeps freed memory, which one of them measures, and
#: the build is for one instruction set.
LEFT_OUT = ("test_string_arguments.py", "test_instruction_sets.py")


def build() -> Path:
    """Compile and install; returns the folder that the package is in."""
    subprocess.run(["cmake", "--preset", "sanitize"], cwd=ROOT, check=True)
    jobs = os.environ.get("MAX_JOBS", "")
    subprocess.run(
        ["cmake", "--build", "--preset", "sanitize", *(["--parallel", jobs] if jobs else [])],
        cwd=ROOT,
        check=True,
    )
    site = FOLDER / "site"
    shutil.rmtree(site, ignore_errors=True)
    subprocess.run(["cmake", "--install", str(FOLDER), "--prefix", str(site)], cwd=ROOT, check=True)
    copy_package(site)
    return site


def environment(folder: Path) -> dict[str, str]:
    """What a process needs to load a library that was built in ``folder`` with the sanitizers.

    Python was linked without their libraries, so those have to be loaded first; libstdc++ beside
    the two, since AddressSanitizer does not find the function that throws where it comes later.
    """
    cache = (folder / "CMakeCache.txt").read_text(encoding="utf-8").splitlines()
    compiler = next(
        line.partition("=")[2] for line in cache if line.startswith("CMAKE_CXX_COMPILER:")
    )

    def runtime(name: str) -> str:
        path = subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        if not Path(path).is_absolute():
            raise SystemExit(
                f"error: {compiler} has no {name}\n  expected: GCC with its sanitizers\n"
                "  to do: install libsanitizer"
            )
        return str(Path(path).resolve())

    return {
        "LD_PRELOAD": ":".join(
            runtime(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")
        ),
        "ASAN_OPTIONS": "detect_leaks=0:"
        + os.environ.get("ASAN_OPTIONS", ""),  # Python keeps what it has until it ends
        "UBSAN_OPTIONS": "print_stacktrace=1:" + os.environ.get("UBSAN_OPTIONS", ""),
    }


def main(arguments: list[str]) -> int:
    site = build()
    chosen = arguments or [
        str(path) for path in sorted(HERE.glob("test_*.py")) if path.name not in LEFT_OUT
    ]
    return pytest(site, chosen, "cpu", environment(FOLDER))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
