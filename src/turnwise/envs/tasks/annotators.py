"""Simulated annotators: they perceive gold through noise, may like length, and sometimes do not look.

One model yields all four kinds of feedback. A reply of gold g and n words seems worth

    u = g + temperature * (length_bias * n + Gumbel noise)

An annotator prefers the reply that seems better, and orders several as they seem. So pairs follow
Bradley & Terry (1952), and rankings follow Plackett (1975) and Luce (1959); Yellott (1977) proves that Gumbel
noise does this. With probability `lapse` the answer has nothing to do with the replies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from turnwise.envs.dialogue import Message

Row = dict[str, Any]

_EULER = 0.5772156649015329  # mean of a standard Gumbel variable


@dataclass(frozen=True)
class Annotator:
    """Somebody who compares, ranks, likes and scores replies.

    `temperature` is in units of gold: at a difference of one temperature the better reply wins 73% of the
    time. `length_bias` is in nats per word, and matters only if replies are compared. `lapse` is a
    probability.
    """

    name: str
    temperature: float
    length_bias: float = 0.0
    lapse: float = 0.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 <= self.lapse <= 1):
            raise ValueError(f"{self}: expected a temperature above 0 and a lapse from 0 to 1")

    def prefer_probability(self, golds: tuple[float, float], lengths: tuple[int, int] = (0, 0)) -> float:
        """P(first) = (1 - lapse) sigmoid((g1 - g2) / temperature + length_bias (n1 - n2)) + lapse / 2."""
        first, second = self._nats(golds, lengths)
        return (1 - self.lapse) * _sigmoid(first - second) + self.lapse / 2

    def prefers_first(
        self, golds: tuple[float, float], lengths: tuple[int, int], rng: np.random.Generator
    ) -> bool:
        """Whether the annotator says that the first of two replies is the better one."""
        return bool(rng.random() < self.prefer_probability(golds, lengths))

    def rank_probability(self, golds: Sequence[float], lengths: Sequence[int], order: Sequence[int]) -> float:
        """P(order), the best reply first: the product over places of exp(u) / sum of exp(u) of those left.

        A lapse picks any of the n! orders.
        """
        nats = self._nats(golds, lengths)
        logp = 0.0
        for place, chosen in enumerate(order):
            left = [nats[i] for i in order[place:]]
            top = max(left)
            logp += nats[chosen] - top - math.log(sum(math.exp(u - top) for u in left))
        return (1 - self.lapse) * math.exp(logp) + self.lapse / math.factorial(len(golds))

    def rank(
        self, golds: Sequence[float], lengths: Sequence[int], rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Indices of the replies, the best first."""
        # Sorting by u plus Gumbel noise draws from Plackett-Luce without computing the n! probabilities.
        noise = rng.gumbel(size=len(golds))
        nats = np.zeros(len(golds)) if rng.random() < self.lapse else np.array(self._nats(golds, lengths))
        return tuple(np.argsort(-(nats + noise), kind="stable").tolist())

    def like_probability(self, gold: float, threshold: float) -> float:
        """P(liked) = (1 - lapse) sigmoid((gold - threshold) / temperature) + lapse / 2."""
        return (1 - self.lapse) * _sigmoid((gold - threshold) / self.temperature) + self.lapse / 2

    def likes(self, gold: float, threshold: float, rng: np.random.Generator) -> bool:
        """Whether a reply seen by itself seems better than one of gold `threshold`."""
        return bool(rng.random() < self.like_probability(gold, threshold))

    def score(self, gold: float, rng: np.random.Generator) -> float:
        """A number in units of gold: mean `gold`, standard deviation temperature * pi / sqrt(6).

        A lapse gives the noise alone.
        """
        noise = self.temperature * (float(rng.gumbel()) - _EULER)  # mean 0: the score is unbiased
        return noise if rng.random() < self.lapse else gold + noise

    def _nats(self, golds: Sequence[float], lengths: Sequence[int]) -> list[float]:
        return [g / self.temperature + self.length_bias * n for g, n in zip(golds, lengths, strict=True)]


PANEL = (
    Annotator("careful", 0.45),
    Annotator("ordinary", 0.7),
    Annotator("hasty", 0.9, lapse=0.1),
    Annotator("wordy", 0.7, length_bias=0.1),
)
"""the default annotators: a row is judged by one of them, drawn uniformly"""


class Author(Protocol):
    """A task with a writer and a gold preference."""

    def split(self) -> tuple[list[tuple[Message, ...]], list[tuple[Message, ...]]]:
        """Prompts to learn from, prompts held out."""
        ...

    def write(self, prompt: Sequence[Message], rng: np.random.Generator) -> str:
        """A reply of the writer."""
        ...

    def gold(self, prompt: Sequence[Message], reply: str) -> float:
        """What a reply is worth."""
        ...


Kind = Literal["pairs", "rankings", "likes", "scores"]


def label(
    task: Author,
    kind: Kind,
    n: int,
    rng: np.random.Generator,
    panel: Sequence[Annotator] = PANEL,
    prompts: Sequence[tuple[Message, ...]] | None = None,
    *,
    replies: int = 4,
    threshold: float = 0.8,
) -> list[Row]:
    """n judgements of the writer's replies, in TRL's columns where TRL has such a kind.

    pairs     two replies: `chosen`, `rejected`; `gold_chosen` and `gold_rejected`
    rankings  `replies` of them: `completions` as drawn, `ranks` of each (1 the best); `golds`
    likes     one reply: `completion`, `label` (whether it seems better than one of gold `threshold`); `gold`
    scores    one reply: `completion`, `score`; `gold`

    The gold columns are the truth, for measuring. Prompts are drawn from `prompts` (by default the task's
    prompts to learn from), annotators from `panel`. Replies of one row differ from each other. The first rows
    are the same whatever n is.
    """
    prompts = task.split()[0] if prompts is None else prompts
    count = {"pairs": 2, "rankings": replies}.get(kind, 1)
    rows = []
    for i in range(n):
        prompt = prompts[int(rng.random() * len(prompts))]
        texts: list[str] = []
        while len(texts) < count:
            text = task.write(prompt, rng)
            if text not in texts:
                texts.append(text)
        golds = [task.gold(prompt, text) for text in texts]
        who = panel[int(rng.random() * len(panel))]
        row: Row = {"id": f"{kind[:-1]}-{i + 1:06d}", "prompt": _chat(prompt), "annotator": who.name}
        rows.append(row | _judged(who, kind, texts, golds, rng, threshold))
    return rows


def _judged(
    who: Annotator,
    kind: Kind,
    texts: Sequence[str],
    golds: Sequence[float],
    rng: np.random.Generator,
    threshold: float,
) -> Row:
    """The columns that hold the annotator's judgement of the replies, and the truth."""
    lengths = [len(text.split()) for text in texts]
    said = [[{"role": "assistant", "content": text}] for text in texts]
    if kind == "pairs":
        first = who.prefers_first((golds[0], golds[1]), (lengths[0], lengths[1]), rng)
        w, l = (0, 1) if first else (1, 0)
        return {
            "chosen": said[w],
            "rejected": said[l],
            "gold_chosen": golds[w],
            "gold_rejected": golds[l],
        }
    if kind == "rankings":
        order = who.rank(golds, lengths, rng)
        ranks = [order.index(k) + 1 for k in range(len(texts))]
        return {"completions": said, "ranks": ranks, "golds": list(golds)}
    if kind == "likes":
        return {"completion": said[0], "label": who.likes(golds[0], threshold, rng), "gold": golds[0]}
    return {"completion": said[0], "score": who.score(golds[0], rng), "gold": golds[0]}


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _chat(prompt: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in prompt]
