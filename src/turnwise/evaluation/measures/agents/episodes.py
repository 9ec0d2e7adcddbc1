"""What an agent is worth: whole episodes in its environment, and an interval over them.

Each lane plays one episode a round, whatever its length, and there are as many rounds as needed. (Lanes that
are refilled at once finish short episodes first, and the first n to finish would be too short on average.)
Episodes that go on for ever are followed until what could still come is negligible (`horizon_for`); what is
missing then is at most `tail_of`.
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
from turnwise.rollout.episodes.lanes import Actor, StepLanes

CONFIDENCE = 0.95
NEGLIGIBLE = 1e-3
"""What a cut episode may miss, in units of the return."""
MOST_STEPS = 5000
"""Steps of an episode that nothing else ends or cuts."""


class Greedy:
    """`agent`, but it takes the action that it rates best."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def act(self, inputs: StepInputs, state: torch.Tensor) -> Any:
        """The best action in each lane."""
        return self.agent.act_greedily(inputs, state)

    def initial_state(self, lanes: int) -> torch.Tensor:
        """The memory of nothing."""
        return self.agent.initial_state(lanes)


def horizon_for(problem: POMDP) -> int:
    """Steps after which an episode can earn or lose less than `NEGLIGIBLE`, MOST_STEPS at most.

    The smallest n with |r|_max g^n / (1 - g) <= NEGLIGIBLE.
    """
    largest, g = _largest(problem), problem.discount
    if g == 1 or largest == 0:
        return MOST_STEPS if largest else 1
    if g == 0:
        return 1
    steps = math.ceil(math.log(NEGLIGIBLE * (1 - g) / largest) / math.log(g))
    return min(MOST_STEPS, max(1, steps))


def tail_of(problem: POMDP, steps: int) -> float:
    """The most that rewards after `steps` steps add to a discounted return, or take from it.

    |r|_max g^steps / (1 - g); 0 at discount 1, where no such bound exists.
    """
    g = problem.discount
    return 0.0 if g == 1 else _largest(problem) * g**steps / (1 - g)


def _largest(problem: POMDP) -> float:
    """|r|_max, the largest size of a reward."""
    seen = 0.0 if problem.seen_rewards is None else np.abs(problem.seen_rewards.data).max(initial=0.0)
    return max(float(seen), float(np.abs(problem.rewards).max(initial=0.0)))


def play(
    agent: Actor,
    env: LaneEnv,
    *,
    episodes: int,
    lanes: int,
    longest: int,
    gamma: float,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Play `episodes` whole episodes, cut after `longest` steps, in rounds of `lanes` at once.

    The same seed and lanes give the same episodes. Torch's global generator is left as it was.
    """
    played: list[Episode] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        acting = StepLanes(env, lanes, np.random.default_rng(seed), gamma=gamma)
        while len(played) < episodes:
            # Lanes are alike, so the first ones of the last round are a fair sample of it.
            played += acting.episodes(agent, longest)[: episodes - len(played)]
            if progress is not None:
                progress(len(played))
    return played


def discounted(episode: Episode, gamma: float) -> float:
    """The discounted return from the start, sum_k gamma^k r_k."""
    return float(episode.rewards @ gamma ** np.arange(len(episode)))


def episode_summary(episodes: Sequence[Episode], *, gamma: float | None, seed: int) -> dict[str, Any]:
    """Mean score with its standard error and a 95% bootstrap interval, and other means over episodes.

    The score is the discounted return from the start, or the undiscounted one if `gamma` is None.
    `undiscounted` is the mean of the plain sums of rewards, `length` the mean number of steps, `truncated`
    how many episodes were cut.
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
