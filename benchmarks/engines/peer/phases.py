# SPDX-License-Identifier: Apache-2.0
"""Divides the generation of a batch into prefill and decoding.

Prefill ends when every request has its first token. Decoding is measured from there until a request
has all its tokens, so the batch is full all the time. An engine that takes a long prompt in parts
may decode some requests while others wait. Those tokens are not counted as decoded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Reading:
    """Clocks at a moment, in seconds.

    Attributes:
        wall: the time.
        cpu: processor time of the peer.
        machine: processor time of the whole machine.
    """

    wall: float
    cpu: float
    machine: float


@dataclass(frozen=True)
class Phase:
    """A phase: its tokens, and the seconds that passed on each clock."""

    tokens: int
    wall: float
    cpu: float
    machine: float


def between(begin: Reading, end: Reading, tokens: int) -> Phase:
    """The phase between two readings."""
    return Phase(tokens, end.wall - begin.wall, end.cpu - begin.cpu, end.machine - begin.machine)


class Phases:
    """Watches the tokens of a batch arrive.

    Attributes:
        done: whether a request has all its tokens.
    """

    def __init__(self, new: int, prompt_tokens: int, clock: Callable[[], Reading]) -> None:
        """Begin now.

        Args:
            new: tokens that each request generates.
            prompt_tokens: tokens of all prompts together.
            clock: reads the clocks.
        """
        self._new, self._prompt_tokens, self._clock = new, prompt_tokens, clock
        self._begin = clock()
        self._first: Reading | None = None
        self._at_first = 0
        self._last: Reading | None = None
        self._at_last = 0

    @property
    def done(self) -> bool:
        """Whether a request has all its tokens."""
        return self._last is not None

    def feed(self, counts: Sequence[int]) -> None:
        """Take the numbers of tokens that the requests have now."""
        if self._first is None and min(counts) > 0:
            self._first, self._at_first = self._clock(), sum(counts)
        if self._last is None and max(counts) >= self._new:
            self._last, self._at_last = self._clock(), sum(counts)

    def document(self) -> dict[str, Any]:
        """The phases.

        Decoding is None if a request had all its tokens before each had one, or if nothing was
        decoded.

        Raises:
            RuntimeError: a request has no token yet.
        """
        if self._first is None:
            raise RuntimeError("a request has generated nothing")
        prefill = between(self._begin, self._first, self._prompt_tokens)
        decoded = self._at_last - self._at_first
        late = self._last is None or decoded <= 0
        decode = None if late or self._last is None else between(self._first, self._last, decoded)
        return {"prefill": asdict(prefill), "decode": asdict(decode) if decode else None}
