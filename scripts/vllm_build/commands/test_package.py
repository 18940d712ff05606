# SPDX-License-Identifier: Apache-2.0
"""``vllm-build test-package``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_build import path_rules, paths
from vllm_build.commands._common import add_channel, request
from vllm_build.conda import verify

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.console import Console

NAME = "test-package"
HELP = "Check built packages: every interpreter, ABI audits, glibc floor, the tests of kernels and package."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("variant", help="a name of variants/, or the path of a variant file")
    add_channel(parser)


def run(arguments: Namespace, console: Console) -> int:
    """Check the built packages of a variant."""
    path_rules.require_packaging(arguments.output, paths.cache_root())
    wanted = request(arguments, arguments.variant, console)
    verify.prepare(wanted, console)
    result: dict[str, Any] = {
        "interpreters": [{"interpreter": i.name, "said": verify.compute(wanted, i, console)} for i in verify.INTERPRETERS]
    }
    findings = verify.audits(wanted, wanted.output / ".test" / "py3.11", console)
    result["audits"] = [{"library": f.library, "check": f.check, "good": f.good} for f in findings]
    result["tests"] = {name: text.strip().splitlines()[-1] for name, text in verify.installed_tests(wanted, console).items()}
    if console.json_mode:
        console.json(result)
    return 0
