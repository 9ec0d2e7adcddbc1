"""What an agent is worth, measured: whole episodes in its environment, and an interval over them.

One episode a lane, whatever its length, and as many rounds of lanes as it takes: no episode is favoured for
being short. Where episodes go on for ever they are followed until what could still come is negligible
(`horizon_for`); what is missing then is at most `tail`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from turnwise.data.episode import Episode
from turnwise.data.steps import StepInputs
from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import LaneEnv
from turnwise.evaluation.measures.intervals import bootstrap_interval
from turnwise.rollout.episodes import Acts, StepLanes

CONFIDENCE = 0.95
NEGLIGIBLE = 1e-3
"""units of the return: what may be missing of an episode that is cut"""
MOST_STEPS = 5000
"""of one episode, where nothing else ends or cuts it"""


class Greedy:
    """`agent`, taking the action that it holds for the best."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def act(self, inputs: StepInputs, state: torch.Tensor) -> Any:
        """The best action in each lane."""
        return self.agent.best(inputs, state)

    def nothing(self, lanes: int) -> torch.Tensor:
        """The memory of nothing."""
        return self.agent.nothing(lanes)


def horizon_for(problem: POMDP) -> int:
    """Steps after which what an episode could still earn or lose is below `NEGLIGIBLE`, 5000 at most."""
    largest, g = _largest(problem), problem.discount
    if g == 1 or largest == 0:
        return MOST_STEPS if largest else 1
    if g == 0:
        return 1
    steps = math.ceil(math.log(NEGLIGIBLE * (1 - g) / largest) / math.log(g))
    return min(MOST_STEPS, max(1, steps))


def tail_of(problem: POMDP, steps: int) -> float:
    """The most that rewards after `steps` steps add to a discounted return, or take from it."""
    g = problem.discount
    return 0.0 if g == 1 else _largest(problem) * g**steps / (1 - g)


def _largest(problem: POMDP) -> float:
    seen = 0.0 if problem.seen_rewards is None else np.abs(problem.seen_rewards.data).max(initial=0.0)
    return max(float(seen), float(np.abs(problem.rewards).max(initial=0.0)))


def play(
    agent: Acts,
    env: LaneEnv,
    *,
    episodes: int,
    lanes: int,
    longest: int,
    gamma: float,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[Episode]:
    """`episodes` whole episodes, cut after `longest` steps, in rounds of `lanes` at once.

    The same seed and lanes give the same episodes. Torch's global generator is left as it was.
    """
    held: list[Episode] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        acting = StepLanes(env, lanes, np.random.default_rng(seed), gamma=gamma)
        while len(held) < episodes:
            # Lanes are alike, so that the first ones of a round are as good as any.
            held += acting.episodes(agent, longest)[: episodes - len(held)]
            if progress is not None:
                progress(len(held))
    return held


def discounted(episode: Episode, gamma: float) -> float:
    """sum_k gamma^k r_k"""
    return float(episode.rewards @ gamma ** np.arange(len(episode)))


def summary(episodes: Sequence[Episode], *, gamma: float | None, seed: int) -> dict[str, Any]:
    """Means over episodes, the first with its standard error and a 95% bootstrap interval.

    The score is the discounted return from the start, or, where `gamma` is None, the undiscounted one.
    """
    plain = np.array([float(e.rewards.sum()) for e in episodes])
    scores = plain if gamma is None else np.array([discounted(e, gamma) for e in episodes])
    low, high = bootstrap_interval(scores, confidence=CONFIDENCE, rng=np.random.default_rng(seed))
    return {
        "score": "mean return" if gamma is None else "mean discounted return",
        "episodes": len(episodes),
        "seed": seed,
        "mean": float(scores.mean()),
        "low": low,
        "high": high,
        "confidence": CONFIDENCE,
        "standard_error": float(scores.std(ddof=1) / math.sqrt(len(scores))),
        "discount": gamma,
        "undiscounted": float(plain.mean()),
        "length": float(np.mean([len(e) for e in episodes])),
        "truncated": sum(e.truncated for e in episodes),
    }
