# SPDX-License-Identifier: Apache-2.0
"""The one table of the engine's requirements, and what wheels and the recipe make of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from vllm_build.engine import engine_requirements as requirements
from vllm_build.util.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """schema = 1
[requires]
alpha = ">=1"
Beta_b = ""
[changed]
alpha = { specifier = ">=0.9", reason = "older works" }
[also]
gamma = { specifier = "", reason = "imported" }
[left_out]
delta = { specifier = "==2", group = "pictures" }
epsilon = { specifier = ">=3", group = "indirect" }
[device.cuda]
zeta = { specifier = "==1", group = "pictures" }
eta = { specifier = "==1", group = "pictures" }
theta = { specifier = "==9", group = "torch" }
[device.rocm]
eta = { specifier = "==2", group = "pictures" }
zeta = { specifier = "==1", group = "pictures" }
[groups]
pictures = "no pictures"
torch = "torch"
indirect = "others need it"
[conda]
delta = "py-delta"
"""


def table(tmp_path: Path, text: str = TABLE) -> requirements.EngineRequirements:
    (tmp_path / "requirements").mkdir(exist_ok=True)
    (tmp_path / requirements.TABLE).write_text(text, encoding="utf-8")
    return requirements.read(tmp_path)


def test_the_requirements_of_wheels_and_of_conda(tmp_path: Path) -> None:
    found = table(tmp_path)
    assert found.for_pip() == ["Beta_b", "alpha>=0.9", "gamma"]
    assert found.for_conda() == ["Beta_b", "alpha >=0.9", "gamma"]
    assert found.extras() == {"pictures": ["delta==2"]}
    # Devices agree about zeta. One package serves all, so eta is no constraint.
    assert found.constraints() == ["py-delta ==2", "zeta ==1"]
    assert found.of_file("cuda") == {"zeta": "==1", "eta": "==1", "theta": "==9"}
    assert found.of_file("cpu") == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('alpha = ">=1"', 'alpha = "1 to 2"', "is no requirement"),
        ('alpha = { specifier = ">=0.9"', 'zeta = { specifier = ">=0.9"', "not in \\[requires\\]"),
        ('group = "pictures"', 'group = "films"', "unknown group"),
        ("gamma =", "beta-b =", "beta-b are there twice"),
        (', reason = "imported"', "", "a table with|is {"),
        ("schema = 1", "[", "TOML"),
        ("schema = 1", "schema = 1\nmore = 2", "unknown key 'more'"),
        ("[device.rocm]", "[device.abacus]", "unknown key 'abacus'"),
        ("theta =", "Eta =", "eta are there twice"),
        ('"==9", group = "torch"', '"==9", group = "films"', "unknown group"),
        ('zeta = { specifier = "==1"', 'zeta = { specifier = "1"', "is no requirement"),
        ('[conda]\ndelta = "py-delta"', "also = 1\n[conda]", "also|TOML"),
    ],
)
def test_a_mistake_in_the_table_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TABLE
    with pytest.raises(ConfigurationError, match=words):
        table(tmp_path, TABLE.replace(old, new))


def test_upstreams_lines_are_read() -> None:
    text = (
        "# a comment\n-r other.txt\nalpha >= 1, < 2 # why\n"
        'six>=1; python_version > "3.11"\nold; python_version < "3.0"\nmany[extra]==4\n'
    )
    assert requirements.of_upstream(text) == {"alpha": "<2,>=1", "six": ">=1", "many": "==4"}


def test_a_wheel_at_an_address_counts_as_its_version() -> None:
    address = "https://example.org/x/triton-3.8.0%2Bcpu-cp312-abi3-manylinux_2_28_x86_64.whl"
    assert requirements.of_upstream(f"triton @ {address}\n") == {"triton": "==3.8.0+cpu"}
    assert requirements.of_upstream("six>=1\nsix<2\n#x\n\t# y\n") == {"six": "<2,>=1"}


def test_a_line_that_is_no_requirement_is_named() -> None:
    with pytest.raises(IntegrityError, match=r"requirements/cuda.txt .* the line 'a b'"):
        requirements.of_upstream("six\na b\n", "cuda")


def test_differences_are_named(tmp_path: Path) -> None:
    found = requirements.differences(
        table(tmp_path), {"alpha": ">=2", "beta-b": "", "delta": "==2", "eta": ""}
    )
    assert [line.partition(":")[0] for line in found] == ["alpha", "epsilon", "eta"]
    assert "upstream's common.txt has >=2" in found[0]
    assert "no such requirement" in found[1]
    assert "any version" in found[2]


def recipe(root: Path) -> dict[str, list[str]]:
    """The run requirements and constraints that are written in the recipe of ``vllm``."""
    text = (root / "recipe" / "vllm" / "recipe.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    found: dict[str, list[str]] = document["requirements"]
    return found


def test_the_recipe_has_the_requirements_of_the_table(root: Path) -> None:
    found = requirements.read(root)
    written = recipe(root)
    kernels = [line for line in written["run"] if line.startswith("vllm-")]
    assert kernels == ["vllm-kernels ==${{ vllm_version }} *_k${{ kernels_digest }}_*"]
    assert sorted(set(written["run"]) - set(kernels)) == sorted(
        ["python >=3.11,<3.15", "pytorch >=2.11", *found.for_conda()]
    )
    others = [line for line in written["run_constraints"] if not line.startswith("vllm-")]
    assert sorted(others) == sorted(found.constraints())


def test_every_name_of_the_table_has_a_reason(root: Path) -> None:
    found = requirements.read(root)
    tables = (found.left_out, *found.devices.values())
    assert {entry.group for table in tables for entry in table.values()} == set(found.groups)
    text = (root / requirements.TABLE).read_text(encoding="utf-8")
    assert re.findall(r'reason = "(.{0,9})"', text) == []
