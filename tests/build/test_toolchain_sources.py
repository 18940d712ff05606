# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.toolchain import build_order, debian_suites, toolchain_builds, wheel_table
from vllm_build.toolchain.toolchain_builds import AptSource, AptSourcePackage, Build, PypiSource
from vllm_build.util.errors import ConfigurationError

GOOD = """
[[build]]
id = "thing-3.13t"
variant = { python_version = "3.13t" }
needs = ["other"]
[[build.source]]
type = "apt"
suite = "bookworm"
packages = ["libstdc++6", "gcc-12"]
[[build.source]]
type = "apt-source"
suite = "trixie"
package = "python3.13"
[[build.source]]
type = "pypi"
requirement = "numpy==2.4.6"
python = "3.13"
abi = "cp313t"
[[build]]
id = "other"
version = "1.0"
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text("schema_version: 1\n", encoding="utf-8")
    path = folder / "sources.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_kind_of_source(tmp_path: Path) -> None:
    first, second = toolchain_builds.parse_file(write(tmp_path, GOOD))
    assert first.sources == (
        AptSource("bookworm", ("libstdc++6", "gcc-12")),
        AptSourcePackage("trixie", "python3.13"),
        PypiSource("numpy==2.4.6", "3.13", "cp313t"),
    )
    assert first.needs == ("other",)
    assert dict(first.variant) == {"python_version": "3.13t"}
    assert (second.sources, second.version) == ((), "1.0")


PYPI = '[[build]]\nid = "a"\n[[build.source]]\ntype = "pypi"\nrequirement = "{}"\n'
APT = '[[build]]\nid = "a"\n[[build.source]]\ntype = "apt"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no 'build' tables"),
        ("[[build]\n", "not valid TOML"),
        ("[build]\n", "no 'build' tables"),
        ('[[build]]\nid = "a"\n', "either sources or a version"),
        (
            (
                '[[build]]\nid = "a"\nversion = "1"\n[[build.source]]\ntype = "pypi"\n'
                'requirement = "x==1"\n'
            ),
            "either sources or a version",
        ),
        ('[[build]]\nid = "A b"\n', "malformed"),
        ("[[build]]\nid = 3\n", "needs the string 'id'"),
        ('[[build]]\nid = "a"\nsource = 3\n', "no 'source' tables"),
        (PYPI.format("x==1") + 'url = "u"\n', ":6: unknown key 'url'"),
        (PYPI.format("x>=1"), "does not name one version"),
        (PYPI.format("x==1.*"), "does not name one version"),
        (PYPI.format("x[y]==1"), "does not name one version"),
        (PYPI.format("x y"), ":5: 'x y'"),
        (PYPI.format("x==1") + 'python = "three"\n', "malformed"),
        (PYPI.format("x==1") + 'abi = "xx"\n', "malformed"),
        (PYPI.format("x==1") + 'alternative = "y==1"\n', ":6: unknown key 'alternative'"),
        (APT + 'suite = "potato"\npackages = ["a1"]\n', "unknown suite 'potato'"),
        (
            APT + 'suite = "bookworm/contrib"\npackages = ["a1"]\n',
            "unknown suite 'bookworm/contrib'",
        ),
        (APT + 'suite = "bookworm"\npackages = []\n', "needs Debian package names"),
        (APT + 'suite = "bookworm"\npackages = ["ok1", "Not OK"]\n', "needs Debian package names"),
        (APT + 'suite = "bookworm"\npackages = ["aa", "aa"]\n', "lists an entry twice"),
        ('[[build]]\nid = "a"\nversion = "1"\nneeds = "b"\n', "not a list of strings"),
        ('[[build]]\nid = "a"\nversion = "1"\nvariant = { k = 3 }\n', "not a table of strings"),
        ('[[build]]\nid = "a"\n[[build.source]]\ntype = "svn"\n', "unknown type 'svn'"),
        ('[[build]]\nid = "a"\nversion = "1"\non_request = "yes"\n', "neither true nor false"),
        ('[[build]]\nid = "a"\nversion = "1"\npackages = "a"\n', "not a list of strings"),
    ],
)
def test_errors_name_the_file_and_the_mistake(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        toolchain_builds.parse_file(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message


def test_a_suite_and_its_component(tmp_path: Path) -> None:
    (build,) = toolchain_builds.parse_file(
        write(tmp_path, APT + 'suite = "trixie/non-free"\npackages = ["nvidia-cuda-toolkit"]\n')
    )
    assert build.sources == (AptSource("trixie/non-free", ("nvidia-cuda-toolkit",)),)
    assert debian_suites.split_suite("trixie/non-free") == ("trixie", "non-free")
    assert debian_suites.split_suite("trixie") == ("trixie", "main")


def test_each_suite_is_in_one_group_of_lists() -> None:
    names = {
        "bookworm": "main",
        "trixie/non-free": "non-free",
        "bookworm-security": "bookworm-security",
        "experimental": "experimental",
    }
    assert {suite: debian_suites.find_group(suite).name for suite in names} == names
    for suite in debian_suites.SPELLINGS:
        release, component = debian_suites.split_suite(suite)
        group = debian_suites.find_group(suite)
        assert (release in group.suites, group.component) == (True, component)
        assert group.security is release.endswith("-security")


def test_what_a_build_makes(tmp_path: Path) -> None:
    text = (
        '[[build]]\nid = "a-1"\nversion = "1"\n[[build]]\nid = "a-2"\nversion = "1"\n'
        'packages = ["a", "a-dev"]\non_request = true\n'
    )
    first, second = toolchain_builds.parse_file(write(tmp_path / "a", text))
    assert (first.makes, first.on_request) == (("a",), False)
    assert (second.makes, second.on_request) == (("a", "a-dev"), True)


def test_builds_on_request_are_left_out_unless_asked_for_or_needed() -> None:
    big = Build(id="big", folder=Path("r"), sources=(), version="1", on_request=True)
    user = Build(
        id="user", folder=Path("r"), sources=(), version="1", needs=("big",), on_request=True
    )
    every = [Build(id="small", folder=Path("r"), sources=(), version="1"), big, user]
    assert [b.id for b in toolchain_builds.select(every, None)] == ["small"]
    assert [b.id for b in toolchain_builds.select(every, ["user"])] == ["big", "user"]
    assert [
        b.id
        for b in toolchain_builds.select(
            [*every, replace(user, id="usual", on_request=False)], None
        )
    ] == ["small", "big", "usual"]


def test_the_toolkits_of_this_tree_are_made_on_request_only(root: Path) -> None:
    builds = toolchain_builds.load(root)
    assert not [b.id for b in toolchain_builds.select(builds, None) if "cuda" in b.id]
    assert {"cuda-nvcc-13.0", "gxx_linux-64"} <= {
        b.id for b in toolchain_builds.select(builds, ["cuda-nvcc-13.0"])
    }


def test_sources_without_a_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    (tmp_path / "recipe.yaml").unlink()
    with pytest.raises(ConfigurationError, match=r"no recipe\.yaml"):
        toolchain_builds.parse_file(path)


def graph(edges: dict[str, tuple[str, ...]]) -> list[Build]:
    return [
        Build(id=name, folder=Path("r", name), sources=(), needs=needs, version="1")
        for name, needs in edges.items()
    ]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({"a": ("b",)}, "'a' needs 'b', which no recipe makes"),
        ({"a": ("a",)}, "a -> a"),
        ({"a": ("b",), "b": ("c",), "c": ("a",)}, "a -> b -> c -> a"),
    ],
)
def test_impossible_orders(edges: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_order.ordered(graph(edges))


def test_an_id_belongs_to_one_build() -> None:
    with pytest.raises(ConfigurationError, match="also exists"):
        build_order.ordered(graph({"a": ()}) + graph({"a": ()}))


@st.composite
def acyclic(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    names = draw(
        st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), min_size=1, max_size=8, unique=True)
    )
    return {
        name: tuple(draw(st.lists(st.sampled_from(names[:n]), unique=True))) if n else ()
        for n, name in enumerate(names)
    }


@given(acyclic(), st.randoms())
def test_needed_builds_come_first_in_one_fixed_order(
    edges: dict[str, tuple[str, ...]], random: object
) -> None:
    builds = graph(edges)
    expected = [build.id for build in build_order.ordered(builds)]
    random.shuffle(builds)  # type: ignore[attr-defined]
    order = [build.id for build in build_order.ordered(builds)]
    assert order == expected
    assert sorted(order) == sorted(edges)
    assert all(
        order.index(need) < order.index(name) for name, needs in edges.items() for need in needs
    )


@given(acyclic(), st.data())
def test_a_selection_holds_all_it_needs_and_no_more(
    edges: dict[str, tuple[str, ...]], data: st.DataObject
) -> None:
    wanted = data.draw(st.sets(st.sampled_from(sorted(edges))))
    chosen = {
        build.id
        for build in toolchain_builds.select(build_order.ordered(graph(edges)), sorted(wanted))
    }
    assert wanted <= chosen
    assert all(need in chosen for name in chosen for need in edges[name])
    assert all(name in wanted or any(name in edges[other] for other in chosen) for name in chosen)


def test_an_unknown_selection() -> None:
    with pytest.raises(ConfigurationError, match="called 'b'"):
        toolchain_builds.select(graph({"a": ()}), ["b"])


def test_the_tree_has_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no \*/sources\.toml"):
        toolchain_builds.load(tmp_path)


def test_the_recipes_of_this_tree_are_sound(root: Path) -> None:
    builds = toolchain_builds.load(root)
    assert {
        "gxx_linux-64",
        "python-3.11",
        "python-3.13",
        "python-3.13t",
        "pytorch-3.11",
        "libtorch",
        "cmake",
        "libhwy",
    } <= {b.id for b in builds}
    for build in builds:
        assert build.recipe.is_file()
        text = build.recipe.read_text(encoding="utf-8")
        assert "TOOLCHAIN_DIGEST" in text, (
            f"{build.recipe}: the build string lacks the digest of its inputs"
        )
        defined_in = root / wheel_table.TABLE if build.wheel else build.folder / "sources.toml"
        assert "://" not in defined_in.read_text(encoding="utf-8"), (
            f"{defined_in}: sources are named and have no address"
        )
