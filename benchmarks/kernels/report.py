# SPDX-License-Identifier: Apache-2.0
"""Results as a table, as a summary by op for the documentation, and as JSON."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kernels.cases import Case
    from kernels.gpu_machine import GpuLimits
    from kernels.machine import Limits

OTHERS = ("official", "eager", "compile")
#: Reasons why a peer has no time, the most serious first.
FINDINGS = ("missing", "failed", "different", "skipped")
#: If the middle half of the samples is wider than this, its width is shown next to the time.
NOTEWORTHY = 0.02


@dataclass
class Result:
    """The measurements of a case.

    Attributes:
        case: the case.
        facts: bytes, operations, and whether the data was read from memory.
        times: times of the rounds in nanoseconds, in order, by peer.
        best: shortest sample in nanoseconds, by peer.
        spread: for each round, the width of the middle half of the samples relative to their
            median, by peer.
        host_bound: peers whose calls could not be queued ahead on the GPU; their times include the
            host's.
        findings: the reason why a peer has no time, by peer: ("missing" | "failed" | "different" |
            "skipped", text).
    """

    case: Case
    facts: dict[str, Any] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    spread: dict[str, list[float]] = field(default_factory=dict)
    host_bound: list[str] = field(default_factory=list)
    findings: dict[str, tuple[str, str]] = field(default_factory=dict)

    def ns(self, peer: str) -> float | None:
        """The median of a peer's rounds in nanoseconds."""
        return statistics.median(self.times[peer]) if self.times.get(peer) else None

    def _ratios(self, peer: str) -> list[float]:
        """A peer's time divided by ours, for each round. In it, both ran one after the other."""
        pairs = zip(self.times.get(peer, ()), self.times.get("ours", ()), strict=False)
        return [theirs / ours for theirs, ours in pairs]

    def ratio(self, peer: str) -> float | None:
        """A peer's time divided by ours: the median over the rounds."""
        ratios = self._ratios(peer)
        return statistics.median(ratios) if ratios else None

    def scatter(self, peer: str) -> float | None:
        """Half of the width of the middle half of the rounds' ratios, relative to their median.

        None with fewer than two rounds, or if the peer has no times.
        """
        ratios = self._ratios(peer)
        if peer == "ours" or len(ratios) < 2:  # noqa: PLR2004 - quantiles need two
            return None
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return (high - low) / 2 / middle

    def limit(self, limits: Limits | GpuLimits) -> tuple[float, float, str] | None:
        """Our rate in 1e9 per second, its share of the machine's limit, and the unit.

        None if the data stays in a cache. The shortest sample is used, because the machine's limits
        are the best of several measurements too.
        """
        ns = self.best.get("ours")
        facts = self.facts
        if ns is None or not limits.flops or not facts["reads"] + facts["writes"]:
            return None
        shortest, unit = limits.shortest(
            facts["reads"],
            facts["writes"],
            facts["flops"],
            facts.get("arithmetic", self.case.dtype),
        )
        if unit == "GB/s" and not facts["cold"]:
            return None
        amount = {
            "GB/s": facts["reads"] + facts["writes"],
            "GFLOP/s": facts["flops"],
            "TFLOP/s": facts["flops"] / 1000,
        }[unit]
        return amount / ns, shortest / ns, unit

    def document(self, limits: Limits | GpuLimits) -> dict[str, Any]:
        """The result as a JSON document."""
        found = self.limit(limits)
        return {
            **asdict(self.case),
            **self.facts,
            "ns": {peer: round(ns, 1) for peer in self.times if (ns := self.ns(peer)) is not None},
            "host_bound": self.host_bound,
            "spread": {peer: round(max(values), 4) for peer, values in self.spread.items()},
            "best_ns": {peer: round(ns, 1) for peer, ns in self.best.items()},
            "ratio": {
                peer: round(ratio, 3) for peer in OTHERS if (ratio := self.ratio(peer)) is not None
            },
            "best_ratio": {
                peer: round(ns / self.best["ours"], 3)
                for peer, ns in self.best.items()
                if peer != "ours" and "ours" in self.best
            },
            "rate": {
                "value": round(found[0], 2),
                "unit": found[2],
                "share_of_limit": round(found[1], 3),
            }
            if found
            else None,
            "findings": {
                peer: {"kind": kind, "text": text} for peer, (kind, text) in self.findings.items()
            },
        }


def duration(ns: float) -> str:
    """Format nanoseconds in a suitable unit."""
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= factor:
            return f"{ns / factor:.3g} {unit}"
    return f"{ns:.0f} ns"


def _cell(result: Result, peer: str) -> str:
    ratio = result.ratio(peer)
    if ratio is not None:
        return f"{ratio:.2f}x"
    alone = result.ns(peer)
    if alone is not None:  # there is no time of ours to compare with
        return duration(alone)
    kind = result.findings.get(peer, ("", ""))[0]
    return {"missing": "absent", "skipped": "-", "": ""}.get(kind, kind)


def line(result: Result, limits: Limits | GpuLimits) -> str:
    """A row of the table."""
    ns, found = result.ns("ours"), result.limit(limits)
    kind = result.findings.get("ours", ("not run", ""))[0]
    ours = duration(ns) if ns is not None else {"missing": "absent"}.get(kind, kind)
    if (width := max(result.spread.get("ours", [0.0]))) > NOTEWORTHY:
        ours += f" ±{width / 2:.0%}"
    rate = f"{found[0]:8.1f} {found[2]:7} {found[1]:5.0%}" if found else ""
    cells = " ".join(f"{_cell(result, peer):>10}" for peer in OTHERS)
    waits = f" waits for the host: {', '.join(result.host_bound)}" if result.host_bound else ""
    return f"  {result.case.label:38} {ours:>12} {cells}   {rate}".rstrip() + waits


HEADER = (
    f"  {'':38} {'ours':>12} "
    + " ".join(f"{peer:>10}" for peer in OTHERS)
    + "   rate of ours, share of the machine's"
)


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def slower(results: Sequence[Result], peer: str = "official") -> list[Result]:
    """The cases in which ours takes longer than a peer, the slowest first."""
    found = [
        (ratio, result)
        for result in results
        if (ratio := result.ratio(peer)) is not None and ratio < 1
    ]
    return [result for _, result in sorted(found, key=lambda pair: pair[0])]


def problems(results: Sequence[Result]) -> list[str]:
    """Ops of ours that are missing, fail or compute wrong results."""
    found: dict[tuple[str, str, str], int] = {}
    for result in results:
        kind, text = result.findings.get("ours", ("", ""))
        if kind in ("missing", "failed", "different") and not (
            kind == "missing" and result.case.optional
        ):
            key = (result.case.op, kind, text)
            found[key] = found.get(key, 0) + 1
    return [
        f"{op}: {kind}{': ' + text if text else ''} ({count} cases)"
        for (op, kind, text), count in found.items()
    ]


def absent(results: Sequence[Result]) -> list[str]:
    """Ops that a peer lacks, by peer.

    Ours are included only if they are optional.
    """
    found: dict[str, dict[str, None]] = {}
    for result in results:
        for peer, (kind, _) in result.findings.items():
            if kind == "missing" and (peer != "ours" or result.case.optional):
                found.setdefault(peer, {})[result.case.op] = None
    return [f"absent from {peer}: {', '.join(ops)}" for peer, ops in found.items()]


def oddities(results: Sequence[Result]) -> list[str]:
    """Calls that a peer refused or computed differently; they have no time."""
    found: dict[tuple[str, str, str, str], int] = {}
    for result in results:
        for peer, (kind, text) in result.findings.items():
            if peer != "ours" and kind in ("failed", "different"):
                key = (peer, result.case.op, kind, text)
                found[key] = found.get(key, 0) + 1
    return [
        f"{peer}, {op}: {kind}: {text} ({count} cases)"
        for (peer, op, kind, text), count in found.items()
    ]


def totals(results: Sequence[Result]) -> list[str]:
    """One line per peer: the geometric mean and the smallest ratio."""
    lines = []
    for peer in OTHERS:
        ratios = [
            (ratio, result) for result in results if (ratio := result.ratio(peer)) is not None
        ]
        if ratios:
            worst, where = min(ratios, key=lambda pair: pair[0])
            below = sum(ratio < 1 for ratio, _ in ratios)
            mean = geometric_mean(ratio for ratio, _ in ratios)
            lines.append(
                f"{peer}: {mean:.2f}x (geometric mean of {len(ratios)} cases), {below} below 1.0x, "
                f"the smallest {worst:.2f}x: "
                f"{where.case.op} {where.case.label}"
            )
    return lines


def _summary_cell(results: Sequence[Result], peer: str) -> str:
    ratios = [ratio for result in results if (ratio := result.ratio(peer)) is not None]
    return f"{geometric_mean(ratios):.2f} ({min(ratios):.2f})" if ratios else "-"


def _largest(results: Sequence[Result], limits: Limits | GpuLimits) -> str:
    """Rate and share of the limit for the case with the most bytes and operations, by dtype."""
    cells = []
    for dtype in dict.fromkeys(result.case.dtype for result in results):
        own = [result for result in results if result.case.dtype == dtype and result.limit(limits)]
        if own:
            most = max(
                own,
                key=lambda result: (
                    result.facts["flops"] + result.facts["reads"] + result.facts["writes"]
                ),
            )
            rate, share, unit = most.limit(limits) or (0.0, 0.0, "")
            cells.append(f"{rate:.3g} {unit} ({share:.0%})")
    return ", ".join(dict.fromkeys(cells)) or "in cache"


def summary(results: Sequence[Result], limits: Limits | GpuLimits) -> str:
    """The table for the documentation, in Markdown, with one row per op."""
    rows = [
        (
            "| op | cases | official | eager | compiled | rate at the largest case (share of the "
            "limit), bfloat16, float32 |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for op, variant in dict.fromkeys((result.case.op, result.case.variant) for result in results):
        own = [
            r
            for r in results
            if (r.case.op, r.case.variant) == (op, variant) and r.times.get("ours")
        ]
        if own:
            cells = " | ".join(_summary_cell(own, peer) for peer in OTHERS)
            rows.append(
                f"| {op}{', ' + variant if variant else ''} | {len(own)} | {cells} | "
                f"{_largest(own, limits)} |"
            )
    return "\n".join(rows)
