"""A problem that is written out, as the model that a perfect learner would find; and its logged episodes."""

from __future__ import annotations

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import Discrete, LaneEnv
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.sequences import Sequences

LANES = 1024
"""episodes side by side"""


def described(problem: POMDP, edges: np.ndarray | None = None) -> LearntModel:
    """The problem as a `LearntModel`: the same states, ends folded into hazards.

    Rewards count in expectation over s' and o; with `edges`, bins hold the rewards of transitions. The state
    that only ended episodes reach stays, with nothing that leads to it. If the problem shows nothing first,
    there is one first observation.
    """
    S, A, O = problem.shape
    t, e = problem.transitions, problem.emissions.dense().reshape(A, S, O)
    row, reached = t.of_entries(), t.indices
    a, s = np.divmod(row, S)
    going, ending = np.zeros((A, S, S)), np.zeros((A, S, S))
    np.add.at(going, (a[~problem.ends], s[~problem.ends], reached[~problem.ends]), t.data[~problem.ends])
    np.add.at(ending, (a[problem.ends], s[problem.ends], reached[problem.ends]), t.data[problem.ends])
    hazard = np.clip(ending.sum(2), 0.0, 1.0)
    lasts = np.einsum("ast,ato->aso", _rows(ending), e)
    edges = np.zeros(0) if edges is None else edges
    bins, means = np.zeros((3, A, S, len(edges) + 1)), np.zeros((3, A, S))
    at = np.searchsorted(edges, problem.rewards, side="left")
    kind = problem.ends.astype(np.int64)  # GO_ON is 0, END is 1
    np.add.at(bins, (kind, a, s, at), t.data)
    np.add.at(means, (kind, a, s), t.data * problem.rewards)
    weight = bins.sum(3)
    means = np.where(weight > 0, means / np.where(weight > 0, weight, 1.0), 0.0)
    firsts = np.ones((S, 1)) if problem.initial is None else problem.initial.dense()
    return LearntModel(
        start=problem.start,
        firsts=firsts,
        transitions=_rows(going),
        emissions=e,
        ends=hazard,
        lasts=np.stack([lasts, lasts]),
        longest=None,
        pay=Pay(edges, _rows(bins), means, np.zeros(0)),
    )


def random_episodes(env: LaneEnv, episodes: int, steps: int, rng: np.random.Generator) -> Sequences:
    """Episodes of uniformly random actions, cut after `steps`. TypeError for what cannot be counted.

    What a reset shows is the first observation, unless it is the symbol of a problem that shows nothing.
    """
    null = env.null if isinstance(env, TabularEnv) else None
    shown = null is None
    observed, acts = env.observation_space, env.action_space
    if not isinstance(observed, Discrete) or not isinstance(acts, Discrete):
        raise TypeError(f"an environment of {observed} and {acts}; expected what can be counted")
    parts: list[list[np.ndarray]] = [[], [], []]
    firsts, lengths, ended = [], [], []
    while len(firsts) * LANES < episodes or not firsts:
        first = env.reset(rng, LANES)
        age, done, over = np.zeros(LANES, np.int64), np.zeros(LANES, bool), np.zeros(LANES, bool)
        block = [np.zeros((LANES, steps), kind) for kind in (np.int32, np.int32, np.float64)]
        for k in range(steps):
            # Lanes that are over begin anew and are left aside: each lane gives one episode a round.
            if k and done.any() and not env.autoresets and last_over.any():
                env.reset_lanes(last_over)
            actions = rng.integers(acts.n, size=LANES)
            step = env.step(actions)
            live = ~done
            for array, found in zip(block, (actions, step.observations, step.rewards), strict=True):
                array[live, k] = found[live]
            age[live] += 1
            over |= live & step.terminated
            last_over = step.terminated | step.truncated
            done |= last_over
            if done.all():
                break
        keep = np.arange(steps) < age[:, None]
        for part, array in zip(parts, block, strict=True):
            part.append(array[keep])
        firsts.append(first)
        lengths.append(age)
        ended.append(over)
    actions, observations, rewards = (np.concatenate(p) for p in parts)
    return Sequences(
        actions,
        observations,
        rewards,
        np.append(0, np.cumsum(np.concatenate(lengths))),
        np.concatenate(ended),
        np.concatenate(firsts) if shown else np.zeros(LANES * len(firsts), int),
        acts.n,
        observed.n if null is None else null,
        observed.n if shown else 1,
    ).select(np.arange(episodes))


def _rows(table: np.ndarray) -> np.ndarray:
    """Rows divided by their sums; uniform where nothing is."""
    sums = table.sum(-1, keepdims=True)
    return np.where(sums > 0, table / np.where(sums > 0, sums, 1.0), 1 / table.shape[-1])
