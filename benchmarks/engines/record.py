# SPDX-License-Identifier: Apache-2.0
"""Measurements, ratios, and the file that keeps them when a run is interrupted."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from engines.cases import Case
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

PEERS = ("ours", "official", "transformers")
OTHERS = PEERS[1:]
SCHEMA = 1
#: A metric, and the place of its number in a sample. Less is better. Numbers of a phase are seconds
#: and are divided by the phase's tokens.
METRICS = {
    "prefill": ("prefill", "wall"),
    "prefill_cpu": ("prefill", "cpu"),
    "decode": ("decode", "wall"),
    "decode_cpu": ("decode", "cpu"),
    "start": ("start", "wall"),
    "start_cpu": ("start", "cpu"),
    "memory": ("memory",),
}


def cost(sample: Mapping[str, Any], metric: str) -> float | None:
    """What a sample needed: seconds for a token, seconds, or bytes; None if it lacks the number."""
    value: Any = sample
    for key in METRICS[metric]:
        value = value.get(key) if value else None
    if value is None:
        return None
    phase = sample.get(METRICS[metric][0])
    tokens = phase.get("tokens", 1) if isinstance(phase, dict) else 1
    return float(value) / float(tokens)


@dataclass
class Result:
    """The measurements of a case.

    Attributes:
        case: the case.
        samples: by peer, one for each round.
        findings: the reason why a peer has no samples: ("failed" | "skipped", text).
    """

    case: Case
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    findings: dict[str, tuple[str, str]] = field(default_factory=dict)

    def costs(self, peer: str, metric: str) -> list[float | None]:
        """The costs of a peer's rounds."""
        return [cost(sample, metric) for sample in self.samples.get(peer, ())]

    def median(self, peer: str, metric: str) -> float | None:
        """The median cost of a peer's rounds."""
        found = [value for value in self.costs(peer, metric) if value is not None]
        return statistics.median(found) if found else None

    def ratio(self, peer: str, metric: str) -> float | None:
        """A peer's cost divided by ours: the median over the rounds.

        In each round, both ran one after the other.
        """
        pairs = zip(self.costs(peer, metric), self.costs("ours", metric), strict=False)
        ratios = [theirs / ours for theirs, ours in pairs if theirs is not None and ours]
        return statistics.median(ratios) if ratios else None

    def rate(self, peer: str, phase: str) -> float | None:
        """Tokens per second in a phase."""
        found = self.median(peer, phase)
        return 1 / found if found else None

    def others(self) -> float | None:
        """The share of the machine's processors that other work used during our rounds."""
        shares = [sample["others"] for sample in self.samples.get("ours", ()) if "others" in sample]
        return statistics.median(shares) if shares else None

    def complete(self, peers: Iterable[str], rounds: int) -> bool:
        """Whether each peer has its rounds, or was skipped; a failure is tried again."""
        return all(
            len(self.samples.get(peer, ())) >= rounds
            or self.findings.get(peer, ("", ""))[0] == "skipped"
            for peer in peers
        )

    def document(self) -> dict[str, Any]:
        """The result as a JSON document."""
        ratios = {
            peer: {
                metric: round(ratio, 3)
                for metric in METRICS
                if (ratio := self.ratio(peer, metric)) is not None
            }
            for peer in OTHERS
        }
        rates = {
            peer: {
                phase: round(rate, 2)
                for phase in ("prefill", "decode")
                if (rate := self.rate(peer, phase)) is not None
            }
            for peer in self.samples
        }
        return {
            "case": asdict(self.case),
            "ratio": {peer: found for peer, found in ratios.items() if found},
            "tokens_per_second": {peer: found for peer, found in rates.items() if found},
            "findings": {
                peer: {"kind": kind, "text": text} for peer, (kind, text) in self.findings.items()
            },
            "samples": self.samples,
        }


def read_result(document: Mapping[str, Any]) -> Result:
    """The result of :meth:`Result.document`."""
    findings = {
        peer: (found["kind"], found["text"]) for peer, found in document["findings"].items()
    }
    return Result(Case(**document["case"]), dict(document["samples"]), findings)


class Record:
    """The file with the results, which is written after each case.

    Attributes:
        results: by the key of the case.
        resumed: whether the file had results of an earlier run.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, fresh: bool) -> None:
        """Open the file.

        Args:
            path: the file.
            identity: what was measured and how; results of another identity are not mixed.
            fresh: whether to forget what the file has.

        Raises:
            ConfigurationError: the file is not such a record, or has another identity.
        """
        self._path, self._identity = path, dict(identity)
        self.about: dict[str, Any] = {}
        self.results: dict[str, Result] = {}
        if path.exists() and not fresh:
            self._read()
        self.resumed = bool(self.results)

    def _read(self) -> None:
        remedy = "continue with the same options, or give --fresh or another file with --results"
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            identity, cases = document["identity"], document["cases"]
            results = [read_result(case) for case in cases]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self._path} is not a record of this benchmark: {error!r}", remedy=remedy
            ) from error
        asked = json.loads(json.dumps({"schema": SCHEMA, **self._identity}))
        if identity != asked:
            names = sorted(
                key for key in {*identity, *asked} if identity.get(key) != asked.get(key)
            )
            shown = "; ".join(f"{key}: {identity.get(key)}" for key in names)
            raise ConfigurationError(
                f"{self._path} has results of another run ({shown})",
                expected="; ".join(f"{key}: {asked.get(key)}" for key in names),
                remedy=remedy,
            )
        self.results = {result.case.key: result for result in results}

    def has(self, case: Case, peers: Sequence[str], rounds: int) -> bool:
        """Whether the case has been measured for all ``peers``."""
        found = self.results.get(case.key)
        return found is not None and found.complete(peers, rounds)

    def add(self, result: Result) -> None:
        """Keep a result and write the file.

        A peer that did not take part this time keeps no samples: ratios are of rounds in which the
        peers took turns.
        """
        self.results[result.case.key] = result
        self.write()

    def write(self) -> None:
        """Write the file."""
        document = {
            "identity": {"schema": SCHEMA, **self._identity},
            **self.about,
            "cases": [result.document() for result in self.results.values()],
        }
        write_text(self._path, json.dumps(document, indent=1) + "\n")
