# SPDX-License-Identifier: Apache-2.0
"""Builds the CPU kernels with AddressSanitizer and UndefinedBehaviorSanitizer, and runs tests of this folder with them.

    python tests/kernels/sanitize.py [pytest's arguments]      all tests without arguments

Needs what a build and the tests need: torch, a GCC with its sanitizers' libraries, CMake, Ninja, Highway, pytest, hypothesis. The build has
a folder of its own, build/cmake-sanitize, and is kept; the package that is tested lies inside it. The first report of a sanitizer ends the
run; it goes to the standard error output.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "cmake-sanitize"
SITE = FOLDER / "site"

#: Tests that say nothing here: AddressSanitizer keeps freed memory, which one of them measures, and the build is for one instruction set.
LEFT_OUT = ("test_string_arguments.py", "test_instruction_sets.py")


def build() -> None:
    subprocess.run(["cmake", "--preset", "sanitize"], cwd=ROOT, check=True)
    jobs = os.environ.get("MAX_JOBS", "")
    subprocess.run(["cmake", "--build", "--preset", "sanitize", *(["--parallel", jobs] if jobs else [])], cwd=ROOT, check=True)
    shutil.rmtree(SITE, ignore_errors=True)
    subprocess.run(["cmake", "--install", str(FOLDER), "--prefix", str(SITE)], cwd=ROOT, check=True)
    for source in (ROOT / "vllm").rglob("*.py"):
        target = SITE / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def runtime(name: str) -> str:
    """A library of the compiler that built; Python was linked without it, so it has to be loaded first."""
    cache = (FOLDER / "CMakeCache.txt").read_text(encoding="utf-8").splitlines()
    compiler = next(line.partition("=")[2] for line in cache if line.startswith("CMAKE_CXX_COMPILER:"))
    path = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        raise SystemExit(f"error: {compiler} has no {name}\n  expected: GCC with its sanitizers\n  to do: install libsanitizer")
    return str(Path(path).resolve())


def main(arguments: list[str]) -> int:
    build()
    # libstdc++ beside the two: where it comes later, AddressSanitizer does not find the function that throws.
    preload = ":".join(runtime(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"))
    environment = os.environ | {
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": "detect_leaks=0:" + os.environ.get("ASAN_OPTIONS", ""),  # Python keeps what it has until it ends
        "UBSAN_OPTIONS": "print_stacktrace=1:" + os.environ.get("UBSAN_OPTIONS", ""),
        "PYTHONPATH": str(SITE),
        "KERNEL_TEST_EXAMPLES": os.environ.get("KERNEL_TEST_EXAMPLES", "20"),
    }
    here = Path(__file__).parent
    chosen = arguments or [str(path) for path in sorted(here.glob("test_*.py")) if path.name not in LEFT_OUT]
    # Without "-s" the report of the sanitizer ends up in pytest's capture, which the end of the process takes with it.
    pytest = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "-o",
        "pythonpath=",
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    command = [*pytest, "--rootdir", str(here), "--confcutdir", str(here), *chosen]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
