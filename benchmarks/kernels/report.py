# SPDX-License-Identifier: Apache-2.0
"""Results as a table, as a summary by op for the documentation, and as JSON-ready facts."""

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
#: What can be said of a peer beside its time, the gravest first.
FINDINGS = ("missing", "failed", "different", "skipped")
#: A middle half of the samples that is wider than this is shown beside the time.
NOTEWORTHY = 0.02


@dataclass
class Result:
    """One case, measured.

    Attributes:
        case: what was measured.
        facts: bytes, operations, and whether the data came from memory.
        times: by peer, the times of its rounds in nanoseconds, in order.
        best: by peer, the shortest sample in nanoseconds.
        spread: by peer, of each round the width of the middle half of the samples, over their
            median.
        host_bound: peers whose calls could not be queued ahead on the GPU: their times are the
            host's as well.
        findings: by peer, why it has no time: ("missing" | "failed" | "different" | "skipped",
            text).
    """

    case: Case
    facts: dict[str, Any] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    spread: dict[str, list[float]] = field(default_factory=dict)
    host_bound: list[str] = field(default_factory=list)
    findings: dict[str, tuple[str, str]] = field(default_factory=dict)

    def ns(self, peer: str) -> float | None:
        """The median of a peer's rounds."""
        return statistics.median(self.times[peer]) if self.times.get(peer) else None

    def ratio(self, peer: str) -> float | None:
        """How much longer a peer takes than ours: the median over the rounds, each of which ran both, one after the other."""
        pairs = list(zip(self.times.get(peer, ()), self.times.get("ours", ()), strict=False))
        return statistics.median(theirs / ours for theirs, ours in pairs) if pairs else None

    def limit(self, limits: Limits | GpuLimits) -> tuple[float, float, str] | None:
        """Rate in units of 1e9 a second, its share of the machine's, and the unit; ``None`` where the data stays in a cache.

        Of the shortest sample: the machine's limits are the best of several measurements, too.
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
        """The facts for JSON."""
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
    """Nanoseconds, in the unit that suits."""
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= factor:
            return f"{ns / factor:.3g} {unit}"
    return f"{ns:.0f} ns"


def _cell(result: Result, peer: str) -> str:
    ratio = result.ratio(peer)
    if ratio is not None:
        return f"{ratio:.2f}x"
    alone = result.ns(peer)
    if alone is not None:  # ours has no time to compare it with
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
    """The cases in which ours takes longer than a peer, the worst first."""
    found = [
        (ratio, result)
        for result in results
        if (ratio := result.ratio(peer)) is not None and ratio < 1
    ]
    return [result for _, result in sorted(found, key=lambda pair: pair[0])]


def problems(results: Sequence[Result]) -> list[str]:
    """What is wrong with ours: ops that are missing, fail or compute something else, by op."""
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
    """Whose ops are not there, by peer; of the others it is not wrong, and of ours where a package may be without them."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        for peer, (kind, _) in result.findings.items():
            if kind == "missing" and (peer != "ours" or result.case.optional):
                found.setdefault(peer, {})[result.case.op] = None
    return [f"absent from {peer}: {', '.join(ops)}" for peer, ops in found.items()]


def oddities(results: Sequence[Result]) -> list[str]:
    """What peers refused or computed otherwise; they have no time in these cases."""
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
    """One line a peer: geometric mean and the least ratio."""
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
    """Rate and share of the limit of the case that moves or computes most, by dtype."""
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
    """The table of the documentation, in Markdown: one row an op."""
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
