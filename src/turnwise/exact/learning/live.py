"""A plan made in a learnt model, acting in the world that the model was learnt from."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from turnwise.envs.protocol import LaneEnv
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.alpha_policy import RANDOM, AlphaPolicy
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.truth import LANES

TAIL = 1e-5
"""Episodes are followed until a reward is discounted to this share of itself."""
MOST_STEPS = 1000
"""largest number of steps of an episode"""

Choose = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(beliefs [N, S], steps taken [N]) -> actions [N]"""


def live_returns(
    env: LaneEnv, model: LearntModel, choose: Choose, episodes: int, discount: float, rng: np.random.Generator
) -> np.ndarray:
    """[episodes], discounted returns of `choose` on the belief of `model`, in `env`.

    What the model holds impossible leaves its belief as it predicted it. Episodes are cut after `MOST_STEPS`,
    or where what follows weighs `TAIL`. A table plays all of them side by side, any other environment
    `LANES` at a time, as many as it was made for (`random_episodes`).
    """
    if isinstance(env, TabularEnv):
        return _side_by_side(env, model, choose, episodes, discount, rng)
    blocks = -(-episodes // LANES)
    found = [_side_by_side(env, model, choose, LANES, discount, rng) for _ in range(blocks)]
    return np.concatenate(found)[:episodes]


def _side_by_side(
    env: LaneEnv, model: LearntModel, choose: Choose, episodes: int, discount: float, rng: np.random.Generator
) -> np.ndarray:
    """[episodes], one return of each lane."""
    first = env.reset(rng, episodes)
    shown = not (isinstance(env, TabularEnv) and env.null is not None)
    beliefs = model.first(first if shown else np.zeros(episodes, np.int64))
    returns, over = np.zeros(episodes), np.zeros(episodes, bool)
    steps = MOST_STEPS
    if 0 < discount < 1:
        steps = min(steps, math.ceil(math.log(TAIL) / math.log(discount)))
    for k in range(steps):
        # Beliefs repeat, and plans are many: each different belief is looked up once.
        different, at = np.unique(np.round(beliefs, 12), axis=0, return_inverse=True)
        actions = choose(different, np.full(len(different), k))[at.ravel()]
        drawn = actions == RANDOM
        if drawn.any():
            actions = np.where(drawn, rng.integers(model.shape[1], size=episodes), actions)
        step = env.step(actions)
        returns += np.where(over, 0.0, discount**k * step.rewards)
        beliefs, _ = model.update(beliefs, actions, step.observations)
        ended = step.terminated | step.truncated
        over |= ended
        if over.all():
            break
        if ended.any() and not env.autoresets:
            env.reset_lanes(ended)
    return returns


def at_random(beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Uniformly random actions."""
    return np.full(len(beliefs), RANDOM)


def by_vectors(model: LearntModel, policy: AlphaPolicy) -> Choose:
    """The actions of a policy for `model.pomdp(...)`."""

    def choose(beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        return policy.actions[policy.best(model.plan_beliefs(beliefs, times))]

    return choose
