# SPDX-License-Identifier: Apache-2.0
"""Builds the CPU kernels with address and undefined-behaviour sanitizers and runs the tests.

    python tests/kernels/sanitize.py [pytest's arguments]

Without arguments, all tests of this folder run. This needs what a build and the tests need: torch,
a GCC with its sanitizer libraries, CMake, Ninja, Highway, pytest and hypothesis. The build and the
tested package are kept in build/cmake-sanitize. The first report of a sanitizer ends the run and is
printed on standard error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from child import HERE, ROOT, copy_package, pytest

FOLDER = ROOT / "build" / "cmake-sanitize"

#: Tests that make no sense here: one measures memory, and AddressSanitizer keeps freed memory; the
#: other needs several instruction sets, and the build has one.
LEFT_OUT = ("test_string_arguments.py", "test_instruction_sets.py")


def build() -> Path:
    """Compile and install; return the folder with the package."""
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
    """The environment to load a library that was built with the sanitizers in ``folder``.

    Python was linked without the sanitizer libraries, so they are preloaded. libstdc++ is preloaded
    too: AddressSanitizer does not find the function that throws if libstdc++ is loaded later.
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
        # Python does not free all memory before it ends.
        "ASAN_OPTIONS": "detect_leaks=0:" + os.environ.get("ASAN_OPTIONS", ""),
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
