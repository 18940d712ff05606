# SPDX-License-Identifier: Apache-2.0
"""The needs of the packages of wheels, from the wheels' metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toolchain_wheels import compiled, locked, require

from vllm_build.toolchain import toolchain_lock
from vllm_build.toolchain.wheel_resolver import Required
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.toolchain.toolchain_lock import LockedFile


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
