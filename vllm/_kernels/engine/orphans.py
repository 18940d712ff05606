# SPDX-License-Identifier: Apache-2.0
"""Ends the engine's processes when the process that started them is gone.

Upstream's workers watch their parent. The processes between them and the server do not: after a
server was killed, they would keep its memory and its processors.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import connection

#: Upstream's names of these processes begin so.
NAMES = ("EngineCore", "ApiServer_", "APIServer_DPRank_", "VLLM_DP_Coordinator")
#: Seconds for the process to end in order.
PATIENCE = 10.0
_PAUSE = 0.1


def watch() -> None:
    """Watch the parent, if this process is one of the engine's."""
    if not multiprocessing.current_process().name.startswith(NAMES):
        return
    if any(thread.name == __name__ for thread in threading.enumerate()):
        return
    threading.Thread(target=_end_with_parent, name=__name__, daemon=True).start()


def _end_with_parent() -> None:
    # The engine asks for its platform first while it unpickles its arguments. Python does not know
    # the parent yet then.
    while (parent := multiprocessing.parent_process()) is None:
        time.sleep(_PAUSE)
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(1)
