# SPDX-License-Identifier: Apache-2.0
"""The table of wheels: its lines, and the needs of the packages."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from toolchain_wheels import write_table

from vllm_build.toolchain import toolchain_builds, toolchain_lock, wheel_resolver, wheel_table
from vllm_build.toolchain.toolchain_lock import Lock, LockedFile
from vllm_build.toolchain.wheel_resolver import Maker, Required
from vllm_build.toolchain.wheel_table import Wheel
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
# A comment with alpha = in it.
pythons = ["3.11", "3.13"]
[wheels]
alpha = "Alpha.Dist==1.0"
beta = { requirement = "beta[fast,small]==2.1", license = "MIT or BSD-3-Clause", \
more = ["gamma"], without = ["No_Need"] }

[wheels.gamma]
requirement = "gamma==3"
test_needs = ["python-3.11"]

[engine]
delta = { requirement = "delta==4", kind = "compiled" }
eps = { requirement = "eps==5", kind = "abi3" }

[names]
torch = "pytorch"
"""


def parse(tmp_path: Path, text: str) -> wheel_table.Table:
    return wheel_table.parse(text, tmp_path / "wheels.toml")


def test_lines_are_typed(tmp_path: Path) -> None:
    table = parse(tmp_path, GOOD)
    assert table.names == {"torch": "pytorch"}
    alpha, beta, gamma, delta, eps = table.wheels
    assert alpha == Wheel("alpha", "Alpha.Dist==1.0")
    assert (alpha.distribution, alpha.version, alpha.where) == (
        "alpha-dist",
        "1.0",
        f"{tmp_path / 'wheels.toml'}:4",
    )
    assert beta == Wheel(
        "beta",
        "beta==2.1",
        extras=("fast", "small"),
        license="MIT or BSD-3-Clause",
        more=("gamma",),
        without=("no-need",),
    )
    assert gamma == Wheel("gamma", "gamma==3", test_needs=("python-3.11",))
    assert delta == Wheel("delta", "delta==4", kind="compiled", on_request=True)
    assert delta.where == f"{tmp_path / 'wheels.toml'}:12"
    assert [
        [(target.id, target.python, target.abi, target.series) for target in table.targets(wheel)]
        for wheel in (alpha, delta, eps)
    ] == [
        [("alpha", "3.11", "none", "")],
        [("delta-3.11", "3.11", None, "3.11"), ("delta-3.13", "3.13", None, "3.13")],
        [("eps", "3.11", "abi3", "")],
    ]


@pytest.mark.parametrize(
    ("before", "after", "line", "message"),
    [
        (
            '"Alpha.Dist==1.0"',
            '"Alpha.Dist>=1.0"',
            4,
            "'Alpha.Dist>=1.0' does not name one version",
        ),
        (
            '"Alpha.Dist==1.0"',
            '"Alpha.Dist==1.*"',
            4,
            "'Alpha.Dist==1.*' does not name one version",
        ),
        (
            '"Alpha.Dist==1.0"',
            '"Alpha.Dist===1.0"',
            4,
            "'Alpha.Dist===1.0' does not name one version",
        ),
        ('"Alpha.Dist==1.0"', '"Alpha.Dist"', 4, "'Alpha.Dist' does not name one version"),
        ('"Alpha.Dist==1.0"', '"a b"', 4, "'a b' does not name one version"),
        (
            '"Alpha.Dist==1.0"',
            "\"a==1; python_version > '3'\"",
            4,
            "\"a==1; python_version > '3'\" does not name one version",
        ),
        ('"Alpha.Dist==1.0"', "3", 4, "the entry 'alpha' is malformed"),
        ("\nalpha = ", "\nAlpha = ", 4, "the entry 'Alpha' is malformed"),
        ('requirement = "beta[fast,small]==2.1", ', "", 5, "None does not name one version"),
        ("license = ", "licence = ", 5, "unknown key 'licence' in beta"),
        ('"MIT or BSD-3-Clause"', '"BSD"', 5, "license = 'BSD' of beta is not an SPDX expression"),
        ('["gamma"]', '"gamma"', 5, "more of beta is not a list of distinct strings"),
        ('["No_Need"]', '["a", "a"]', 5, "without of beta is not a list of distinct strings"),
        ('["python-3.11"]', "[3]", 7, "test_needs of gamma is not a list of distinct strings"),
        ('"gamma==3"', '"alpha_dist==3"', 7, "alpha-dist is already the package alpha"),
        ('torch = "pytorch"', "torch = 3", 16, "3 is not a package name"),
        ("[names]", "[name]", 15, "unknown table 'name'"),
        (
            '["3.11", "3.13"]',
            '["3.11", "3.11"]',
            2,
            "pythons lists an interpreter twice",
        ),
        ('["3.11", "3.13"]', '["3"]', 2, "pythons is not a list of interpreters"),
        ('"compiled"', '"pure python"', 12, "unknown kind 'pure python'"),
        ('"eps==5"', '"alpha_dist==3"', 13, "alpha-dist is already the package alpha"),
        ("[names]", "[names", None, "not valid TOML"),
    ],
)
def test_a_mistake_is_reported_with_its_line(
    tmp_path: Path, before: str, after: str, line: int | None, message: str
) -> None:
    assert GOOD.count(before) == 1
    with pytest.raises(ConfigurationError) as caught:
        parse(tmp_path, GOOD.replace(before, after))
    at = "" if line is None else f":{line}"
    assert caught.value.message.startswith(f"{tmp_path / 'wheels.toml'}{at}: {message}")


def locked(
    build: str, version: str, *requires: str, python: str = ">=3.9", name: str = ""
) -> LockedFile:
    file = f"{build}-{version}-py3-none-any.whl"
    return LockedFile(
        build,
        0,
        "pypi",
        name or build,
        version,
        file,
        "0" * 64,
        requires=requires,
        requires_python=python,
    )


MAKERS = {
    "numpy": [
        Maker("numpy-3.11", "2.4.6", python="3.11"),
        Maker("numpy-3.13", "2.4.6", python="3.13"),
    ],
    "python-gil": [Maker("python-gil-3.11", "3.11", python="3.11")],
    "pytorch": [Maker("pytorch-3.11", "2.13.0", python="3.11")],
}
PYTHONS = ["3.11.2", "3.13.5"]


def require(
    tmp_path: Path,
    lines: str,
    *files: LockedFile,
    pythons: list[str] = PYTHONS,
    head: str = "",
) -> dict[str, Required]:
    table = parse(tmp_path, f'{head}[wheels]\n{lines}\n[names]\ntorch = "pytorch"\n')
    return wheel_resolver.require(table, Lock.of(files), MAKERS, pythons)


def test_requirements_become_needs_under_the_channel_s_names(tmp_path: Path) -> None:
    lines = 'engine = "The.Engine==1"\nyaml-py = "PyYAML==6.0.1"\n'
    requires = (
        "NumPy<3,>=2",
        "pyyaml",
        "torch>=2.11",
        "tomli; python_version < '3.11'",
        "x; extra == 'dev'",
    )
    found = require(tmp_path, lines, locked("engine", "1", *requires), locked("yaml-py", "6.0.1"))
    assert found["engine"] == Required(
        ("numpy-3.11", "numpy-3.13", "pytorch-3.11", "yaml-py"),
        ("python >=3.11", "numpy >=2,<3", "yaml-py", "pytorch >=2.11"),
    )
    assert found["yaml-py"] == Required((), ("python >=3.11",))


def test_a_line_may_say_more_and_less_than_the_metadata(tmp_path: Path) -> None:
    lines = (
        'a = { requirement = "a==1", more = ["numpy"], without = ["Big.Thing"], test_needs = '
        '["python-3.11"] }'
    )
    assert require(tmp_path, lines, locked("a", "1", "big_thing>=3"))["a"] == Required(
        ("numpy-3.11", "numpy-3.13"), ("python >=3.11", "numpy")
    )


def compiled(build: str, tag: str, *requires: str) -> LockedFile:
    return replace(locked(build, "1", *requires), filename=f"a-1-{tag}.whl")


def test_a_compiled_wheel_requires_the_packages_of_its_interpreter(tmp_path: Path) -> None:
    lines = "\n".join(
        f'{name} = {{ requirement = "{name}==1", kind = "compiled" }}' for name in "ab"
    )
    found = require(
        tmp_path,
        lines,
        compiled("a-3.11", "cp311-cp311-manylinux2014_x86_64.manylinux_2_28_x86_64", "b", "numpy"),
        compiled("a-3.13", "cp313-cp313-linux_x86_64", "x; python_version < '3.12'", "b>0"),
        compiled("b-3.11", "cp311-cp311-manylinux_2_28_x86_64"),
        compiled("b-3.13", "cp313-cp313-manylinux_2_28_x86_64"),
        head='pythons = ["3.11", "3.13"]\n',
    )
    assert found["a-3.11"] == Required(
        ("b-3.11", "numpy-3.11", "python-3.11", "python_abi-3.11"),
        ("python 3.11.*", "python_abi 3.11.* *_cp311", "__glibc >=2.17", "b", "numpy"),
    )
    assert found["a-3.13"] == Required(
        ("b-3.13", "python-3.13", "python_abi-3.13"),
        ("python 3.13.*", "python_abi 3.13.* *_cp313", "b >0"),
    )


def test_a_requirement_that_is_made_for_other_interpreters_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"a-3\.13 1 requires torch, which nothing in the channel makes for Python 3\.13",
    ):
        require(
            tmp_path,
            'a = { requirement = "a==1", kind = "compiled" }',
            compiled("a-3.13", "cp313-cp313-linux_x86_64", "torch"),
            head='pythons = ["3.13"]\n',
        )


def test_a_wheel_of_the_stable_abi_requires_an_interpreter_with_a_gil(tmp_path: Path) -> None:
    found = require(
        tmp_path,
        'a = { requirement = "a==1", kind = "abi3" }',
        compiled("a", "cp39-abi3-manylinux_2_31_x86_64", "numpy"),
    )
    assert found["a"] == Required(
        ("numpy-3.11", "numpy-3.13", "python-gil-3.11"),
        ("python >=3.11", "python-gil", "__glibc >=2.31", "numpy"),
    )


def test_every_missing_dependency_is_named_with_its_wheel(tmp_path: Path) -> None:
    lines = 'a = "a==1"\nb = { requirement = "b[x]==2", more = ["odd"] }'
    with pytest.raises(ConfigurationError) as caught:
        require(
            tmp_path,
            lines,
            locked("a", "1", "starlette<1,>=0.4", "numpy"),
            locked("b", "2", "h11; extra == 'x'"),
        )
    where = tmp_path / "wheels.toml"
    assert caught.value.message.splitlines() == [
        f"{where}:2: a 1 requires starlette<1,>=0.4, which nothing in the channel makes",
        f"{where}:3: b 2 requires h11, which nothing in the channel makes",
        f"{where}:3: `more` of b names odd, which nothing in the channel makes",
    ]
    assert toolchain_lock.UPDATE_COMMAND in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("lines", "files", "message"),
    [
        (
            'a = "a==1"',
            [locked("a", "1", "numpy<2")],
            "a 1 requires numpy<2, but the channel has 2.4.6 (numpy-3.11)",
        ),
        (
            'a = "a==1"\nb = "b==2"',
            [locked("a", "1", "b>2"), locked("b", "2")],
            "a 1 requires b>2, but the channel has 2 (b)",
        ),
        (
            'a = "a==1"\nb = "b[x]==2"',
            [locked("a", "1", "b[x,y]"), locked("b", "2")],
            "a 1 requires b with the extra 'y'",
        ),
        ('a = "a==1"', [locked("a", "1", python=">=3.14")], "a 1 is for Python >=3.14"),
    ],
)
def test_made_packages_must_satisfy_requirements(
    tmp_path: Path, lines: str, files: list[LockedFile], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        require(tmp_path, lines, *files)
    assert caught.value.message == f"{tmp_path / 'wheels.toml'}:2: {message}"
    assert caught.value.expected
    assert caught.value.remedy


def test_a_name_is_that_of_a_package(tmp_path: Path) -> None:
    table = parse(tmp_path, '[names]\nTorch = "pytroch"\n')
    with pytest.raises(
        ConfigurationError, match=r"\[names\] maps torch to pytroch, which no recipe makes"
    ):
        wheel_resolver.require(table, Lock(), MAKERS, PYTHONS)


def test_a_line_that_is_not_locked_yet_needs_nothing(tmp_path: Path) -> None:
    old = locked("a", "1", "gone")
    assert require(tmp_path, 'a = "a==2"', old)["a"] == Required((), ())
    assert require(tmp_path, 'a = "a==1"')["a"] == Required((), ())
    with pytest.raises(ConfigurationError, match="requires gone"):
        require(tmp_path, 'a = "a==1.0"', old)


def test_a_tree_without_a_table_has_no_wheels(tmp_path: Path) -> None:
    assert wheel_table.read(tmp_path) == wheel_table.Table()


def test_a_folder_belongs_to_a_line(tmp_path: Path) -> None:
    write_table(tmp_path, '[wheels]\na = "a==1"\n')
    (tmp_path / wheel_table.FOLDER / "a").mkdir()
    assert [wheel.name for wheel in wheel_table.read(tmp_path).wheels] == ["a"]
    (tmp_path / wheel_table.FOLDER / "b").mkdir()
    with pytest.raises(
        ConfigurationError, match=r"wheels/b belongs to no line of toolchain/wheels\.toml"
    ):
        wheel_table.read(tmp_path)
    (tmp_path / wheel_table.FOLDER / "b").rmdir()
    (tmp_path / wheel_table.FOLDER / wheel_table.TEMPLATE).unlink()
    with pytest.raises(ConfigurationError, match="does not exist"):
        wheel_table.read(tmp_path)


def test_this_tree_s_table_and_its_lock_say_the_same(root: Path) -> None:
    table, lock = wheel_table.read(root), toolchain_lock.read(root)
    targets = [target for wheel in table.wheels for target in table.targets(wheel)]
    out_of_step = [
        target.id for target in targets if wheel_table.locked_wheel(target, lock) is None
    ]
    assert out_of_step == [], f"run {toolchain_lock.UPDATE_COMMAND}"
    for on_request in (False, True):
        names = [wheel.name for wheel in table.wheels if wheel.on_request is on_request]
        assert names == sorted(names), "the table is sorted"
    names = [target.id for target in targets]
    builds = {build.id: build for build in toolchain_builds.load(root)}
    assert builds["jinja2"].run == ("python >=3.11", "markupsafe >=2.0")
    assert builds["hypothesis"].run == ("python >=3.11", "sortedcontainers >=2.1.0,<3.0.0")
    # Packages of this channel support only its interpreters.
    assert all(re.match(r"python (>=)?3\.1\d", builds[name].run[0]) for name in names)
    assert not {build.id for build in builds.values() if build.wheel is None} & set(names)
    assert {builds[target.id].on_request for target in targets if not target.wheel.on_request} == {
        False
    }


def test_what_the_engine_imports_is_made_on_request_for_each_interpreter(root: Path) -> None:
    builds = toolchain_builds.load(root)
    chosen = {
        python: {build.id for build in toolchain_builds.select(builds, ["transformers", python])}
        for python in ("python-3.11", "python-3.13")
    }
    assert {"regex-3.11", "numpy-3.11", "tokenizers"} <= chosen["python-3.11"]
    assert not [name for name in chosen["python-3.11"] if name.endswith(("3.13", "3.13t"))]
    assert {"regex-3.13", "numpy-3.13", "tokenizers"} <= chosen["python-3.13"]
    assert not {"numpy-3.11", "numpy-3.13t", "regex-3.11"} & chosen["python-3.13"]
    default = {build.id for build in toolchain_builds.select(builds, None)}
    assert not {"transformers", "regex-3.11", "pytorch-3.13"} & default
    # A build that needs a package has what that package requires for its own interpreter.
    pytorch = {build.id for build in toolchain_builds.select(builds, ["pytorch-3.13"])}
    assert "markupsafe-3.13" in pytorch
    assert "markupsafe-3.11" not in pytorch


def test_a_recipe_and_a_line_do_not_make_one_package(tmp_path: Path) -> None:
    write_table(tmp_path, '[wheels]\na = "a==1"\n')
    folder = tmp_path / "toolchain" / "recipes" / "a"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("schema_version: 1\n", encoding="utf-8")
    (folder / "sources.toml").write_text('[[build]]\nid = "a"\nversion = "1"\n', encoding="utf-8")
    with pytest.raises(
        ConfigurationError, match=r"wheels\.toml:2: build 'a' also exists in .*a/sources\.toml"
    ):
        toolchain_builds.load(tmp_path)


def test_wheels_that_need_each_other_are_named_with_their_line(tmp_path: Path) -> None:
    write_table(tmp_path, '[wheels]\na = "a==1"\nb = "b==1"\n')
    toolchain_lock.write(tmp_path, Lock.of([locked("a", "1", "b"), locked("b", "1", "a")]))
    with pytest.raises(
        ConfigurationError, match=r"wheels\.toml:2: builds need each other in a cycle: a -> b -> a"
    ):
        toolchain_builds.load(tmp_path)
    write_table(tmp_path, '[wheels]\na = "a==1"\nb = { requirement = "b==1", without = ["a"] }\n')
    assert [build.id for build in toolchain_builds.load(tmp_path)] == ["b", "a"]
