# SPDX-License-Identifier: Apache-2.0
"""The tests of kernels and package, in an environment with the CPU packages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from full_suite import FULL
from package_runs import (  # noqa: F401 -- fixtures
    built_fixture,
    loud_fixture,
    output_fixture,
    request_fixture,
)

from vllm_build.conda import package_checks

if TYPE_CHECKING:
    from vllm_build.conda import package_request
    from vllm_build.util.console import Console

pytestmark = pytest.mark.slow

#: Permitted reasons for a skip in an environment with torch, the kernels and the package: the test
#: needs another CPU or a GPU, or guards a rare path.
NOT_HERE = (
    "needs a GPU",
    "this CPU has no",
    "all other tests ran with",
    "on the CPU these are errors",
    "the library for the CPU has no such op",
    "FlashMLA's library is for one GPU",
    "make test-full runs",
)


def test_tests_of_kernels_and_package_in_the_installed_environment(
    request_: package_request.Request, loud: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, said in package_checks.installed_tests(request_, loud, full=FULL).items():
        last = said.strip().splitlines()[-1]
        with capsys.disabled():
            print(f"\ntests/{name} in the installed environment: {last}")
        counts = {
            word: int(number)
            for number, word in re.findall(r"(\d+) (passed|failed|skipped|error|warning)", last)
        }
        assert counts.get("passed", 0) > 50, said[-3000:]
        reasons = [line for line in said.splitlines() if line.startswith("SKIPPED")]
        assert set(counts) <= {"passed", "skipped"}, said[-3000:]
        assert all(any(reason in line for reason in NOT_HERE) for line in reasons), said[-3000:]
        assert counts.get("skipped", 0) == sum(
            int(line.split("[")[1].split("]")[0]) for line in reasons
        ), said[-3000:]
