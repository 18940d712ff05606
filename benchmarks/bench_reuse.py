# SPDX-License-Identifier: Apache-2.0
"""Bytes, requests and seconds of reusing the kernels of a remote wheel: ours, and the usual way, which is to download it whole each time.

A server on this machine delays each answer and shares one line among its connections. The wheel has
the size and the shape of a real one: libraries of two outputs, half of their bytes incompressible,
between Python files. pip evaluates ``setup.py`` three times for one install; the usual way
downloads at each, ours for the build alone. Each way ends with the libraries in a tree.
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
#: Shares of the wheel's bytes, by library.
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
    """One way: bytes that came, those that had to, their ratio, requests of the wheel, seconds."""

    way: str
    fetched: int
    needed: int
    ratio: float
    requests: int
    seconds: float


def library(seed: int, size: int) -> bytes:
    """Half incompressible, half of bytes with four bits of information each.

    Repeated beyond the window of deflate.
    """
    choose = random.Random(seed)  # noqa: S311 - no secret
    tables, code = choose.randbytes(1 << 20), bytes(choose.choices(range(16), k=1 << 20))
    half = size // 2 >> 20
    return elf(seed) + tables * half + code * half + choose.randbytes(size % (1 << 21))


def wheel(folder: Path, size: int, changed: int) -> tuple[Path, list[Build]]:
    """A wheel of about ``size`` bytes; ``changed`` differs the second output's libraries."""
    builds = []
    for number, (output, shares) in enumerate(SHARES.items()):
        version = changed if output == "vllm-flash-attn" else 0
        # Deflate leaves three quarters of a library.
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
    # As setuptools writes them: a folder's files, then its folders.
    order = sorted(
        members, key=lambda name: (name.startswith("vllm-"), name.rpartition("/")[0], name)
    )
    with zipfile.ZipFile(folder / NAME, "w") as archive:
        for name in order:
            archive.writestr(zipfile.ZipInfo(name), members[name], zipfile.ZIP_DEFLATED, 1)
    return folder / NAME, builds


def serve(pipe: Connection, folder: Path, latency: float, rate: float) -> None:
    """The server's process: says its address, then, at each question, what it was asked since the last."""
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
    """Compressed bytes of the libraries."""
    with zipfile.ZipFile(path) as archive:
        return sum(
            archive.getinfo(name).compress_size for build in builds for name in build.libraries
        )


def usual(url: str, tree: Path) -> None:
    """Download the wheel and take the libraries out of it, at each evaluation."""
    for _ in range(EVALUATIONS):
        with tempfile.TemporaryDirectory() as folder:
            file, _ = urllib.request.urlretrieve(url, Path(folder) / NAME)  # noqa: S310 - our own server
            with zipfile.ZipFile(file) as archive:
                archive.extractall(
                    tree, [name for name in archive.namelist() if name.endswith(".so")]
                )


def ours(context: Context, builds: list[Build], tree: Path, location: str) -> None:
    """What the build does; metadata commands do nothing."""
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
            assert decision.offer is not None  # noqa: S101 - the plan is for reuse alone
            assert decision.record is not None  # noqa: S101
            files |= decision.offer.libraries(decision.record)
        for source in opened:
            source.close()
        placement.place(files, tree)


def measure(way: str, call: Any, pipe: Connection, needs: int) -> Row:
    """Time a call, and ask the server what it sent meanwhile."""
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
        "--rate", type=float, default=50.0, help="megabytes a second of all connections together"
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
            raise SystemExit(f"{row.way}: {row.ratio} times the bytes that are needed")


if __name__ == "__main__":
    main()
