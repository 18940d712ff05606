# SPDX-License-Identifier: Apache-2.0
"""Metadata and requirements of wheels, and their translation for conda."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from rattler import Version as CondaVersion
from rattler import VersionSpec
from toolchain_wheels import write_wheel

from vllm_build.toolchain import wheel_metadata
from vllm_build.toolchain.wheel_metadata import modules
from vllm_build.toolchain.wheel_requirements import (
    conda_python,
    conda_versions,
    environment,
    needed,
    relevant,
    usable_pythons,
)
from vllm_build.util.errors import IntegrityError

PYTHONS = ("3.11.2", "3.13.5")


def names(
    *requires: str, extras: tuple[str, ...] = (), pythons: tuple[str, ...] = PYTHONS
) -> dict[str, str]:
    return {need.name: str(need.specifier) for need in needed(requires, extras, pythons)}


def test_markers_are_evaluated_for_the_channel_s_platform() -> None:
    assert names(
        "a; sys_platform == 'linux'",
        "b; sys_platform == 'win32'",
        "c; platform_system != 'Linux' and platform_machine == 'x86_64'",
        "d; platform_machine in 'x86_64 aarch64'",
        "e; platform_python_implementation == 'PyPy'",
        "f; os_name == 'posix' and implementation_name == 'cpython'",
    ) == {"a": "", "d": "", "f": ""}


def test_one_package_requires_what_any_of_its_interpreters_needs() -> None:
    lines = (
        "a>=1; python_version < '3.12'",
        "a>=2,<9; python_version >= '3.12'",
        "b; python_version < '3.11'",
        "c; python_version > '3.12'",
    )
    assert names(*lines) == {"a": "<9,>=1,>=2", "c": ""}
    assert names(*lines, pythons=("3.11.2",)) == {"a": ">=1"}
    # By the interpreter's full version, not by its series.
    assert names("x; python_full_version < '3.11.3'", pythons=("3.11.2",)) == {"x": ""}
    assert names("x; python_full_version < '3.11.3'", pythons=("3.11.4",)) == {}


def test_extras_are_those_that_are_asked_for() -> None:
    lines = (
        "a",
        "b; extra == 'more'",
        "c>=2; extra == 'other' and python_version > '3'",
        "d[x,y]>1",
    )
    assert names(*lines) == {"a": "", "d": ">1"}
    assert names(*lines, extras=("more",)) == {"a": "", "b": "", "d": ">1"}
    assert names(*lines, extras=("more", "other")) == {"a": "", "b": "", "c": ">=2", "d": ">1"}
    (last,) = (need for need in needed(lines, (), PYTHONS) if need.name == "d")
    assert last.extras == {"x", "y"}


def test_one_distribution_has_one_name() -> None:
    assert names("Typing_Extensions>=4", "typing.extensions<5") == {"typing-extensions": "<5,>=4"}


def test_requirements_are_normalized_for_the_lock() -> None:
    lines = [
        "b ; extra=='x'",
        "a >= 1 ; python_version<'3.11'",
        "a>=1; python_version < '3.11'",
        "Z (>=2)",
    ]
    assert relevant(lines, ()) == ("Z>=2", 'a>=1; python_version < "3.11"')
    assert relevant(lines, ("x",)) == ("Z>=2", 'a>=1; python_version < "3.11"', 'b; extra == "x"')
    # Normalizing the result again changes nothing.
    assert relevant(relevant(lines, ()), ()) == relevant(lines, ())
    with pytest.raises(IntegrityError, match="'a b' in a wheel's metadata is not a requirement"):
        relevant(["a b"], ())


@pytest.mark.parametrize(
    ("specifier", "expected"),
    [
        ("", ""),
        ("<2,>=1.6", ">=1.6,<2"),
        ("~=1.4.2", ">=1.4.2,1.4.*"),
        ("~=2.2", ">=2.2,2.*"),
        ("==3.*", "3.*"),
        ("==1.2.3", "==1.2.3"),
        ("===1.2", "==1.2"),
        ("==2.11.0+cu129", "==2.11.0"),
        ("!=1.5.*,>1", ">1,!=1.5.*"),
        (">=2.5.0.dev0,<3", ">=2.5.0.dev0,<3"),
    ],
)
def test_versions_as_conda_reads_them(specifier: str, expected: str) -> None:
    assert conda_versions(SpecifierSet(specifier)) == expected


NUMBERS = st.lists(st.integers(0, 3), min_size=2, max_size=3).map(
    lambda parts: ".".join(map(str, parts))
)
CLAUSES = st.builds(
    "{}{}".format, st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "~="]), NUMBERS
) | NUMBERS.map("=={}.*".format)


@given(st.lists(CLAUSES, min_size=1, max_size=3), NUMBERS)
def test_conda_admits_the_same_releases(clauses: list[str], version: str) -> None:
    specifier = SpecifierSet(",".join(clauses))
    assert VersionSpec(conda_versions(specifier)).matches(
        CondaVersion(version)
    ) == specifier.contains(version)


@pytest.mark.parametrize(
    ("requires", "expected"),
    [
        ("", ">=3.11"),
        (">=3.9", ">=3.11"),
        (">=3.12", ">=3.13"),
        ("!=3.14.1,>=3.11", ">=3.11,!=3.14.1"),
        (">=3.10,<3.14", ">=3.11,<3.14"),
        ("~=3.10", ">=3.11"),
        ("~=3.11.1", ">=3.11,3.11.*"),
        (">=3.8,<4.0", ">=3.11,<4.0"),
    ],
)
def test_requirement_on_python(requires: str, expected: str) -> None:
    assert conda_python(requires, usable_pythons(requires, PYTHONS)) == expected


def test_interpreters_that_a_wheel_supports() -> None:
    assert usable_pythons("<3.12", ("3.13.5", "3.11.2")) == ("3.11.2",)
    assert usable_pythons("", ("3.13.5", "3.11.2")) == PYTHONS
    assert usable_pythons(">=3.14", PYTHONS) == ()


@given(st.sampled_from(["3.10.0", "3.11.2", "3.14.0"]))
def test_markers_see_every_variable_of_the_standard(python: str) -> None:
    assert set(environment(python, "")) == {
        *(
            "implementation_name",
            "implementation_version",
            "os_name",
            "platform_machine",
            "platform_python_implementation",
        ),
        *(
            "platform_release",
            "platform_system",
            "platform_version",
            "python_full_version",
            "python_version",
            "sys_platform",
            "extra",
        ),
    }
    assert (
        environment(python, "")["python_version"]
        == f"{Version(python).major}.{Version(python).minor}"
    )


def test_importable_modules_are_found() -> None:
    files = [
        *(
            "one.py",
            "two/__init__.py",
            "two/sub/__init__.py",
            "space/part/__init__.py",
            "space/part/x.py",
            "space/other/deep/__init__.py",
        ),
        *(
            "two/data.txt",
            "not-a-module.py",
            "x.data/purelib/y.py",
            "x.dist-info/z.py",
            "plain/loose.py",
        ),
    ]
    assert modules(files) == ("one", "space.other.deep", "space.part", "two")


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "expected"),
    [
        ("mit", "BSD", [], "MIT"),
        ("", "apache-2.0", ["License :: OSI Approved :: MIT License"], "Apache-2.0"),
        (
            "",
            "The text of a license\nin full",
            ["Topic :: X", "License :: OSI Approved :: MIT License"],
            "MIT",
        ),
        (
            "",
            "",
            ["License :: OSI Approved", "License :: OSI Approved :: ISC License (ISCL)"],
            "ISC",
        ),
        ("", "BSD", ["License :: OSI Approved :: BSD License"], ""),
        (
            "",
            "",
            ["License :: OSI Approved :: BSD License", "License :: OSI Approved :: MIT License"],
            "",
        ),
        (
            "",
            "",
            [
                "License :: OSI Approved :: MIT License",
                "License :: OSI Approved :: Apache Software License",
            ],
            "",
        ),
        ("", "", [], ""),
    ],
)
def test_a_license_is_named_only_where_it_is_certain(
    expression: str, text: str, classifiers: list[str], expected: str
) -> None:
    assert wheel_metadata.license_of(expression, text, classifiers) == expected


def test_a_wheel_is_read(tmp_path: Path) -> None:
    wheel = write_wheel(
        tmp_path,
        "My-Name",
        headers=[
            *(
                "Requires-Python: >=3.9,!=3.10.0",
                "Requires-Dist: a>=1",
                "Requires-Dist: b; extra == 'x'",
                "License-Expression: mit or apache-2.0",
            ),
            *(
                "Summary: Does thïngs",
                "Home-page: UNKNOWN",
                "Project-URL: Changelog, https://a.invalid/c",
                "Project-URL: Homepage, https://a.invalid",
            ),
        ],
        files={"my_name/__init__.py": "", "my_name-1.0.data/data/share/x": ""},
        about={
            "entry_points.txt": (
                "[console_scripts]\nTool = my_name.cli:App.run [x]\n[gui_scripts]\n"
                "win=my_name:gui\n[other]\nno = a:b\n"
            ),
            "COPYING": "free",
        },
    )
    found = wheel_metadata.read(wheel)
    assert (found.name, found.version, found.requires) == (
        "My-Name",
        "1.0",
        ("a>=1", "b; extra == 'x'"),
    )
    assert (found.requires_python, found.license, found.homepage) == (
        "!=3.10.0,>=3.9",
        "MIT OR Apache-2.0",
        "https://a.invalid",
    )
    assert (found.summary, found.programs) == (
        "Does thïngs",
        ("Tool = my_name.cli:App.run", "win = my_name:gui"),
    )
    assert (found.modules, found.has_license, found.pure) == (("my_name",), True, True)
    plain = wheel_metadata.read(
        write_wheel(
            tmp_path, "plain", headers=["License: BSD"], about={}, tag="cp311-cp311-linux_x86_64"
        )
    )
    assert (plain.license, plain.has_license, plain.pure, plain.programs, plain.homepage) == (
        "",
        False,
        False,
        (),
        "",
    )


@pytest.mark.parametrize("member", ["METADATA", "WHEEL"])
def test_a_file_that_is_not_a_wheel(tmp_path: Path, member: str) -> None:
    whole, part = write_wheel(tmp_path, "x"), tmp_path / "y-1.0-py3-none-any.whl"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(part, "w") as new:
        for name in old.namelist():
            if not name.endswith(member):
                new.writestr(name, old.read(name))
    for path in (part, tmp_path / "absent.whl", Path(__file__)):
        with pytest.raises(IntegrityError, match="is not a wheel"):
            wheel_metadata.read(path)
    assert json.dumps(wheel_metadata.read(whole).modules) == '["x"]'
