# SPDX-License-Identifier: Apache-2.0
"""Ratios of an earlier run on the same kind of CPU, and the cases that have become slower since.

Ratios are compared and not times: the peer ran in the same minutes on the same machine, so they
hold for another machine with this CPU as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import read_text, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kernels.cases import Case
    from kernels.report import Result

FOLDER = Path(__file__).resolve().parents[1] / "baseline"
SCHEMA = 1
Ratios = Mapping[str, Mapping[str, tuple[float, float]]]
#: Peers that a baseline contains. torch.compile takes part only in some cases.
PEERS = ("official", "eager")
#: A smaller loss is noise even if the rounds agree: another start of the processes, other memory.
LEAST = 0.08
#: How often the scatter of both runs fits into a loss that is none.
_WIDTHS = 2.0


@dataclass(frozen=True)
class Loss:
    """A case that has become slower relative to a peer.

    Attributes:
        case: the case.
        peer: the peer.
        before: its ratio in the baseline.
        now: its ratio now.
    """

    case: Case
    peer: str
    before: float
    now: float

    def __str__(self) -> str:
        return (
            f"{self.case.op} {self.case.label}: {self.now:.2f}x of {self.peer}, before "
            f"{self.before:.2f}x ({self.now / self.before - 1:+.0%})"
        )


def name_of(machine: Mapping[str, Any], isa: str = "") -> str:
    """The name of the file for a machine: its CPU, its features, its cores, and the chosen set.

    Virtual machines often hide the model, so the features are part of the name.
    """
    words = [machine["cpu"], *machine["features"], f"{machine['cores']}-cores", isa]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-") + ".json"


def key(case: Case) -> str:
    """The name of a case in a file."""
    sizes = " ".join(f"{name}={size}" for name, size in case.shape.items())
    return " ".join(part for part in (case.op, case.variant, sizes, case.dtype) if part)


def document(results: Iterable[Result], about: Mapping[str, Any]) -> dict[str, Any]:
    """The baseline of a run: per case and peer, the ratio and the scatter of its rounds."""
    cases: dict[str, dict[str, list[float]]] = {}
    for result in results:
        for peer in PEERS:
            ratio, scatter = result.ratio(peer), result.scatter(peer)
            if ratio is not None and scatter is not None:
                cases.setdefault(key(result.case), {})[peer] = [
                    round(ratio, 3),
                    round(scatter, 3),
                ]
    machine = {name: about[name] for name in ("cpu", "features", "cores")}
    return {"schema": SCHEMA, "machine": machine, "cases": cases}


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Write a baseline, one line for each case."""
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(peers)}" for name, peers in found["cases"].items()
    )
    head = json.dumps({key: found[key] for key in ("schema", "machine")})
    path.parent.mkdir(exist_ok=True)
    write_text(path, f'{head[:-1]}, "cases": {{\n{lines}\n}}}}\n')


def _ratios(found: Any) -> Ratios:
    if found["schema"] != SCHEMA:
        raise ValueError(f"schema {found['schema']}, expected {SCHEMA}")
    return {
        case: {peer: (float(ratio), float(scatter)) for peer, (ratio, scatter) in peers.items()}
        for case, peers in found["cases"].items()
    }


def read(path: Path) -> Ratios:
    """The ratios and scatters of a file, by case and peer.

    Raises:
        ConfigurationError: there is no such file, or it is not a baseline.
    """
    try:
        return _ratios(json.loads(read_text(path)))
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no baseline for this CPU: {path}",
            expected=f"one of {', '.join(p.name for p in sorted(path.parent.glob('*.json')))}",
            remedy="make bench-kernels ARGS=--write-baseline",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is not a baseline: {error}", remedy="make bench-kernels ARGS=--write-baseline"
        ) from error


def losses(results: Sequence[Result], before: Ratios) -> list[Loss]:
    """The cases that are slower than before by more than the noise, the greatest loss first."""
    found = []
    for result in results:
        for peer, (ratio, scatter) in before.get(key(result.case), {}).items():
            now, now_scatter = result.ratio(peer), result.scatter(peer)
            if now is None or now_scatter is None:
                continue
            noise = max(LEAST, _WIDTHS * (scatter + now_scatter))
            if now < ratio * (1 - noise):
                found.append(Loss(result.case, peer, ratio, now))
    return sorted(found, key=lambda loss: loss.now / loss.before)
