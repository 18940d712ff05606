# SPDX-License-Identifier: Apache-2.0
"""Runs tests of tests/kernels with the package's code for an AMD GPU, in an emulator of it.

    python tests/kernels/gfx/emulate_gfx.py --arch gfx1100 --libraries DIR --python PYTHON [...]

DIR has the libraries of the ROCm package: ``_C.abi3.so`` and the others. PYTHON has torch for the
CPU, pytest and hypothesis; this interpreter has tinygrad and zstandard. The rest goes to pytest.
docs/development.md says what the tests show and what they do not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import generate
import gpu_code
import tables
from child import command, copy_package, environment
from child import tests as chosen_tests
from emulate import TESTS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
#: Records whose tests need what one emulated GPU has not: several GPUs, or CUDA's instructions.
LEFT_OUT = ("custom-all-reduce-gpu", "flashmla", "scaled-mm")
#: Tests of messages that name the CPU: the libraries are those for GPUs.
OTHER_MESSAGES = ("test_activation.py::test_meta_tensor_among_cpu_tensors",)
SOURCES = ("gfx_decoder.cc", "gfx_launch.cc", "gfx_runtime.cc", "gfx_torch.cc")


def compile_emulator(architecture: str, folder: Path) -> Path:
    """Write an architecture's emulator, and compile what has changed."""
    text, unknown = generate.write(architecture)
    source = folder / "instructions.cc"
    if not source.is_file() or source.read_text(encoding="utf-8") != text:
        source.write_text(text, encoding="utf-8")
    listed = "".join(f"{name}: {why}\n" for name, why in sorted(unknown.items()))
    (folder / "not-emulated.txt").write_text(listed, encoding="utf-8")
    _, generation, lanes = tables.ARCHITECTURES[architecture]
    flags = ["-std=c++20", "-O1", "-fPIC", "-march=native", "-fwrapv", "-ffp-contract=off"]
    flags += ["-Wall", "-Wextra", "-fvisibility=hidden", f"-I{HERE}", f"-DVLLM_GFX_LANES={lanes}"]
    flags += [
        f"-DVLLM_GFX_RDNA={str(generation > 9).lower()}",
        f"-DVLLM_GFX_GENERATION={generation}",
    ]
    compiler = os.environ.get("CXX", "c++")
    headers = max(path.stat().st_mtime for path in HERE.glob("*.h"))
    objects = []
    for each in (source, *(HERE / name for name in SOURCES)):
        target = folder / f"{each.stem}.o"
        objects.append(str(target))
        newest = max(headers, each.stat().st_mtime)
        if not target.is_file() or target.stat().st_mtime < newest:
            print(f"compiling {each.name} for {architecture}", flush=True)
            subprocess.run([compiler, *flags, "-c", str(each), "-o", str(target)], check=True)
    # Our libraries look for the runtime by its file's name, and for torch's library by this name.
    library = folder / "libamdhip64.so"
    link = ["-shared", "-Wl,-soname,libtorch_hip.so", "-Wl,-z,defs", "-ldl"]
    # The interpreter may have another C++ library than the compiler.
    link += ["-static-libstdc++", "-static-libgcc"]
    subprocess.run([compiler, *objects, *link, "-o", str(library)], check=True)
    return library


def unpack_libraries(libraries: Path, architecture: str, folder: Path) -> Path:
    """Put the code objects into files, and list their kernels."""
    code = folder / "code"
    shutil.rmtree(code, ignore_errors=True)
    code.mkdir(parents=True)
    lines = []
    names = sorted(libraries.glob("*.abi3.so"))
    for library in names:
        if library.name == "cumem_allocator.abi3.so":
            continue
        for number, each in enumerate(gpu_code.find_code(library, architecture)):
            path = code / f"{library.name.partition('.')[0]}-{number}.elf"
            path.write_bytes(each.elf)
            lines.append(gpu_code.describe(each, path))
    if not lines:
        raise SystemExit(f"error: {libraries} has no *.abi3.so")
    listing = folder / "kernels.txt"
    listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return listing


def find_libraries(python: str) -> Path:
    """Return the folder of the package vllm that an interpreter has installed."""
    code = "import importlib.util as u; s = u.find_spec('vllm'); print(s.origin if s else '')"
    line = [python, "-P", "-c", code]
    found = subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()
    if not found:
        raise SystemExit(
            f"error: {python} has no vllm\n  expected: the ROCm package's libraries\n"
            "  to do:    --libraries DIR, with _C.abi3.so and the others"
        )
    return Path(found).parent


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--arch", choices=tables.ARCHITECTURES, required=True)
    parser.add_argument(
        "--libraries", type=Path, help="the package's folder vllm (default: that of --python)"
    )
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch")
    parser.add_argument("--build", type=Path, help="the folder to build in; it is kept")
    options, rest = parser.parse_known_args(arguments)
    folder = (options.build or ROOT / "build" / f"emulate-{options.arch}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    library = compile_emulator(options.arch, folder)
    libraries = options.libraries or find_libraries(options.python)
    listing = unpack_libraries(libraries, options.arch, folder)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    copy_package(site)
    for each in libraries.glob("*.abi3.so"):
        shutil.copyfile(each, site / "vllm" / each.name)
    files = [name for record, names in TESTS.items() if record not in LEFT_OUT for name in names]
    env = {
        **environment("emulated"),
        "PYTHONPATH": os.pathsep.join((str(site), str(HERE))),
        "LD_PRELOAD": str(library),
        "VLLM_GFX_KERNELS": str(listing),
        "OMP_NUM_THREADS": "1",
    }
    others = [word for name in OTHER_MESSAGES for word in ("--deselect", name)]
    line = command(["-p", "cpu_dispatch", *others, *chosen_tests(rest, files)], "emulated")
    line[0] = options.python
    return subprocess.run(line, env=env, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
