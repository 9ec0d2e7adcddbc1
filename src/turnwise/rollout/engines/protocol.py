"""What the lane loop needs of whatever speaks in its conversations: three methods, and what they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Span(NamedTuple):
    """Tokens `start` .. `stop - 1` of an utterance, and the version of the weights that spoke them."""

    version: str
    start: int
    stop: int


@dataclass(frozen=True)
class Utterance:
    """What a lane said: sampled ids, their log-probabilities under the distribution sampled from.

    `stopped`: it ends with the stop token. `out_of_context`: the memory is full, the conversation cannot
    go on. Neither: the limit on new tokens was reached, and the stop token is read as if it had been said.
    `spans`: which weights spoke, of an engine elsewhere; empty if it was the policy itself, as it is now.
    """

    lane: int
    ids: tuple[int, ...]
    logp: tuple[float, ...]
    stopped: bool
    out_of_context: bool
    spans: tuple[Span, ...] = ()


class LaneModel(Protocol):
    """A language model that speaks in lanes; an engine elsewhere needs no more than these three methods."""

    def reset(self, lane: int, seed: int) -> None:
        """Forget the lane; its next conversation draws its randomness from `seed`."""
        ...

    def submit(self, lane: int, ids: Sequence[int]) -> None:
        """Let the lane read `ids` and then speak."""
        ...

    def collect(self) -> list[Utterance]:
        """Wait for lanes that have finished speaking: at least one, if any was submitted."""
        ...
