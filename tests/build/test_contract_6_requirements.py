# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 6: run requirements by device, from one source for pip and conda."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from vllm_build.engine import engine_requirements
from vllm_build.settings.choices import DEVICES
from vllm_build.util.errors import ConfigurationError
from vllm_build.wheels import requirements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: Name on PyPI -> different name on conda-forge.
CONDA_NAMES = {"torch": "pytorch"}


def write(folder: Path, **files: str) -> Path:
    (folder / "requirements").mkdir()
    for name, text in files.items():
        (folder / "requirements" / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def test_the_common_part_and_comments(tmp_path: Path) -> None:
    tree = write(
        tmp_path,
        common="# why\nfoo>=1  # because\n",
        cpu="-r common.txt  # all devices\nbar ; python_version > '3'\nfoo>=1\n",
    )
    assert requirements.read(tree, "cpu") == ["foo>=1", "bar ; python_version > '3'"]
    assert requirements.read(tree, "empty") == ["foo>=1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo\n", ["foo"]),
        ("# foo\n  # bar\n\t\n", []),
        ("foo\t# why\nbar   #why\n", ["foo", "bar"]),
        (
            "foo @ https://host.invalid/a.whl#sha256=0 # why\n",
            ["foo @ https://host.invalid/a.whl#sha256=0"],
        ),
        ("foo; python_version < '3.11'\n", ["foo; python_version < '3.11'"]),
        ("more\n-r common.txt\n", ["more"]),
        ("foo\r\n-r common.txt\r\n", ["foo", "more"]),
    ],
)
def test_lines(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert requirements.read(write(tmp_path, cpu=text, common="more\n"), "cpu") == expected


@given(st.lists(st.sampled_from(["foo>=1", "# bar", "", "baz[x]==2", "qux # q", "-r common.txt"])))
def test_only_requirements_come_out(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    found = requirements.read(
        write(tmp_path_factory.mktemp("tree"), cpu="\n".join(lines), common="more\n"), "cpu"
    )
    assert [str(Requirement(line)) for line in found] == found


@pytest.mark.parametrize(
    "line",
    [
        "--pre",
        "-c limits.txt",
        "-e .",
        "-r cpu.txt",
        "-r ../common.txt",
        "foo==1 --hash=sha256:00",
        "foo \\",
    ],
)
def test_what_else_pip_takes_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    """An ignored line would have no effect on the metadata, so it is an error."""
    with pytest.raises(ConfigurationError, match=r"cpu\.txt:2: .* is not a requirement"):
        requirements.read(write(tmp_path, cpu=f"fine\n{line}\n", common="more\n"), "cpu")


def test_circle_is_an_error(tmp_path: Path) -> None:
    tree = write(tmp_path, common="-r common.txt\n", cpu="-r common.txt\n")
    with pytest.raises(
        ConfigurationError, match=r"common\.txt:1: '-r common\.txt' is not a requirement"
    ):
        requirements.read(tree, "cpu")


def test_missing_common_part(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"common\.txt does not exist"):
        requirements.read(write(tmp_path, cpu="-r common.txt\n"), "cpu")


def test_file_that_is_no_text(tmp_path: Path) -> None:
    tree = write(tmp_path, cpu="")
    (tree / "requirements" / "cpu.txt").write_bytes(b"foo\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8 at byte 3"):
        requirements.read(tree, "cpu")


def test_unknown_device(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'dev'") as caught:
        requirements.read(write(tmp_path, dev="pytest"), "dev")
    assert all(device in str(caught.value.expected) for device in DEVICES)


def test_malformed_line_is_named(tmp_path: Path) -> None:
    tree = write(tmp_path, cpu="fine\nnot a requirement !!\n")
    with pytest.raises(ConfigurationError, match=r"cpu\.txt:2"):
        requirements.read(tree, "cpu")


def test_missing_device_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        requirements.read(write(tmp_path), "rocm")


def run_requirements(root: Path) -> dict[str, set[str]]:
    """Conda package -> what it requires at run time."""
    recipes = [
        YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        for path in (root / "recipe").glob("*/recipe.yaml")
    ]
    return {
        recipe["package"]["name"]: set(plain(recipe["requirements"]["run"])) for recipe in recipes
    }


def plain(entries: Iterable[object]) -> Iterator[str]:
    """All requirements, also conditional ones, without virtual packages such as ``__cuda``."""
    for entry in entries:
        if isinstance(entry, dict):
            below = entry["then"]
            yield from plain(below if isinstance(below, list) else [below])
        elif not str(entry).startswith("__"):
            yield str(entry)


def as_conda(line: str) -> str:
    """A requirement of pip in the spelling of conda."""
    requirement = Requirement(line)
    assert not requirement.marker, (
        f"{line}: conda has no markers; add a selector to the recipe and handle it in this test"
    )
    return f"{CONDA_NAMES.get(requirement.name, requirement.name)} {requirement.specifier}".strip()


def test_every_device_has_its_file(root: Path) -> None:
    for device in DEVICES:
        assert requirements.read(root, device)


def test_recipe_requires_what_pip_requires(root: Path) -> None:
    """The Python package is the same for all devices, so it requires what they have in common."""
    own = {"python >=3.11,<3.15"}
    conda = {
        entry for entry in run_requirements(root)["vllm"] if not entry.startswith("vllm-kernels")
    }
    engine = set(engine_requirements.read(root).for_conda())
    assert conda - own - engine == {as_conda(line) for line in requirements.read(root, "empty")}
    assert engine <= conda


@pytest.mark.parametrize("device", DEVICES)
def test_kernel_packages_require_what_the_device_adds(root: Path, device: str) -> None:
    """The packages of a device's kernels require what only that device needs."""
    added = {as_conda(line) for line in requirements.read(root, device)} - {
        as_conda(line) for line in requirements.read(root, "empty")
    }
    of_kernels = set().union(
        *(run for name, run in run_requirements(root).items() if name != "vllm")
    )
    assert added <= of_kernels


def imported(folder: Path) -> set[str]:
    """Third-party packages that the modules below a folder import."""
    found = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} has relative imports"
                found.add(str(node.module).partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"vllm"}


def test_common_is_what_the_package_imports(root: Path) -> None:
    """Modules for the engine may import what the engine requires as well."""
    names = {Requirement(line).name for line in requirements.read(root, "empty")}
    of_engine = imported(root / "vllm" / "_kernels" / "engine") - names
    assert imported(root / "vllm") - of_engine == names
    assert of_engine <= set(engine_requirements.read(root).specifiers)
