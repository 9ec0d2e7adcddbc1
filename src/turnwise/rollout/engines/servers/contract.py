"""What servers are asked and what they answer, whatever they are; and what of an answer cannot be true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from turnwise.rollout.engines.decoding import Decoding
from turnwise.run.errors import InputError

OURS = "turnwise:"
"""what the label of weights begins with that a run has loaded into a server"""
LEAST = -9000.0
"""what is below is how servers write minus infinity: no token that was sampled has it"""
LOADING = OURS + "loading"
"""the label while weights are being replaced: whoever finds it later knows that this was not finished"""
LOADS = 600.0
"""seconds that replacing weights may take"""


@dataclass(frozen=True)
class Ask:
    """One utterance that is wanted."""

    ids: tuple[int, ...]
    """all that was read and said before"""
    most: int
    """longest utterance, in tokens"""
    seed: int
    """of this utterance alone, below 2^63"""
    stop: int
    decoding: Decoding


def sampling(ask: Ask) -> dict[str, Any]:
    """How to sample, in the words that vLLM and SGLang share: as asked, with nothing of a server's own."""
    how = ask.decoding
    return {
        "temperature": how.temperature,
        "top_p": 1.0 if how.top_p is None else how.top_p,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": [ask.stop],
        "ignore_eos": True,
        "skip_special_tokens": False,
    }


@dataclass(frozen=True)
class Answer:
    """What was said: ids, and their log-probabilities under the distribution that was sampled from."""

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    label: str | None = None
    """the label of the weights that spoke, if the server says so with every answer"""


@dataclass(frozen=True)
class Facts:
    """What a server says of itself."""

    engine: str
    """its kind and version: `vLLM 0.32.0`"""
    model: str
    context: int | None
    """longest history with its answer, in tokens; None if it does not say"""


@dataclass(frozen=True)
class Weights:
    """Weights in a folder that servers can read."""

    version: str
    """a digest of their content"""
    folder: Path | None
    """None: those that the server was started with, below any adapter"""
    adapter: bool = False
    """whether these are adapters of a base that the server has, or that base alone"""

    @property
    def label(self) -> str:
        """How a server that has loaded them calls them."""
        return OURS + self.version


class Server(Protocol):
    """A server that speaks. Every method may raise `Unavailable` or `Refused`."""

    url: str

    def facts(self) -> Facts:
        """What it is."""
        ...

    def spelt(self, text: str) -> list[int] | None:
        """Ids of a text by its tokenizer, without special tokens; None if it does not tell."""
        ...

    def say(self, ask: Ask) -> Answer:
        """Sample an utterance. InputError for an answer that breaks the contract."""
        ...

    def label(self) -> str | None:
        """The label of its weights, which is gone if it was started anew; None if it has none."""
        ...

    def mark(self, label: str) -> None:
        """Give its weights a label."""
        ...

    def close(self) -> None:
        """Let its connections go."""
        ...

    def load(self, weights: Weights) -> None:
        """Replace its weights, or its adapter, in place. InputError if it was not started for that."""
        ...


def sound(url: str, ask: Ask, ids: object, logp: object, label: str | None = None) -> Answer:
    """The answer, if it can be one to `ask`. InputError that says what is wrong with it, else."""
    if not isinstance(ids, Sequence) or not all(isinstance(i, int) for i in ids):
        raise InputError(f"{url}: its answer has no token ids; expected a server that returns them")
    if not isinstance(logp, Sequence) or not all(isinstance(x, float | int) for x in logp):
        raise InputError(
            f"{url}: its answer has no log-probabilities; expected a server that returns those of the tokens "
            "that it samples"
        )
    ids, logp = tuple(ids), tuple(float(x) for x in logp)
    if not ids or len(ids) != len(logp) or len(ids) > ask.most:
        raise InputError(
            f"{url}: its answer has {len(ids)} tokens and {len(logp)} log-probabilities; expected as many of "
            f"both, from 1 to {ask.most}"
        )
    if len(ids) < ask.most and ids[-1] != ask.stop:
        raise InputError(
            f"{url}: its answer ends after {len(ids)} tokens with id {ids[-1]}; expected the stop "
            f"token {ask.stop} there, or an end after {ask.most} tokens"
        )
    if ask.stop in ids[:-1]:
        raise InputError(f"{url}: its answer goes on after the stop token {ask.stop}")
    if ask.decoding.temperature == 0:  # what is certain has probability 1, whatever the logits were
        logp = (0.0,) * len(ids)
    if any(math.isnan(x) or x > 1e-3 or x < LEAST for x in logp):
        raise InputError(f"{url}: {min(logp)} to {max(logp)} are no log-probabilities of sampled tokens")
    return Answer(ids, logp, label)
