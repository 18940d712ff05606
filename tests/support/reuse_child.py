# SPDX-License-Identifier: Apache-2.0
"""Does one piece of work after the other, each in a process of its own that may be killed; imports are done once, before them all.

Reads lines of JSON, ``{"work": …, "kill_after": …, …}``; prints the exit status of each worker,
negative when it was killed by that signal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from reuse_files import MACHINE, Build

from vllm_build.reuse import placement
from vllm_build.reuse.lookup import decisions, offers
from vllm_build.reuse.net import remote_file
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.net.transport import Transport
from vllm_build.reuse.records.fitness import Wanted
from vllm_build.reuse.stores import signer_keys, store_publish
from vllm_build.settings.build_settings import Settings


def reuse(job: dict[str, Any], context: Context) -> None:
    """From a location or a store to files in a tree."""
    wanted = Wanted(**{**vars(Build().wanted()), "digest": job["digest"]})
    settings = Settings(
        precompiled_location=job.get("location"), precompiled_stores=tuple(job.get("stores", ()))
    )
    with context.cache.in_use():
        opened = offers.of_settings(context, settings)
        try:
            (decision,) = decisions.make([wanted], opened, MACHINE, partial=False)
            assert decision.offer is not None
            assert decision.record is not None
            files = decision.offer.libraries(decision.record)
            record = Path(job["scratch"]) / f"record-{os.getpid()}"
            record.write_bytes(decision.record.text)
            placement.place({**files, Build().record_name: record}, Path(job["tree"]))
        finally:
            for source in opened:
                source.close()


def work(job: dict[str, Any]) -> None:
    """One piece."""
    context = Context(Cache(Path(job["cache"])), Transport(pause=0.01))
    if job["work"] == "publish":
        key = signer_keys.load_private(Path(job["key"])) if job["key"] else None
        store_publish.publish(Path(job["built"]), Path(job["store"]), context, key)
    else:
        reuse(job, context)


def _leave_in_memory(fd: object) -> None:
    """Takes the place of ``os.fsync``."""


def main() -> None:
    """Until stdin ends."""
    # The wheels are small: they would come whole with their directory.
    remote_file.TAIL = 1 << 14
    # What is tested is a kill, not a power cut.
    os.fsync = _leave_in_memory
    signer_keys.library()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                work(json.loads(line))
            except BaseException as error:  # noqa: BLE001 - the parent reads what it was
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        if (seconds := json.loads(line).get("kill_after")) is not None:
            until = time.monotonic() + seconds
            while (
                time.monotonic() < until
                and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            ):
                time.sleep(0.002)
            # Not yet waited for: the number cannot be another process's, even when the worker has
            # ended.
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
