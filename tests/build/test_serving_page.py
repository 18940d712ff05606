# SPDX-License-Identifier: Apache-2.0
"""What docs/serving.md says about the package, compared with the tables that it is made from."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from vllm_build.conda import variants
from vllm_build.engine import engine_requirements, engine_source

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def rows(first: str) -> list[list[str]]:
    """The cells of a table whose header begins with ``first``."""
    (table,) = re.findall(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_what_is_left_out_is_what_the_requirements_leave_out() -> None:
    wanted = engine_requirements.read(ROOT)
    said = {
        group.strip("`"): (re.findall(r"`([^`]+)`", names), reason)
        for group, names, reason in rows("group")
    }
    assert said == {
        group: (
            sorted(name for name, entry in wanted.left_out.items() if entry.group == group),
            reason,
        )
        for group, reason in wanted.groups.items()
        if any(entry.group == group for entry in wanted.left_out.values())
    }


def test_the_table_is_about_what_upstream_requires_of_cpus() -> None:
    """Triton and Numba are upstream's requirements, and not ours."""
    wanted = engine_requirements.read(ROOT)
    (row,) = [row for row in rows("part") if row[0] == "Triton and Numba"]
    assert row[1] == "yes"
    assert row[2].startswith("no")
    assert {"triton", "numba"}.isdisjoint(wanted.specifiers)
    assert {"xgrammar", "llguidance"} <= set(wanted.specifiers)


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_the_pages_name_the_locked_release(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert set(re.findall(r"vLLM (\d+\.\d+\.\d+)", text)) == {engine_source.locked(ROOT).version}


def test_every_variant_has_a_state() -> None:
    named = {name for row in rows("device") for name in re.findall(r"`([a-z0-9]+)`", row[1])}
    assert named == set(variants.names(ROOT))


def test_the_architectures_are_those_of_small_models() -> None:
    (sentence,) = re.findall(r"The architectures are (.*?)\.", PAGE, re.DOTALL)
    tree = ast.parse((ROOT / "scripts/engine_demo/small_model.py").read_text(encoding="utf-8"))
    (shapes,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id == "_SHAPES"
    )
    assert isinstance(shapes, ast.Dict)
    assert re.findall(r"`(\w+)`", sentence) == [ast.literal_eval(k) for k in shapes.keys if k]


def test_only_one_file_of_the_engine_is_replaced() -> None:
    """As the page says about the Python modules."""
    text = (ROOT / "third_party" / "engine.toml").read_text(encoding="utf-8")
    (ours,) = re.findall(r"^\[ours\]\n((?:\".*\n)+)", text, re.MULTILINE)
    assert re.findall(r'^"(.*?)"', ours, re.MULTILINE) == ["vllm/collect_env.py"]
