# SPDX-License-Identifier: Apache-2.0
"""From a line of the table to a package: locking, errors, and the content of the package."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from toolchain_wheels import write_table, write_wheel

from vllm_build.toolchain import toolchain_lock, wheel_recipe, wheel_table
from vllm_build.toolchain.pypi import MissingVersionError
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from toolchain_tree import Tree

PAGE = "https://example.invalid/x"
TABLE = """\
[wheels]
lower-case = "Lower_Case==1.0"
upper = { requirement = "upper[x]==1.0", license = "MIT", more = ["low"] }
"""


def members(package: Path) -> dict[str, bytes]:
    """Read every file of a package, including its metadata."""
    found = {}
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            if name.endswith(".tar.zst"):
                plain = (
                    zstandard.ZstdDecompressor()
                    .stream_reader(io.BytesIO(archive.read(name)))
                    .read()
                )
                with tarfile.open(fileobj=io.BytesIO(plain)) as part:
                    for member in part.getmembers():
                        content = part.extractfile(member) if member.isfile() else None
                        if content is not None:
                            found[member.name] = content.read()
    return found


@pytest.fixture
def tree(toolchain_tree: Tree) -> Tree:
    """The tree of two recipes, with a table of two wheels that are on the index but not locked."""
    write_table(toolchain_tree.root, TABLE)
    write_wheel(
        toolchain_tree.index,
        "Lower_Case",
        headers=[
            "Requires-Python: >=3.9",
            "License-Expression: MIT",
            "Summary: A: ${{ b }} # c",
            f"Home-page: {PAGE}",
            "Requires-Dist: low>=0.5",
        ],
        files={
            "lower_case/__init__.py": "",
            "lower_case/data.json": "{}",
            "lower_case-1.0.data/data/share/man/x.1": "manual\n",
            "lower_case-1.0.data/scripts/start-it": "#!python\nprint(1)\n",
        },
        about={
            "licenses/sub/LICENSE": "free\n",
            "entry_points.txt": "[console_scripts]\nlower = lower_case:main [x]\n",
        },
    )
    write_wheel(
        toolchain_tree.index,
        "upper",
        headers=[
            "Requires-Dist: Lower.Case~=1.0; extra == 'x'",
            "Requires-Dist: gone; extra == 'y'",
            "Requires-Dist: no; python_version < '3'",
        ],
        files={"upper/data.txt": "no module\n"},
        about={},
    )
    return toolchain_tree


def add_license(tree: Tree) -> None:
    folder = tree.root / wheel_table.FOLDER / "upper" / wheel_recipe.LICENSES
    folder.mkdir(parents=True)
    (folder / "LICENSE").write_text("given\n", encoding="utf-8")


def test_packages_come_out_of_lines(tree: Tree) -> None:
    assert {(file.build, file.requires) for file in tree.update(["lower-case", "upper"])} == {
        ("lower-case", ("low>=0.5",)),
        (
            "upper",
            ('Lower.Case~=1.0; extra == "x"', 'gone; extra == "y"', 'no; python_version < "3"'),
        ),
    }
    add_license(tree)
    assert tree.actions() == {
        "low": "built",
        "lower-case": "built",
        "upper": "built",
        "high": "built",
    }
    assert set(tree.actions().values()) == {"reused"}

    files = {
        path.name.partition("-1.0")[0]: members(path)
        for path in (tree.view / "noarch").glob("*.conda")
    }
    lower, upper = files["lower-case"], files["upper"]
    assert {name for name in lower if not name.startswith("info/")} == {
        *(
            "site-packages/lower_case/__init__.py",
            "site-packages/lower_case/data.json",
            "share/man/x.1",
            "python-scripts/start-it",
        ),
        *(
            f"site-packages/Lower_Case-1.0.dist-info/{name}"
            for name in ("METADATA", "WHEEL", "RECORD", "INSTALLER")
        ),
        *(
            f"site-packages/Lower_Case-1.0.dist-info/{name}"
            for name in ("licenses/sub/LICENSE", "entry_points.txt")
        ),
    }
    index: dict[str, Any] = json.loads(lower["info/index.json"])
    assert (index["name"], index["version"], index["noarch"]) == ("lower-case", "1.0", "python")
    assert index["depends"] == ["low >=0.5", "python >=3.11"]
    assert index["build"].startswith("pyh")
    assert json.loads(lower["info/link.json"])["noarch"]["entry_points"] == [
        "lower = lower_case:main"
    ]
    assert json.loads(lower["info/about.json"])["summary"] == "A: $ {{ b }} # c"
    assert json.loads(lower["info/about.json"])["home"] == PAGE
    assert [data for name, data in lower.items() if name.startswith("info/licenses/")] == [
        b"free\n"
    ]

    assert json.loads(upper["info/index.json"])["depends"] == [
        "low",
        "lower-case >=1.0,1.*",
        "python >=3.11",
    ]
    assert [data for name, data in upper.items() if name.startswith("info/licenses/")] == [
        b"given\n"
    ]
    assert json.loads(upper["info/about.json"])["license"] == "MIT"
    assert "site-packages/upper/data.txt" in upper


def test_a_changed_input_rebuilds_a_package_of_the_table(tree: Tree) -> None:
    tree.update()
    add_license(tree)
    tree.ensure()
    same = {"low": "reused", "high": "reused"}
    (tree.root / wheel_table.FOLDER / "upper" / wheel_recipe.LICENSES / "LICENSE").write_text(
        "other\n", encoding="utf-8"
    )
    assert tree.actions() == {**same, "lower-case": "reused", "upper": "built"}
    (tree.root / wheel_table.TABLE).write_text(TABLE.replace('"MIT"', '"ISC"'), encoding="utf-8")
    assert tree.actions() == {**same, "lower-case": "reused", "upper": "built"}
    (tree.root / wheel_table.TABLE).write_text(
        "# A comment.\n" + TABLE.replace('"MIT"', '"ISC"'), encoding="utf-8"
    )
    assert set(tree.actions().values()) == {"reused"}
    with (tree.root / wheel_table.FOLDER / wheel_table.TEMPLATE).open(
        "a", encoding="utf-8"
    ) as stream:
        stream.write("# Another template.\n")
    assert tree.actions() == {**same, "lower-case": "built", "upper": "built"}


def test_the_lock_stays_as_it_was_while_a_dependency_is_missing(tree: Tree) -> None:
    tree.update()
    before = toolchain_lock.path_of(tree.root).read_bytes()
    (tree.root / wheel_table.TABLE).write_text(
        TABLE.replace("upper[x]", "upper[y]"), encoding="utf-8"
    )
    with pytest.raises(ConfigurationError) as caught:
        tree.update(["upper"])
    assert caught.value.message == (
        f"{tree.root / wheel_table.TABLE}:3: upper 1.0 requires gone, which nothing in the "
        "channel makes"
    )
    assert toolchain_lock.path_of(tree.root).read_bytes() == before
    write_wheel(tree.index, "gone")
    with (tree.root / wheel_table.TABLE).open("a", encoding="utf-8") as stream:
        stream.write('gone = "gone==1.0"\n')
    assert {file.build for file in tree.update(["gone", "upper"])} >= {"gone"}


def test_a_distribution_without_a_pure_wheel_is_refused_when_it_is_locked(tree: Tree) -> None:
    (tree.index / "upper-1.0-py3-none-any.whl").unlink()
    for tag in ("cp311-cp311-manylinux_2_17_x86_64", "py3-none-manylinux_2_17_x86_64"):
        write_wheel(tree.index, "upper", tag=tag)
    with pytest.raises(
        MissingVersionError,
        match=r"wheels\.toml:3: pip finds no pure wheel for any platform of upper==1\.0; the index "
        r"has none of any version",
    ):
        tree.update(["upper"])


def test_the_pure_wheel_is_taken_where_there_is_a_compiled_one_too(tree: Tree) -> None:
    write_wheel(tree.index, "upper", tag="cp311-cp311-manylinux_2_17_x86_64")
    (file,) = [file for file in tree.update(["lower-case", "upper"]) if file.build == "upper"]
    assert (file.filename, file.abi) == ("upper-1.0-py3-none-any.whl", "none")
    add_license(tree)
    assert tree.actions(["upper"])["upper"] == "built"


def test_wheels_without_a_license_are_named_before_anything_is_locked(tree: Tree) -> None:
    for name in ("upper", "Lower_Case"):
        write_wheel(
            tree.index,
            name,
            headers=["License: BSD", "Classifier: License :: OSI Approved :: BSD License"],
        )
    before = toolchain_lock.path_of(tree.root).read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        tree.update(["lower-case", "upper"])
    # The other wheel has a license in its line.
    assert caught.value.message == (
        f"{tree.root / wheel_table.TABLE}:2: the metadata of Lower_Case==1.0 names no SPDX license"
    )
    assert toolchain_lock.path_of(tree.root).read_bytes() == before
