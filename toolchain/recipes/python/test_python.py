# SPDX-License-Identifier: Apache-2.0
"""Checks that this interpreter is complete, uses only its prefix, and can build extensions.

usage: test_python.py VERSION
"""

import importlib
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tempfile

MODULES = (
    "_bz2 _ctypes _curses _curses_panel _decimal _hashlib _lzma _multiprocessing _posixshmem "
    "_sqlite3 _ssl _uuid asyncio bz2 ctypes curses "
    "decimal ensurepip hashlib lzma mmap multiprocessing pyexpat readline resource sqlite3 ssl "
    "termios unicodedata uuid venv zlib zoneinfo"
)
EXTENSION = """
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *unused) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tiny", "", -1, methods};
PyMODINIT_FUNC PyInit_tiny(void) { return PyModule_Create(&module); }
"""


def run(*command: str, **more: str) -> str:
    """Run COMMAND with MORE as its whole environment, and return its output."""
    return subprocess.run(
        command, env=more, check=True, capture_output=True, text=True
    ).stdout.strip()


def check_modules() -> None:
    for name in MODULES.split():
        importlib.import_module(name)
    import ctypes
    import hashlib
    import sqlite3
    import ssl

    assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
    assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442")
    assert ssl.create_default_context().get_ciphers()
    assert ctypes.CDLL(None).abs(-3) == 3


def check_libraries() -> None:
    """All loaded libraries are in the prefix, except the C library."""
    prefix = os.path.realpath(sys.prefix)
    allowed = re.compile(
        r"(lib(c|m|dl|rt|pthread|util|resolv|nss_\w+)|ld-linux-x86-64)[-.].*so.*|.*locale-archive|gconv-modules.cache"
    )
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[5] if len(line.split(maxsplit=5)) == 6 else ""
        if path.startswith("/") and not path.startswith(prefix + "/") and ".so" in path:
            assert allowed.fullmatch(pathlib.PurePath(path).name), f"{path} is the host's"


def check_paths(version: str) -> None:
    prefix = sys.prefix
    assert os.path.realpath(sys.executable).startswith(os.path.realpath(prefix))
    for name, path in sysconfig.get_paths().items():
        assert path.startswith(prefix + "/") or path == prefix, f"{name} = {path}"
    assert sysconfig.get_path("purelib") == f"{prefix}/lib/python{version}/site-packages"
    assert sysconfig.get_path("include") == f"{prefix}/include/python{version}"
    import site

    packages = f"{prefix}/lib/python{version}/site-packages"
    assert site.getsitepackages() == [packages], site.getsitepackages()
    assert run(sys.executable, "-c", "import sys; print(sys.path[-1])") == packages
    assert pathlib.Path(sysconfig.get_path("include"), "pyconfig.h").is_file()
    for name in ("LIBDIR", "INCLUDEPY", "prefix", "BINDIR", "LIBDEST"):
        assert str(sysconfig.get_config_var(name)).startswith(prefix), (
            f"{name} = {sysconfig.get_config_var(name)}"
        )
    for name, tool in (("CC", "gcc"), ("CXX", "g++"), ("AR", "ar")):
        assert sysconfig.get_config_var(name).split()[0] == tool, sysconfig.get_config_var(name)
    assert pathlib.Path(sysconfig.get_makefile_filename()).is_file()
    assert bool(sysconfig.get_config_var("Py_GIL_DISABLED")) == version.endswith("t")
    assert (getattr(sys, "_is_gil_enabled", lambda: True)()) == (not version.endswith("t"))
    # No value names a folder of the build or of the system's Python. The system's time zones are
    # used intentionally.
    foreign = re.compile(
        r"x86_64-(conda-)?linux-gnu-|rattler-build_|/build/|_build_env|(?<!\w)/usr/(lib|include|bin|share)\b|dist-packages"
    )
    left = [
        f"{key} = {value}"
        for key, value in sysconfig.get_config_vars().items()
        if key != "TZPATH" and foreign.search(str(value).replace(prefix, ""))
    ]
    assert not left, "\n".join(left)


def check_names(version: str) -> None:
    for name in ("python", "python3", f"python{version}", f"python{version.rstrip('t')}"):
        assert run(f"{sys.prefix}/bin/{name}", "-c", "import sys; print(sys.prefix)") == sys.prefix
    # In a prefix whose path is longer than Linux permits for `#!`, scripts find their interpreter
    # on PATH.
    path = os.pathsep.join([f"{sys.prefix}/bin", os.defpath])
    assert f"-I{sys.prefix}/include/python{version}" in run(
        f"{sys.prefix}/bin/python{version}-config", "--includes", PATH=path
    )
    assert "pydoc" in run(f"{sys.prefix}/bin/pydoc{version}", "pydoc", PATH=path)


def check_venv(folder: str) -> None:
    run(sys.executable, "-m", "venv", f"{folder}/venv", HOME=folder)
    out = run(f"{folder}/venv/bin/python", "-m", "pip", "--version", HOME=folder)
    assert f"{folder}/venv/lib/" in out, out
    assert (
        run(f"{folder}/venv/bin/python", "-c", "import sys, ssl, ctypes; print(sys.prefix)")
        == f"{folder}/venv"
    )


def check_extension(folder: str) -> None:
    """The channel's compiler builds an extension with the interpreter's flags."""
    source, built = (
        pathlib.Path(folder, "tiny.c"),
        pathlib.Path(folder, "tiny" + sysconfig.get_config_var("EXT_SUFFIX")),
    )
    source.write_text(EXTENSION)
    flags = (
        sysconfig.get_config_var("CFLAGS") + " " + sysconfig.get_config_var("CCSHARED")
    ).split()
    include = "-I" + sysconfig.get_path("include")
    run(os.environ["CC"], *flags, include, "-shared", str(source), "-o", str(built))
    assert run(sys.executable, "-c", "import tiny; print(tiny.answer())", PYTHONPATH=folder) == "42"


def main() -> None:
    version = sys.argv[1]
    check_modules()
    check_libraries()
    check_paths(version)
    check_names(version)
    with tempfile.TemporaryDirectory() as folder:
        check_venv(os.path.realpath(folder))
        check_extension(os.path.realpath(folder))
    print(f"python {version} is complete")


if __name__ == "__main__":
    main()
