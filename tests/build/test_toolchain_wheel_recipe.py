# SPDX-License-Identifier: Apache-2.0
"""The recipe of a wheel: wheels that the template does not fit, and how it is filled in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML
from toolchain_wheels import write_table, write_wheel

from vllm_build.toolchain import (
    toolchain_lock,
    wheel_metadata,
    wheel_recipe,
    wheel_requirements,
    wheel_table,
)
from vllm_build.toolchain.download_store import Store
from vllm_build.util.errors import ConfigurationError, IntegrityError
from vllm_build.util.paths import cache_root

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.toolchain.toolchain_lock import LockedFile


def line(**changes: Any) -> wheel_table.Target:
    wheel = replace(wheel_table.Wheel("pack", "pack==1.0", where="wheels.toml:7"), **changes)
    return wheel_table.Table((wheel,)).targets(wheel)[0]


def entry(wheel: Path, requires: tuple[str, ...] = (), version: str = "1.0") -> LockedFile:
    return toolchain_lock.LockedFile(
        "pack", 0, "pypi", "pack", version, wheel.name, "0" * 64, requires=requires
    )


STABLE = "cp38-abi3-manylinux_2_17_x86_64"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    write_table(tmp_path / "tree", '[wheels]\npack = "pack==1.0"\n')
    (tmp_path / "work").mkdir()
    return tmp_path


def rendered(
    folder: Path, target: wheel_table.Target, file: LockedFile, path: Path
) -> dict[str, Any]:
    file = replace(file, build=target.id)
    recipe = wheel_recipe.write(
        folder / "tree", target, file, path, ["python >=3.11"], folder / "work"
    )
    assert recipe == folder / "work" / "pack" / "recipe.yaml"
    document: dict[str, Any] = YAML(typ="safe", pure=True).load(recipe.read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize(
    ("wheel", "changes", "message", "expected"),
    [
        ({"tag": "cp311-none-linux_x86_64"}, {}, "is not pure Python", "any platform"),
        ({}, {"kind": "abi3"}, "is pure Python", "a compiled wheel"),
        ({}, {"kind": "compiled"}, "is pure Python", "a compiled wheel"),
        (
            {"tag": "cp311-cp311-manylinux_2_17_x86_64"},
            {"kind": "abi3"},
            "is for Python 3.11 alone",
            "the stable ABI",
        ),
        ({"headers": ["License: BSD"]}, {}, "names no SPDX license", 'license = "…"'),
        ({"about": {}}, {}, "contains no license text", "wheels/pack/licenses"),
        (
            {"headers": ["License: MIT", "Requires-Dist: more"]},
            {},
            "does not have the requirements that the lock lists",
            "",
        ),
        (
            {"headers": ["License: MIT", "Requires-Python: >=3.9"]},
            {},
            "does not have the requirements that the lock lists",
            "",
        ),
        ({}, {"requirement": "pack==1.1"}, "the lock has 1.0", "pack==1.1"),
    ],
)
def test_wheels_that_the_template_does_not_fit(
    empty: Path, wheel: dict[str, Any], changes: dict[str, Any], message: str, expected: str
) -> None:
    path = write_wheel(empty, "pack", **wheel)
    with pytest.raises(ConfigurationError) as caught:
        rendered(empty, line(**changes), entry(path), path)
    assert caught.value.message.startswith("wheels.toml:7: ")
    assert message in caught.value.message
    assert expected in (caught.value.expected or "")
    assert caught.value.remedy


def test_a_file_that_is_not_a_wheel_is_refused(empty: Path) -> None:
    path = empty / "pack-1.0-py3-none-any.whl"
    path.write_text("no archive", encoding="utf-8")
    with pytest.raises(IntegrityError, match="is not a wheel"):
        rendered(empty, line(), entry(path), path)


def test_text_of_a_wheel_is_not_interpreted(empty: Path) -> None:
    summary = 'it\'s "quoted": {a} [b] # ${{ env.get("X") }} @name@ \\ ünïcode 🎉'
    path = write_wheel(
        empty,
        "pack",
        headers=["License: MIT", f"Summary: {summary}"],
        files={"pack/__init__.py": "", "_pack.py": ""},
    )
    recipe = rendered(empty, line(license="ISC"), entry(path), path)
    assert recipe["about"]["summary"] == summary.replace("${{", "$ {{")
    assert recipe["about"]["license"] == "ISC"
    assert recipe["build"]["python"]["entry_points"] == []
    assert "homepage" not in recipe["about"]
    assert recipe["requirements"]["run"] == ["python >=3.11"]
    assert recipe["tests"] == [{"package_contents": {"site_packages": ["_pack", "pack"]}}]


@pytest.mark.parametrize(
    ("kind", "tag", "prefix", "noarch"),
    [
        ("pure", "py3-none-any", "pyh", "python"),
        ("abi3", STABLE, "abi3h", None),
        ("abi3", "py3-none-manylinux_2_17_x86_64", "abi3h", None),
        ("compiled", "cp311-cp311-manylinux_2_17_x86_64", "py311h", None),
        ("compiled", STABLE, "py311h", None),
    ],
)
def test_a_compiled_wheel_becomes_a_package_of_the_platform(
    empty: Path, kind: str, tag: str, prefix: str, noarch: str | None
) -> None:
    path = write_wheel(empty, "pack", tag=tag)
    recipe = rendered(empty, line(kind=kind), entry(path), path)
    assert recipe["context"]["prefix"] == prefix
    assert recipe["build"].get("noarch") == noarch
    assert recipe["build"]["python"]["version_independent"] is (noarch is None)


def test_tests_of_a_package_come_first_with_their_files(empty: Path) -> None:
    own = empty / "tree" / wheel_table.FOLDER / "pack"
    own.mkdir()
    (own / wheel_recipe.TESTS).write_text(
        "# Why.\n- script:\n    - true\n\n- script: [pack]\n", encoding="utf-8"
    )
    (own / "sample.py").write_text("", encoding="utf-8")
    path = write_wheel(empty, "pack")
    tests = rendered(empty, line(), entry(path), path)["tests"]
    assert tests == [
        {"script": [True]},
        {"script": ["pack"]},
        {"package_contents": {"site_packages": ["pack"]}},
    ]
    assert (empty / "work" / "pack" / "sample.py").is_file()


def test_the_wheels_of_this_tree_match_the_lock(root: Path, tmp_path: Path) -> None:
    """Compares the wheels that are in the download cache; a build compares the others."""
    lock, compared = toolchain_lock.read(root), 0
    table = wheel_table.read(root)
    for target in (target for wheel in table.wheels for target in table.targets(wheel)):
        (file,) = lock.of_build(target.id)
        path = Store(cache_root() / "downloads").path(file)
        if path.is_file():
            compared += 1
            found = wheel_metadata.read(path)
            assert (
                wheel_requirements.relevant(found.requires, target.wheel.extras),
                found.requires_python,
            ) == (file.requires, file.requires_python)
            work = tmp_path / target.id
            work.mkdir()
            assert wheel_recipe.write(root, target, file, path, (), work).is_file()
    if not compared:
        pytest.skip("the download cache has none of the wheels")
