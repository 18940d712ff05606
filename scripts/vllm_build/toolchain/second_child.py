# SPDX-License-Identifier: Apache-2.0
"""Makes builds of wheels; ``second_builder`` starts it with ``-m``.

It appends the id of each build that it has made to a file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vllm_build.toolchain import channel_build
from vllm_build.util import environ, redaction
from vllm_build.util.console import Console
from vllm_build.util.errors import VllmBuildError
from vllm_build.util.processes import signals


def main(root: str, made: str, *ids: str) -> int:
    """Make the builds ``ids``; return 1 if one failed."""
    inherited = environ.snapshot()
    try:
        with signals.ending("the build of wheels"):
            for name in channel_build.build_wheels(
                Path(root), ids, console=Console(), inherited=inherited
            ):
                with Path(made).open("a", encoding="utf-8") as stream:
                    stream.write(f"{name}\n")
    except VllmBuildError as error:
        redaction.say(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stderr.flush()
    # This skips the interpreter's own exit, where py-rattler may crash.
    os._exit(status)
