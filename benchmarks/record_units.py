# SPDX-License-Identifier: Apache-2.0
"""Writes the measured times of units into benchmarks/unit_times.json.

`vllm-build plan --estimate` and the progress of a build read that file. A record comes from a build
for one architecture with VLLM_UNIT_TIMES=<file>. An entry is replaced only by a larger one, because
a unit that a compiler cache has takes no time.

Usage: record_units.py <device> <record>...
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "unit_times.json"
#: A unit that takes less was answered by a cache.
_SECONDS = 0.5


def main(device: str, *records: str) -> int:
    """Merge the records into the table; returns the exit status."""
    document = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {"units": {}}
    units = document["units"].setdefault(device, {})
    for record in records:
        for line in Path(record).read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            unit = re.sub(r"^.*?\.dir/|\.o$", "", entry["unit"])
            before = units.get(unit, {"seconds": _SECONDS})
            if entry["cpu_seconds"] > before["seconds"]:
                units[unit] = {
                    "seconds": round(entry["cpu_seconds"], 1),
                    "peak_mib": entry["peak_bytes"] >> 20,
                    "object_kib": entry["object_bytes"] >> 10,
                }
    document["units"][device] = dict(sorted(units.items()))
    lines = [
        f"    {json.dumps(name)}: {{\n"
        + ",\n".join(
            f"      {json.dumps(unit)}: {json.dumps(entry)}" for unit, entry in known.items()
        )
        + "\n    }"
        for name, known in sorted(document["units"].items())
    ]
    text = '{\n  "units": {\n' + ",\n".join(lines) + "\n  }\n}\n"
    TABLE.write_text(text, encoding="utf-8")
    print(f"{TABLE.relative_to(ROOT)}: {len(units)} units for {device}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
