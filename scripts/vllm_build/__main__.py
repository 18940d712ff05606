# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_build``."""

import signal
import sys

if __name__ == "__main__":
    # Block the signals until the code that reports them is ready: `signals.install` unblocks them.
    # They stay blocked across an exec.
    signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    )
    from vllm_build.entry import main

    sys.exit(main())
