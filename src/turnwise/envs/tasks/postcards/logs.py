"""Postcards as files: the writer's cards as logs of one turn, and what annotators say of cards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from turnwise.envs.tasks.annotators import Kind, label
from turnwise.envs.tasks.postcards.task import Postcards, Prompt

CARDS = 9_600  # for an estimated mean: every prompt 50 times; the standard error is about 0.01


def postcard_logs(conversations: int, seed: int) -> Iterator[dict[str, Any]]:
    """Cards of the mediocre writer for prompts to learn from, with gold as `outcome`, one dict each."""
    task, rng = Postcards(), np.random.default_rng(seed)
    learnt, _ = task.split()
    for i in range(conversations):
        prompt = learnt[int(rng.integers(len(learnt)))]
        text = task.write(prompt, rng)
        messages = [{"role": m.role, "content": m.content} for m in prompt]
        messages.append({"role": "assistant", "content": text})
        yield {"id": f"card-{i + 1:06d}", "messages": messages, "outcome": task.gold(prompt, text)}


def postcard_feedback(kind: Kind, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """What the default panel of annotators says of the writer's cards, one dict each."""
    yield from label(Postcards(), kind, n, np.random.default_rng(seed))


def mean_gold(
    task: Postcards, prompts: Sequence[Prompt], write: Callable[[Prompt, np.random.Generator], str]
) -> tuple[float, float, float]:
    """Mean gold of a writer over the prompts, with the ends of its 95% interval, from `CARDS` cards."""
    rng = np.random.default_rng(0)
    each = [prompts[i % len(prompts)] for i in range(CARDS)]
    golds = np.array([task.gold(prompt, write(prompt, rng)) for prompt in each])
    mean, margin = float(golds.mean()), 1.96 * float(golds.std(ddof=1)) / CARDS**0.5
    return mean, mean - margin, mean + margin
