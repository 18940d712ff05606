# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_build``."""

import signal
import sys

if __name__ == "__main__":
    # Signals wait, across an exec too, until there is somebody who says what ended the build:
    # `signals.install` lets them through.
    signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    )
    from vllm_build.entry import main

    sys.exit(main())
