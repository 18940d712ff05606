# SPDX-License-Identifier: Apache-2.0
"""Results as a table, as a summary for the documentation, and as rows of the plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernels.report import geometric_mean

from engines.record import OTHERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engines.record import Result

GIB = 1 << 30
#: The metrics of a row's columns.
PHASES = ("prefill", "decode", "prefill_cpu", "decode_cpu", "memory")
#: Metrics whose ratios count as slower or faster; memory is only shown.
TIMES = ("prefill", "decode", "prefill_cpu", "decode_cpu", "start", "start_cpu")
NAMES = {"official": "official wheel", "transformers": "transformers"}
WIDTH = 8 * len(PHASES)


def amount(value: float | None) -> str:
    """A number with three digits, without an exponent."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def ours(result: Result) -> tuple[str, str, str]:
    """Our numbers: tokens per second of both phases, or seconds of the start, and GiB."""
    memory = result.median("ours", "memory")
    gib = f"{memory / GIB:.2f}" if memory else "-"
    if result.case.starts:
        wall, cpu = (result.median("ours", metric) for metric in ("start", "start_cpu"))
        return f"{amount(wall)} s", f"{amount(cpu)} s", gib
    return amount(result.rate("ours", "prefill")), amount(result.rate("ours", "decode")), gib


def cells(result: Result, peer: str) -> list[str]:
    """A peer's ratios, in the order of the columns; the start has no second phase."""
    kind = result.findings.get(peer, ("", ""))[0]
    if kind and not result.samples.get(peer):
        return [kind]
    places = ("start", "", "start_cpu", "", "memory") if result.case.starts else PHASES
    ratios = [result.ratio(peer, metric) if metric else None for metric in places]
    return ["" if ratio is None else f"{ratio:.2f}x" for ratio in ratios]


def header(peers: Sequence[str]) -> str:
    """The head of the table: what the peers need, divided by what ours needs."""
    titles = "".join(f"{title:>8}" for title in ("prefill", "decode", "CPU p.", "CPU d.", "mem."))
    shown = [peer for peer in OTHERS if peer in peers]
    first = f"{'':34} {'ours':>24}   " + "   ".join(f"{NAMES[peer]:<{WIDTH}}" for peer in shown)
    second = f"{'':34} {'prefill':>8}{'decode':>8}{'GiB':>8}   " + "   ".join(titles for _ in shown)
    return f"{first.rstrip()}\n{second}  other work"


def line(result: Result, peers: Sequence[str]) -> str:
    """A row of the table."""
    kind, text = result.findings.get("ours", ("", ""))
    if kind and not result.samples.get("ours"):
        return f"{result.case.label:34} {kind}: {text}"
    left = "".join(f"{cell:>8}" for cell in ours(result))
    shown = [
        "".join(f"{cell:>8}" for cell in cells(result, peer)) for peer in OTHERS if peer in peers
    ]
    others = result.others()
    busy = f"{others:11.0%}" if others is not None else ""
    row = "   ".join(f"{cell:<{WIDTH}}" for cell in shown)
    return f"{result.case.label:34} {left}   {row} {busy}".rstrip()


def totals(results: Iterable[Result]) -> list[str]:
    """One line per peer and metric: the geometric mean and the smallest ratio."""
    found = list(results)
    lines = []
    for peer in OTHERS:
        for metric in TIMES:
            ratios = [
                (ratio, result)
                for result in found
                if (ratio := result.ratio(peer, metric)) is not None
            ]
            if ratios:
                worst, where = min(ratios, key=lambda pair: pair[0])
                mean = geometric_mean(ratio for ratio, _ in ratios)
                below = sum(ratio < 1 for ratio, _ in ratios)
                title = metric.replace("_cpu", " (processor)")
                lines.append(
                    f"{NAMES[peer]}, {title}: {mean:.2f}x (geometric mean of {len(ratios)} cases), "
                    f"{below} below 1.0x, the smallest {worst:.2f}x: {where.case.label}"
                )
    return lines


def problems(results: Iterable[Result], peer: str = "ours") -> list[str]:
    """Cases in which a peer failed."""
    return [
        f"{result.case.label}: {text}"
        for result in results
        for kind, text in [result.findings.get(peer, ("", ""))]
        if kind == "failed"
    ]


def skipped(results: Iterable[Result]) -> list[str]:
    """Cases that were not run, each with its reason once."""
    found: dict[str, list[str]] = {}
    for result in results:
        for kind, text in result.findings.values():
            if kind == "skipped":
                found.setdefault(text, []).append(result.case.label)
    return [
        f"not run: {', '.join(dict.fromkeys(labels))}: {text}" for text, labels in found.items()
    ]


def _rate(result: Result, peer: str) -> str:
    """A peer's rates, or its seconds, for the documentation."""
    if result.case.starts:
        wall, cpu = (result.median(peer, metric) for metric in ("start", "start_cpu"))
        return f"{amount(wall)} s, {amount(cpu)} CPU s" if wall else "-"
    prefill, decode = (result.rate(peer, phase) for phase in ("prefill", "decode"))
    return f"{amount(prefill)} / {amount(decode)}" if prefill else "-"


def _ratios(result: Result, peer: str) -> str:
    pairs = (
        (("start", "start_cpu"),)
        if result.case.starts
        else (
            ("prefill", "prefill_cpu"),
            ("decode", "decode_cpu"),
        )
    )
    shown = []
    for wall, cpu in pairs:
        found = result.ratio(peer, wall), result.ratio(peer, cpu)
        shown.append(" (".join("-" if ratio is None else f"{ratio:.2f}" for ratio in found) + ")")
    return " / ".join(shown) if result.samples.get(peer) else "-"


def summary(results: Iterable[Result]) -> str:
    """The table for the documentation, in Markdown."""
    found = list(results)
    peers = [peer for peer in OTHERS if any(result.samples.get(peer) for result in found)]
    head = [
        "case",
        "ours, tokens/s",
        *(f"{NAMES[peer]}, tokens/s | ratio" for peer in peers),
        "ours, GiB",
        "other work",
    ]
    rows = [f"| {' | '.join(head)} |", "|---" * (len(head) + len(peers)) + "|"]
    for result in found:
        if not result.samples.get("ours"):
            continue
        others = result.others()
        row = [
            result.case.label,
            _rate(result, "ours"),
            *(f"{_rate(result, peer)} | {_ratios(result, peer)}" for peer in peers),
            ours(result)[2],
            "-" if others is None else f"{others:.0%}",
        ]
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)


def plot_rows(results: Iterable[Result]) -> dict[str, dict[str, list[float]]]:
    """The rows of the plot: a phase, a format and a batch; its dots are models and prompts."""
    rows: dict[str, dict[str, list[float]]] = {}
    for metric in TIMES:
        title = metric.replace("_cpu", ", processor time")
        for result in results:
            case = result.case
            if case.starts != metric.startswith("start"):
                continue
            size = "" if case.starts else f", batch {case.batch}"
            mode = "" if case.mode == "eager" else f", {case.mode}"
            label = f"{title}, {case.dtype}{size}{mode}"
            for peer in OTHERS:
                ratio = result.ratio(peer, metric)
                if ratio is not None:
                    rows.setdefault(label, {}).setdefault(peer, []).append(ratio)
    return rows
