# SPDX-License-Identifier: Apache-2.0
"""The merge of the engine's files with ours: an unlisted clash stops the build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllm_build.engine import faces
from vllm_build.engine.engine_source import Engine
from vllm_build.util import toml
from vllm_build.util.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

FACES = faces.Faces(
    thin=frozenset({"vllm/__init__.py"}),
    ours={"vllm/report.py": "ours is better"},
    alone={"vllm/types.pyi": "types"},
)
MINE = {"vllm/__init__.py", "vllm/_kernels/a.py", "vllm/report.py", "vllm/types.pyi"}
THEIRS = {"vllm/__init__.py", "vllm/engine.py", "vllm/report.py"}
TABLE = """schema = 1
thin = ["vllm/__init__.py"]
[ours]
"vllm/report.py" = "ours is better"
[alone]
"vllm/types.pyi" = "types"
"""


def test_listed_files_do_not_clash() -> None:
    assert faces.clashes(MINE, THEIRS, FACES) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        ({"vllm/engine.py"}, set(), "both have vllm/engine.py"),
        ({"vllm/new.py"}, set(), "vllm/new.py is ours alone"),
        (set(), {"vllm/_kernels/b.py"}, "the engine has vllm/_kernels/b.py"),
        (set(), {"vllm/types.pyi"}, "in the list 'alone', but the engine has it"),
        (set(), {"vllm/_kernels/a/b.py"}, "vllm/_kernels/a.py and the folder"),
        ({"vllm/_kernels/c/d.py"}, {"vllm/_kernels/c.py"}, "vllm/_kernels/c.py and the folder"),
        (set(), {"vllm/_kernels.py"}, "vllm/_kernels.py and the folder vllm/_kernels/"),
        ({"vllm/a.py"}, {"vllm/a/b/c.py"}, "vllm/a.py and the folder vllm/a/"),
        (set(), {"vllm/types.pyi/x"}, "vllm/types.pyi is a file and a folder"),
        (set(), {"vllm/_kernels/a.py/x"}, "vllm/_kernels/a.py is a file and a folder"),
        (set(), {"vllm/Engine.py"}, "vllm/Engine.py and vllm/engine.py differ only in case"),
        (set(), {"vllm/Report.py"}, "vllm/Report.py and vllm/report.py differ only in case"),
        (set(), {"vllm/Types.pyi"}, "vllm/Types.pyi and vllm/types.pyi differ only in case"),
        (set(), {"vllm/_C.abi3.so"}, "the engine has vllm/_C.abi3.so, which is compiled"),
        (set(), {"vllm/x/libx.so.1.2"}, "libx.so.1.2, which is compiled"),
        (set(), {"vllm/x.pyc"}, "vllm/x.pyc, which is compiled"),
        (set(), {"vllm/_build_info/vllm-kernels.json"}, "would be a record of our libraries"),
    ],
)
def test_a_clash_is_named(mine: set[str], theirs: set[str], words: str) -> None:
    found = faces.clashes(MINE | mine, THEIRS | theirs, FACES)
    assert any(words in line for line in found), found


@pytest.mark.parametrize(
    ("gone", "side", "words"),
    [
        ("vllm/__init__.py", "theirs", "in the list 'thin', but the engine does not have it"),
        ("vllm/report.py", "theirs", "in the list 'ours', but the engine does not have it"),
        ("vllm/__init__.py", "mine", "in the list 'thin', but this tree does not have it"),
        ("vllm/report.py", "mine", "in the list 'ours', but this tree does not have it"),
        ("vllm/types.pyi", "mine", "in the list 'alone', but this tree does not have it"),
    ],
)
def test_a_list_that_is_out_of_date_is_named(gone: str, side: str, words: str) -> None:
    mine, theirs = set(MINE), set(THEIRS)
    {"mine": mine, "theirs": theirs}[side].discard(gone)
    assert any(words in line for line in faces.clashes(mine, theirs, FACES))


@pytest.mark.parametrize("name", ["vllm/_C.py", "vllm/_C/__init__.py"])
def test_a_module_in_the_place_of_a_library(name: str) -> None:
    (found,) = faces.clashes(MINE, THEIRS | {name}, FACES, ["vllm/_C", "vllm/_D"])
    assert found == f"the engine has {name}, which hides or is hidden by our library vllm/_C"


def test_every_library_has_a_place(root: Path) -> None:
    assert {"vllm/_C", "vllm/vllm_flash_attn/_vllm_fa2_C"} <= set(faces.library_places(root))


def test_generated_versions_do_not_clash() -> None:
    both = {"vllm/_version.py"}
    assert faces.clashes(MINE | both, THEIRS | both, FACES) == []


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Engine, Path]:
    """A tree with the table, an engine, and a folder with the thin face."""
    root, source, place = tmp_path / "root", tmp_path / "engine", tmp_path / "lib"
    for folder, names in ((root, MINE), (place, MINE), (source, THEIRS)):
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{folder.name} {name}\n", encoding="utf-8")
    (root / "third_party").mkdir(parents=True)
    (root / faces.TABLE).write_text(TABLE, encoding="utf-8")
    return root, Engine("1.0", "a" * 64, source), place


def test_the_engine_is_put_around_our_modules(scene: tuple[Path, Engine, Path]) -> None:
    root, engine, place = scene
    assert faces.merge(root, engine, place) == ["vllm/__init__.py", "vllm/engine.py"]
    content = {
        name: (place / name).read_text(encoding="utf-8").split()[0]
        for name in (f"vllm/{path}" for path in faces.files_below(place / "vllm"))
    }
    assert content == {
        "vllm/__init__.py": "engine",
        "vllm/_kernels/a.py": "lib",
        "vllm/engine.py": "engine",
        "vllm/report.py": "lib",
        "vllm/types.pyi": "lib",
    }


def test_a_clash_stops_the_build_before_anything_is_copied(
    scene: tuple[Path, Engine, Path],
) -> None:
    root, engine, place = scene
    for folder in (root, place):
        (folder / "vllm" / "engine.py").write_text("ours\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="both have vllm/engine") as caught:
        faces.merge(root, engine, place)
    assert "vllm/_kernels/" in (caught.value.remedy or "")
    assert (place / "vllm" / "__init__.py").read_text(encoding="utf-8").startswith("lib")


def test_a_build_in_the_folder_of_an_earlier_one(scene: tuple[Path, Engine, Path]) -> None:
    """The same engine is merged again. Files of another one are an error that names the folder."""
    root, engine, place = scene
    first = faces.merge(root, engine, place)
    for name in ("_version.py", "_engine.json"):
        (place / "vllm" / "_kernels" / name).write_text("written\n", encoding="utf-8")
    assert faces.merge(root, engine, place) == first
    (engine.folder / "vllm" / "engine.py").unlink()
    with pytest.raises(
        IntegrityError, match=r"1 files of an earlier build, such as vllm/engine\.py"
    ):
        faces.merge(root, engine, place)


def test_a_message_about_many_clashes_is_short(scene: tuple[Path, Engine, Path]) -> None:
    root, engine, place = scene
    for number in range(200):
        (engine.folder / "vllm" / f"x{number}.so").write_text("", encoding="utf-8")
    with pytest.raises(IntegrityError, match="and 180 more") as caught:
        faces.merge(root, engine, place)
    assert caught.value.message.count("\n") < 25
    assert not list(place.rglob("*.so"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema = 1\nthin = 1\n",
        "thin = []\n",
        "[",
        TABLE + "more = 1\n",
        TABLE.replace("vllm/__init__.py", "../evil.py"),
        TABLE.replace("vllm/__init__.py", "vllm/../evil.py"),
        TABLE.replace("vllm/report.py", "/etc/passwd"),
        TABLE.replace("vllm/types.pyi", "vllm//types.pyi"),
        TABLE.replace("vllm/types.pyi", "vllm/report.py"),
        TABLE.replace('"types"', '" "'),
        TABLE.replace("ours is better", ""),
    ],
)
def test_a_malformed_table_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "third_party").mkdir()
    (tmp_path / faces.TABLE).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        faces.read(tmp_path)


def test_every_module_outside_our_package_is_in_the_table(root: Path) -> None:
    table = faces.read(root)
    outside = {
        name
        for name in faces.python_files(root)
        if not name.startswith(faces.OURS) and name not in faces.GENERATED
    }
    assert outside == table.thin | set(table.ours) | set(table.alone)


def test_every_module_of_ours_is_in_a_wheel(root: Path) -> None:
    """Wheels contain what pyproject.toml lists, and the table what wheels contain."""
    document = toml.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(document["tool"]["setuptools"]["packages"])
    folders = {
        name.rpartition("/")[0].replace("/", ".")
        for name in faces.python_files(root)
        if name.endswith(".py")
    }
    assert folders == listed
