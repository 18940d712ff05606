# SPDX-License-Identifier: Apache-2.0
"""``vllm-build test-package``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_build.commands.package_options import add_channel, request
from vllm_build.conda import package_checks
from vllm_build.util import path_rules, paths

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = (
    "Check built packages: every interpreter, ABI audits, the oldest glibc, and the tests of "
    "kernels and package."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("variant", help="a name of variants/, or the path of a variant file")
    add_channel(parser)


def run(arguments: Namespace, console: Console) -> int:
    """Check the built packages of a variant."""
    path_rules.require_packaging(arguments.output, paths.cache_root())
    wanted = request(arguments, arguments.variant, console)
    package_checks.prepare(wanted, console)
    result: dict[str, Any] = {
        "interpreters": [
            {"interpreter": i.name, "said": package_checks.compute(wanted, i, console)}
            for i in package_checks.INTERPRETERS
        ]
    }
    findings = package_checks.audits(wanted, wanted.output / ".test" / "py3.11", console)
    result["audits"] = [{"library": f.library, "check": f.check, "good": f.good} for f in findings]
    result["tests"] = {
        name: text.strip().splitlines()[-1]
        for name, text in package_checks.installed_tests(wanted, console, full=True).items()
    }
    if console.json_mode:
        console.json(result)
    return 0
