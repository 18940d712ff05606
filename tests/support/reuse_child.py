# SPDX-License-Identifier: Apache-2.0
"""Runs jobs one after another, each in a child process that may be killed.

The imports are done once, in the parent. Each line of stdin is a job in JSON, ``{"work": …,
"kill_after": …, …}``. The exit status of its process is printed, negative if a signal with that
number killed it.
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
    """Reuse the kernels of a location or a store in a tree."""
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
    """Do one job."""
    context = Context(Cache(Path(job["cache"])), Transport(pause=0.01))
    if job["work"] == "publish":
        key = signer_keys.load_private(Path(job["key"])) if job["key"] else None
        store_publish.publish(Path(job["built"]), Path(job["store"]), context, key)
    else:
        reuse(job, context)


def _leave_in_memory(fd: object) -> None:
    """Replaces ``os.fsync``."""


def main() -> None:
    """Do the jobs until stdin ends."""
    # Keep the first request from fetching the small wheels whole.
    remote_file.TAIL = 1 << 14
    # The tests kill processes; they do not simulate power failures.
    os.fsync = _leave_in_memory
    signer_keys.library()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                work(json.loads(line))
            except BaseException as error:  # noqa: BLE001 - the test shows it
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
            # The worker has not been reaped, so no other process can have its pid.
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
