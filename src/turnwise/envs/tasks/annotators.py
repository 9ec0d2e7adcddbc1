"""Annotators who are simulated: they feel gold through noise, like length, and sometimes do not look.

All they say comes from one model. A reply of gold g and n words seems worth

    u = g + temperature * (length_bias * n + Gumbel noise)

Of two replies the one that seems better is preferred, and several are ordered as they seem; so pairs follow
Bradley & Terry (1952), and rankings follow Plackett (1975) and Luce (1959) (that Gumbel noise does this:
Yellott 1977). With probability `lapse` the answer has nothing to do with the replies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from turnwise.envs.dialogue import Message

Row = dict[str, Any]

_EULER = 0.5772156649015329  # mean of a standard Gumbel variable


@dataclass(frozen=True)
class Annotator:
    """One who compares, ranks, likes and scores.

    `temperature` is in units of gold: at a difference of one temperature the better reply wins 73% of the
    time. `length_bias` is in nats per word, and shows where replies are compared. `lapse` is a probability.
    """

    name: str
    temperature: float
    length_bias: float = 0.0
    lapse: float = 0.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 <= self.lapse <= 1):
            raise ValueError(f"{self}: expected a temperature above 0 and a lapse from 0 to 1")

    def prefer_probability(self, golds: tuple[float, float], lengths: tuple[int, int] = (0, 0)) -> float:
        """(1 - lapse) sigmoid((g1 - g2) / temperature + length_bias (n1 - n2)) + lapse / 2: of the first."""
        first, second = self._nats(golds, lengths)
        return (1 - self.lapse) * _sigmoid(first - second) + self.lapse / 2

    def prefers_first(
        self, golds: tuple[float, float], lengths: tuple[int, int], rng: np.random.Generator
    ) -> bool:
        """Which of two is said to be better."""
        return bool(rng.random() < self.prefer_probability(golds, lengths))

    def rank_probability(self, golds: Sequence[float], lengths: Sequence[int], order: Sequence[int]) -> float:
        """Of `order`, the best first: the product over places of exp(u) / sum of exp(u) of those left."""
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
        noise = rng.gumbel(size=len(golds))
        nats = np.zeros(len(golds)) if rng.random() < self.lapse else np.array(self._nats(golds, lengths))
        return tuple(np.argsort(-(nats + noise), kind="stable").tolist())

    def like_probability(self, gold: float, threshold: float) -> float:
        """(1 - lapse) sigmoid((gold - threshold) / temperature) + lapse / 2."""
        return (1 - self.lapse) * _sigmoid((gold - threshold) / self.temperature) + self.lapse / 2

    def likes(self, gold: float, threshold: float, rng: np.random.Generator) -> bool:
        """Whether a reply seen by itself is liked: better than one of gold `threshold`."""
        return bool(rng.random() < self.like_probability(gold, threshold))

    def score(self, gold: float, rng: np.random.Generator) -> float:
        """A number in units of gold: mean `gold`, standard deviation temperature * pi / sqrt(6).

        A lapse gives the noise alone.
        """
        noise = self.temperature * (float(rng.gumbel()) - _EULER)
        return noise if rng.random() < self.lapse else gold + noise

    def _nats(self, golds: Sequence[float], lengths: Sequence[int]) -> list[float]:
        return [g / self.temperature + self.length_bias * n for g, n in zip(golds, lengths, strict=True)]


PANEL = (
    Annotator("careful", 0.45),
    Annotator("ordinary", 0.7),
    Annotator("hasty", 0.9, lapse=0.1),
    Annotator("wordy", 0.7, length_bias=0.1),
)
"""the default handful"""


class Author(Protocol):
    """A task with a writer and a gold preference."""

    def split(self) -> tuple[list[tuple[Message, ...]], list[tuple[Message, ...]]]:
        """Prompts to learn from, prompts held out."""
        ...

    def write(self, prompt: Sequence[Message], rng: np.random.Generator) -> str:
        """One reply."""
        ...

    def gold(self, prompt: Sequence[Message], reply: str) -> float:
        """What it is worth."""
        ...


def label_pairs(
    task: Author,
    n: int,
    rng: np.random.Generator,
    panel: Sequence[Annotator] = PANEL,
    prompts: Sequence[tuple[Message, ...]] | None = None,
) -> list[Row]:
    """n comparisons of two different replies of the writer, in TRL's columns.

    Prompts are drawn from `prompts` (if none are given: from those to learn from), annotators from the panel.
    `gold_chosen` and `gold_rejected` are the truth, for measuring. The first rows are the same whatever the
    number asked for.
    """
    rows = []
    for i, (prompt, replies, golds, who) in enumerate(_drawn(task, n, 2, rng, panel, prompts)):
        first = who.prefers_first((golds[0], golds[1]), (_length(replies[0]), _length(replies[1])), rng)
        w, l = (0, 1) if first else (1, 0)
        row: Row = {"id": f"pair-{i + 1:06d}", "prompt": _chat(prompt), "annotator": who.name}
        row |= {"chosen": _said(replies[w]), "rejected": _said(replies[l])}
        rows.append(row | {"gold_chosen": golds[w], "gold_rejected": golds[l]})
    return rows


def label_rankings(
    task: Author,
    n: int,
    rng: np.random.Generator,
    panel: Sequence[Annotator] = PANEL,
    prompts: Sequence[tuple[Message, ...]] | None = None,
    replies: int = 4,
) -> list[Row]:
    """n rankings of several different replies: `completions` as drawn, `ranks` of each (1 the best)."""
    rows = []
    for i, (prompt, texts, golds, who) in enumerate(_drawn(task, n, replies, rng, panel, prompts)):
        order = who.rank(golds, [_length(text) for text in texts], rng)
        ranks = [order.index(k) + 1 for k in range(replies)]
        row: Row = {"id": f"ranking-{i + 1:06d}", "prompt": _chat(prompt), "annotator": who.name}
        rows.append(row | {"completions": [_said(t) for t in texts], "ranks": ranks, "golds": list(golds)})
    return rows


def label_likes(
    task: Author,
    n: int,
    rng: np.random.Generator,
    panel: Sequence[Annotator] = PANEL,
    prompts: Sequence[tuple[Message, ...]] | None = None,
    threshold: float = 0.8,
) -> list[Row]:
    """n replies, each liked or not (`label`), in TRL's columns for unpaired preferences."""
    rows = []
    for i, (prompt, (text,), (gold,), who) in enumerate(_drawn(task, n, 1, rng, panel, prompts)):
        row: Row = {"id": f"like-{i + 1:06d}", "prompt": _chat(prompt), "annotator": who.name}
        rows.append(row | {"completion": _said(text), "label": who.likes(gold, threshold, rng), "gold": gold})
    return rows


def label_scores(
    task: Author,
    n: int,
    rng: np.random.Generator,
    panel: Sequence[Annotator] = PANEL,
    prompts: Sequence[tuple[Message, ...]] | None = None,
) -> list[Row]:
    """n replies, each with a `score`."""
    rows = []
    for i, (prompt, (text,), (gold,), who) in enumerate(_drawn(task, n, 1, rng, panel, prompts)):
        row: Row = {"id": f"score-{i + 1:06d}", "prompt": _chat(prompt), "annotator": who.name}
        rows.append(row | {"completion": _said(text), "score": who.score(gold, rng), "gold": gold})
    return rows


def _drawn(
    task: Author,
    n: int,
    replies: int,
    rng: np.random.Generator,
    panel: Sequence[Annotator],
    prompts: Sequence[tuple[Message, ...]] | None,
) -> Iterator[tuple[tuple[Message, ...], list[str], list[float], Annotator]]:
    """A prompt, different replies to it, their gold and who is to judge them, n times."""
    prompts = task.split()[0] if prompts is None else prompts
    for _ in range(n):
        prompt = prompts[int(rng.random() * len(prompts))]
        texts: list[str] = []
        while len(texts) < replies:
            text = task.write(prompt, rng)
            if text not in texts:
                texts.append(text)
        golds = [task.gold(prompt, text) for text in texts]
        yield prompt, texts, golds, panel[int(rng.random() * len(panel))]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _length(reply: str) -> int:
    return len(reply.split())


def _chat(prompt: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in prompt]


def _said(reply: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": reply}]
