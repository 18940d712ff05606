# SPDX-License-Identifier: Apache-2.0
"""The channel makes PyTorch for CPUs from the CUDA wheel: stubs, cleared GPU code, new metadata."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from elftools.elf.elffile import ELFFile

from vllm_build.checks import elf

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


def module(root: Path, name: str) -> ModuleType:
    """Import a program of the recipes as a module."""
    spec = importlib.util.spec_from_file_location(
        f"recipe_{name.replace('/', '_')}", root / "toolchain" / "recipes" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def stand_ins(root: Path) -> Any:
    return module(root, "libtorch/stand_ins")


@pytest.fixture
def for_cpu(root: Path) -> Any:
    return module(root, "libtorch/for_cpu")


def library(
    stand_ins: Any,
    needed: tuple[str, ...],
    *wanted: tuple[str, str, str],
    defined: tuple[str, ...] = (),
) -> Any:
    name = "libc10.so" if defined else "libtorch_x.so"
    return stand_ins.Library(
        name, needed, frozenset(defined), tuple(stand_ins.Wanted(*entry) for entry in wanted)
    )


def test_symbols_go_to_the_library_that_is_asked_for_them(stand_ins: Any) -> None:
    needed = (
        "libcudart.so.13",
        "libcusparse.so.12",
        "libcusparseLt.so.0",
        "libnccl.so.2",
        "libc10.so",
        "libc.so.6",
        "ld-linux-x86-64.so.2",
    )
    wanted = [
        ("cudaMalloc", "libcudart.so.13", "libcudart.so.13"),
        ("malloc", "GLIBC_2.2.5", "libc.so.6"),
        ("ncclSend", "", ""),
        ("cusparseLtInit", "", ""),
        ("cusparseCreate", "libcusparse.so.12", "libcusparse.so.12"),
        ("ncclOwn", "", ""),
        ("_ZN2at6TensorE", "", ""),
        ("PyList_New", "", ""),
    ]
    own = library(stand_ins, (), defined=("ncclOwn", "_ZN2at6TensorE"))
    assert stand_ins.assign([library(stand_ins, needed, *wanted), own]) == {
        "libcudart.so.13": {"cudaMalloc": "libcudart.so.13"},
        "libcusparse.so.12": {"cusparseCreate": "libcusparse.so.12"},
        "libcusparseLt.so.0": {"cusparseLtInit": ""},
        "libnccl.so.2": {"ncclSend": ""},
    }


def test_what_nobody_thought_of_stops_the_build(stand_ins: Any) -> None:
    with pytest.raises(ValueError, match=r"libmkl_core\.so\.2: neither a CUDA library"):
        stand_ins.assign([library(stand_ins, ("libmkl_core.so.2", "libc.so.6"))])
    two = [("cudaX", "one", "libcudart.so.13"), ("cudaX", "two", "libcudart.so.13")]
    with pytest.raises(ValueError, match=r"cudaX of libcudart\.so\.13 is needed in two versions"):
        stand_ins.assign([library(stand_ins, ("libcudart.so.13",), *two)])


def compile_library(path: Path, source: str, *options: str) -> Path:
    code = path.with_suffix(".c")
    code.write_text(source, encoding="utf-8")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Werror", "-fPIC", "-shared"]
    command = ["cc", *flags, str(code), f"-Wl,-soname,{path.name}", *options, "-o", str(path)]
    subprocess.run(command, check=True)
    return path


def fake_torch(folder: Path) -> Path:
    """A library that was linked with libraries of CUDA's names, which were then removed.

    Some symbols have versions, some have none, and some are never called.
    """
    real = folder / "real"
    real.mkdir()
    script = real / "versions.map"
    script.write_text(
        "CUDART { global: cudaGetDeviceCount; cudaGetErrorString; local: *; };\n", encoding="utf-8"
    )
    runtime = (
        "int cudaGetDeviceCount(int *n) { *n = 8; return 0; }\n"
        "const char *cudaGetErrorString(int e) { (void)e; return 0; }\n"
    )
    linked = [
        compile_library(real / "libcudart.so.13", runtime, f"-Wl,--version-script={script}"),
        compile_library(
            real / "libnccl.so.2",
            "int ncclSend(void) { return 0; }\nconst char *ncclGetLastError(void) { return 0; }\n",
        ),
        compile_library(real / "libcurand.so.10", "int unused;\n"),
        compile_library(
            real / "libcupti.so.13",
            "int cuptiGetResultString(int s, const char **t) { (void)s; (void)t; return 1; }\n",
        ),
        compile_library(
            real / "libcudnn.so.9",
            "void cudnnGetLastErrorString(char *t, unsigned long n) { (void)t; (void)n; }\n",
        ),
    ]
    text = """
int cudaGetDeviceCount(int *); const char *cudaGetErrorString(int);
int ncclSend(void); const char *ncclGetLastError(void);
int cuptiGetResultString(int, const char **); void cudnnGetLastErrorString(char *, unsigned long);
int devices(void) { int n = 0; return cudaGetDeviceCount(&n) * 100 + n; }
const char *text(void) { return cudaGetErrorString(1); }
const char *last(void) { return ncclGetLastError(); }
const char *stored(void) { const char *t = 0; return cuptiGetResultString(1, &t) ? 0 : t; }
int copied(void) { char t[4] = "xyz"; cudnnGetLastErrorString(t, 4); return t[0] + t[3]; }
int send(void) { return ncclSend(); }
const char code[65536] __attribute__((section(".nv_fatbin"), used)) = "GPU code";
"""
    path = compile_library(
        folder / "libtorch_x.so",
        text,
        "-Wl,--no-as-needed",
        *map(str, linked),
        "-Wl,-rpath,$ORIGIN/stand-ins",
        "-Wl,--disable-new-dtags",
    )
    for file in linked:
        file.unlink()
    return path


CALLS = """
import ctypes, json, os, sys
loaded = ctypes.CDLL(sys.argv[1], mode=os.RTLD_NOW)
said = {name: getattr(loaded, name)() for name in ("devices", "send", "copied")}
for name in ("text", "last", "stored"):
    function = getattr(loaded, name)
    function.restype = ctypes.c_char_p
    said[name] = function().decode()
print(json.dumps(said))
"""


def test_a_library_loads_with_stand_ins_and_gets_errors(
    root: Path, tmp_path: Path, stand_ins: Any
) -> None:
    torch = fake_torch(tmp_path)
    with pytest.raises(OSError, match=r"\.so\.\d+: cannot open shared object file"):
        ctypes.CDLL(str(torch))
    program = root / "toolchain" / "recipes" / "libtorch" / "stand_ins.py"
    subprocess.run(
        [sys.executable, "-I", str(program), str(tmp_path / "made"), str(torch)], check=True
    )
    names = (tmp_path / "made" / "names").read_text(encoding="utf-8").split()
    assert names == [
        "libcudart.so.13",
        "libcudnn.so.9",
        "libcupti.so.13",
        "libcurand.so.10",
        "libnccl.so.2",
    ]
    (tmp_path / "stand-ins").mkdir()
    for name in names:
        script = tmp_path / "made" / f"{name}.map"
        source = (tmp_path / "made" / f"{name}.c").read_text(encoding="utf-8")
        versions = [f"-Wl,--version-script={script}"] if script.read_text(encoding="utf-8") else []
        made = elf.read(
            compile_library(tmp_path / "stand-ins" / name, source, "-nostdlib", *versions)
        )
        assert (made.soname, made.needed, made.undefined) == (name, (), ())
    # In a new process, because the loader caches folders that did not exist.
    done = subprocess.run(
        [sys.executable, "-I", "-c", CALLS, str(torch)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = stand_ins.MESSAGE
    # 35 is cudaErrorInsufficientDriver, and the number of devices does not change.
    assert json.loads(done.stdout) == {
        "devices": 3500,
        "send": 1,
        "copied": 0,
        "text": text,
        "last": text,
        "stored": text,
    }


def test_gpu_code_becomes_zeros_and_nothing_else_changes(tmp_path: Path, for_cpu: Any) -> None:
    torch = fake_torch(tmp_path)
    before = torch.read_bytes()
    with torch.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".nv_fatbin")
        start, size = section["sh_offset"], section["sh_size"]
    assert for_cpu.clear_gpu_code(torch) == size >= 65536
    assert torch.read_bytes() == before[:start] + bytes(size) + before[start + size :]


def test_cmake_files_of_another_form_stop_the_build(tmp_path: Path, for_cpu: Any) -> None:
    path = tmp_path / "x.cmake"
    path.write_text("if(1)\nif(1)\n", encoding="utf-8")
    with pytest.raises(ValueError, match="occurs 2 times, expected once"):
        for_cpu.replace_once(path, "if(1)", "if(0)")
    with pytest.raises(ValueError, match="occurs 0 times, expected once"):
        for_cpu.replace_once(path, "if(2)", "if(0)")
    for_cpu.replace_once(path, "if(1)\nif", "if(0)\nif")
    assert path.read_text(encoding="utf-8") == "if(0)\nif(1)\n"


VERSION = (
    "__version__ = '2.13.0+cu130'\ndebug = False\ncuda: Optional[str] = '13.0'\n"
    "hip: Optional[str] = None\n"
)
METADATA = """Metadata-Version: 2.1
Name: torch
Requires-Dist: filelock
Requires-Dist: cuda-toolkit[cublas]==13.0.3; platform_system == "Linux"
Requires-Dist: nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"
Requires-Dist: triton==3.7.1; platform_system == "Linux"
Requires-Dist: tritonclient; extra == "x"

Text about cuda-toolkit.
"""


def test_the_python_side_says_that_it_is_for_cpus(root: Path, tmp_path: Path) -> None:
    python_side = module(root, "pytorch/for_cpu")
    info = tmp_path / "torch-2.13.0.dist-info"
    for path, text in ((tmp_path / "torch" / "version.py", VERSION), (info / "METADATA", METADATA)):
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    files = (f"torch/{name},sha256=old,1" for name in ("__init__.py", "version.py"))
    rows = [*files, f"{info.name}/METADATA,sha256=old,1", f"{info.name}/RECORD,,"]
    (info / "RECORD").write_text("\n".join(rows) + "\n", encoding="utf-8")
    python_side.rewrite(tmp_path, info)
    version, metadata = (
        (tmp_path / "torch" / "version.py").read_bytes(),
        (info / "METADATA").read_bytes(),
    )
    assert version.decode() == VERSION.replace("+cu130", "+cpu.pypi").replace("'13.0'", "None")
    gone = ("Requires-Dist: cuda-", "Requires-Dist: nvidia-", "Requires-Dist: triton=")
    kept = [line for line in METADATA.splitlines() if not line.startswith(gone)]
    assert metadata.decode().splitlines() == kept

    def row(name: str, data: bytes) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        return f"{name},sha256={digest},{len(data)}"

    written = (info / "RECORD").read_text(encoding="utf-8").splitlines()
    assert written == [
        rows[0],
        row("torch/version.py", version),
        row(f"{info.name}/METADATA", metadata),
        rows[3],
    ]
    with pytest.raises(ValueError, match=r"version\.py: 0 lines match"):
        python_side.rewrite(tmp_path, info)
    with pytest.raises(ValueError, match="requires no CUDA wheel"):
        python_side.metadata_for_cpu(metadata.decode())


def test_what_torch_was_linked_with_does_not_reach_our_libraries(
    root: Path, tmp_path: Path
) -> None:
    """The CPU wheel exports symbols of its linker, but the CUDA wheel does not."""
    text = (root / "cmake" / "vllm_add_extension.cmake").read_text(encoding="utf-8")
    (names,) = re.findall(
        r"foreach\(symbol ([\w ]+)\)\n\s+target_link_options\(\$\{module\} PRIVATE \"LINKER:-u,",
        text,
    )
    options = [f"-Wl,-u,{name}" for name in names.split()]
    exports = f"-Wl,--version-script={root / 'cmake' / 'exports.map'}"
    torch = tmp_path / "libtorch_cpu.so"
    made = {}
    marks = (
        "extern char _edata[], __bss_start[], _end[]; char *marks[] = {_edata, __bss_start, "
        "_end};\n"
    )
    for flavour, mentioned in (("cuda", ""), ("cpu", marks)):
        compile_library(torch, f"{mentioned}int torch_call(void) {{ return 1; }}\n")
        for kind, more in (("plain", []), ("ours", options)):
            source = "int torch_call(void); int my_call(void) { return torch_call(); }\n"
            made[flavour, kind] = compile_library(
                tmp_path / "ours.so", source, exports, *more, str(torch)
            ).read_bytes()
    assert made["cpu", "plain"] != made["cuda", "plain"], (
        "the linker has this trait no more: the options may go"
    )
    assert made["cpu", "ours"] == made["cuda", "ours"]
