# SPDX-License-Identifier: Apache-2.0
"""Measures the bytes, requests and seconds of reusing the kernels of a remote wheel.

It compares this project with the usual way, which downloads the whole wheel each time. A server on
this machine delays each answer, and its connections share one line. The wheel has the size and the
structure of a real one: libraries of two outputs, half of their bytes incompressible, between
Python files. pip evaluates ``setup.py`` three times per install. The usual way downloads at each
evaluation, and this project only for the build. Each way ends with the libraries in a tree.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
import urllib.request
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "support")]

import reuse_server  # noqa: E402 - found through the line above
from reuse_files import MACHINE, Build, elf  # noqa: E402

from vllm_build.reuse import placement  # noqa: E402
from vllm_build.reuse.lookup import decisions, offers  # noqa: E402
from vllm_build.reuse.net.reuse_cache import Cache  # noqa: E402
from vllm_build.reuse.net.reuse_context import Context  # noqa: E402
from vllm_build.reuse.stores import store_publish  # noqa: E402
from vllm_build.settings.build_settings import Settings  # noqa: E402
from vllm_build.util.console import Console  # noqa: E402

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from vllm_build.reuse.lookup.offers import Source

EVALUATIONS = 3
NAME = "vllm-0.1.0-py3-none-any.whl"
#: Output -> library -> share of the wheel's bytes.
SHARES = {
    "vllm-kernels": {
        "vllm/_C.abi3.so": 0.45,
        "vllm/_moe_C.abi3.so": 0.2,
        "vllm/cumem_allocator.abi3.so": 0.0005,
    },
    "vllm-flash-attn": {
        "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so": 0.25,
        "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so": 0.1,
    },
}


@dataclass(frozen=True)
class Row:
    """The measurement of one way.

    Attributes:
        way: its name.
        fetched: bytes that the server sent.
        needed: compressed bytes of the needed libraries.
        ratio: ``fetched`` divided by ``needed``; 0 if nothing is needed.
        requests: requests for the wheel.
        seconds: duration.
    """

    way: str
    fetched: int
    needed: int
    ratio: float
    requests: int
    seconds: float


def library(seed: int, size: int) -> bytes:
    """A library of about ``size`` bytes, of which half are incompressible.

    The other half has four bits of information per byte. The content repeats at distances beyond
    the window of deflate.
    """
    choose = random.Random(seed)  # noqa: S311 - not for secrets
    tables, code = choose.randbytes(1 << 20), bytes(choose.choices(range(16), k=1 << 20))
    half = size // 2 >> 20
    return elf(seed) + tables * half + code * half + choose.randbytes(size % (1 << 21))


def wheel(folder: Path, size: int, changed: int) -> tuple[Path, list[Build]]:
    """Write a wheel of about ``size`` bytes; ``changed`` selects the second output's libraries."""
    builds = []
    for number, (output, shares) in enumerate(SHARES.items()):
        version = changed if output == "vllm-flash-attn" else 0
        # Deflate compresses a library to three quarters.
        libraries = {
            name: library(100 * number + 10 * version + n, max(50_000, int(size * share / 0.75)))
            for n, (name, share) in enumerate(shares.items())
        }
        builds.append(
            Build(libraries, {"build_digest": f"{10 * number + version + 1:064x}"}, output=output)
        )
    members = {
        name: data
        for build in builds
        for name, data in [*build.libraries.items(), (build.record_name, build.record())]
    }
    for n in range(1200):
        members[f"vllm/models/model_{n}.py"] = f"# model {n}\n".encode() * 200 + elf(n, 1500)
    members["vllm-0.1.0.dist-info/METADATA"] = b"Name: vllm\n"
    folder.mkdir(parents=True)
    # The order of setuptools: the files of a folder, then its subfolders.
    order = sorted(
        members, key=lambda name: (name.startswith("vllm-"), name.rpartition("/")[0], name)
    )
    with zipfile.ZipFile(folder / NAME, "w") as archive:
        for name in order:
            archive.writestr(zipfile.ZipInfo(name), members[name], zipfile.ZIP_DEFLATED, 1)
    return folder / NAME, builds


def serve(pipe: Connection, folder: Path, latency: float, rate: float) -> None:
    """Run the server in its process.

    It sends its address, and then, for each message, the traffic since the last one.
    """
    with reuse_server.serving() as server:
        server.folder, server.seconds, server.rate = folder, latency, rate
        pipe.send(server.url)
        while pipe.recv():
            pipe.send(
                {
                    "sent": server.sent,
                    "requests": sum(path.endswith(".whl") for path, _ in server.asked),
                }
            )
            server.sent = 0
            server.asked.clear()


def needed(path: Path, builds: list[Build]) -> int:
    """The compressed size of the libraries."""
    with zipfile.ZipFile(path) as archive:
        return sum(
            archive.getinfo(name).compress_size for build in builds for name in build.libraries
        )


def usual(url: str, tree: Path) -> None:
    """Download the wheel and extract the libraries, at each evaluation."""
    for _ in range(EVALUATIONS):
        with tempfile.TemporaryDirectory() as folder:
            file, _ = urllib.request.urlretrieve(url, Path(folder) / NAME)  # noqa: S310 - this program's server
            with zipfile.ZipFile(file) as archive:
                archive.extractall(
                    tree, [name for name in archive.namelist() if name.endswith(".so")]
                )


def ours(context: Context, builds: list[Build], tree: Path, location: str) -> None:
    """Reuse the kernels as the build does; metadata commands fetch nothing."""
    with context.cache.in_use():
        settings = (
            Settings(precompiled_location=location)
            if location.endswith(".whl")
            else Settings(precompiled_stores=(location,))
        )
        opened: list[Source] = offers.of_settings(context, settings)
        files: dict[str, Path] = {}
        for decision in decisions.make(
            [build.wanted() for build in builds], opened, MACHINE, partial=False
        ):
            assert decision.offer is not None  # noqa: S101 - every output is reused
            assert decision.record is not None  # noqa: S101
            files |= decision.offer.libraries(decision.record)
        for source in opened:
            source.close()
        placement.place(files, tree)


def measure(way: str, call: Any, pipe: Connection, needs: int) -> Row:
    """Time a call, and ask the server for the traffic that it caused."""
    pipe.send("since")
    pipe.recv()
    begin = time.monotonic()
    call()
    seconds = time.monotonic() - begin
    pipe.send("since")
    facts = pipe.recv()
    return Row(
        way,
        facts["sent"],
        needs,
        round(facts["sent"] / needs, 4) if needs else 0.0,
        facts["requests"],
        round(seconds, 2),
    )


def main() -> None:
    """Measure, print a table, write ``benchmarks/results/reuse.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=200.0, help="size of the wheel")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer")
    parser.add_argument(
        "--rate", type=float, default=50.0, help="megabytes per second, of all connections together"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    console = Console(json_mode=arguments.json)
    with tempfile.TemporaryDirectory(prefix="bench-reuse-") as name:
        work = Path(name)
        with console.step("make the wheels"):
            size = int(arguments.megabytes * 1e6)
            first, builds = wheel(work / "served" / "first", size, 0)
            second, changed = wheel(work / "served" / "second", size, 1)
            store_publish.publish(
                first, work / "served" / "store", Context(Cache(work / "publisher"))
            )
            shutil.rmtree(work / "publisher")
        here, there = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=serve,
            args=(there, work / "served", arguments.latency, arguments.rate * 1e6),
            daemon=True,
        )
        process.start()
        url = here.recv()
        context = Context(Cache(work / "cache"))
        rows = [
            measure(
                "usual: whole, at 3 evaluations",
                lambda: usual(f"{url}/first/{NAME}", work / "tree"),
                here,
                needed(first, builds),
            ),
            measure(
                "ours: a wheel by its address",
                lambda: ours(context, builds, work / "a", f"{url}/first/{NAME}"),
                here,
                needed(first, builds),
            ),
            measure(
                "ours: again, from the cache",
                lambda: ours(context, builds, work / "b", f"{url}/first/{NAME}"),
                here,
                0,
            ),
            measure(
                "ours: one of two outputs changed",
                lambda: ours(context, changed, work / "b", f"{url}/second/{NAME}"),
                here,
                needed(second, changed[1:]),
            ),
        ]
        shutil.rmtree(work / "cache")
        rows.append(
            measure(
                "ours: a store, by digest",
                lambda: ours(context, builds, work / "c", f"{url}/store"),
                here,
                needed(first, builds),
            )
        )
        here.send(None)
        process.join()
        document = {
            **vars(arguments),
            "wheel_bytes": first.stat().st_size,
            "rows": [asdict(row) for row in rows],
        }
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / "reuse.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    table = [
        [
            r.way,
            f"{r.fetched / 1e6:.2f}",
            f"{r.needed / 1e6:.2f}",
            f"{r.ratio:.4f}",
            str(r.requests),
            f"{r.seconds:.2f}",
        ]
        for r in rows
    ]
    title = (
        f"wheel of {document['wheel_bytes'] / 1e6:.0f} MB, {arguments.latency * 1e3:.0f} ms, "
        f"{arguments.rate:.0f} MB/s"
    )
    console.table(title, ["way", "MB fetched", "MB needed", "ratio", "requests", "seconds"], table)
    if arguments.json:
        console.json(document)
    for row in rows[1:]:
        if row.needed and row.ratio > 1.02:  # noqa: PLR2004 - the target
            raise SystemExit(f"{row.way}: fetched {row.ratio} times the needed bytes")


if __name__ == "__main__":
    main()
