# SPDX-License-Identifier: Apache-2.0
"""Runs a compiler and appends its object file, its time, memory and size to a record.

CMake puts this program before every compile command:

    python -I -S compile_launcher.py RECORD OBJECT COMMAND…

It imports only modules that load fast, and none of this package. Its exit status is that of the
command; a record that cannot be written is ignored.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import time


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - pathlib takes long to import
    except OSError:
        return 0


def main(record: str, made: str, *command: str) -> int:
    """Run the command; returns its status, or 128 plus the signal that ended it."""
    began = time.monotonic()
    try:
        child = os.posix_spawnp(command[0], command, os.environ)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    # Ctrl-C also reaches the compiler, whose status this program returns.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        entry = {
            "unit": made,
            "seconds": round(time.monotonic() - began, 3),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
            "peak_bytes": used.ru_maxrss * 1024,
            "object_bytes": _size(made),
        }
        with contextlib.suppress(OSError), open(record, "a", encoding="utf-8") as stream:  # noqa: PTH123 - as above
            # A single write in append mode, so lines of simultaneous compilers do not mix.
            stream.write(json.dumps(entry) + "\n")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
