"""Episodes of environments on the decision axis: a decision per step, the model reads T+1 observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from turnwise.data.batch import Batch
from turnwise.data.episode import Episode


class StepInputs(NamedTuple):
    """What a memory reads: rows [B, T, ...], or one step of N lanes [N, ...].

    At the start of an episode there is no previous action or reward: both are 0 there, and `start` tells this
    0 from a real one.
    """

    observation: Tensor
    """int64 [B, T] or float [B, T, d]"""
    previous_action: Tensor
    """int64 [B, T] or float [B, T, d]"""
    previous_reward: Float[Tensor, "*N"]
    start: Bool[Tensor, "*N"]
    """[B, T], True: the first observation of an episode"""


def pack_steps(episodes: Sequence[Episode], *, gamma: float, dtype: torch.dtype = torch.float32) -> Batch:
    """Rows of episodes or segments, in the order given, padded on the right; `gamma` is per step.

    Vectors and memories come out in `dtype`. Actions and observations beyond a row's end are 0, and no
    decision reads them. Here T = A + 1: the model also reads the last observation, where values bootstrap.
    What was seen after a true end is worth nothing, and numbers there that are none are read as 0: 0 times
    no number is none.
    """
    if not episodes:
        raise ValueError("a batch without a row")
    B, A = len(episodes), max(len(e) for e in episodes)
    lengths = np.array([len(e) for e in episodes])
    first = episodes[0]
    observation = _room(first.observations, B, A + 1)
    actions, previous_action = _room(first.actions, B, A), _room(first.actions, B, A + 1)
    rewards, logp = np.zeros((B, A)), np.full((B, A), np.nan)
    previous_reward = np.zeros((B, A + 1))
    states = None if first.states is None else _room(first.states, B, A + 1)
    for b, e in enumerate(episodes):
        n = len(e)
        observation[b, : n + 1], actions[b, :n], rewards[b, :n] = e.observations, e.actions, e.rewards
        if e.terminated:
            _silence_(observation[b, n : n + 1])
        # The model reads with observation t what was done and earned at t-1: shifted here, once.
        previous_action[b, 1 : n + 1], previous_reward[b, 1 : n + 1] = e.actions, e.rewards
        if e.previous_action is not None:  # a segment: its first observation has a past
            previous_action[b, 0], previous_reward[b, 0] = e.previous_action, e.previous_reward
        if e.behavior_logp is not None:
            logp[b, :n] = e.behavior_logp
        if states is not None:
            states[b, : n + 1] = e.states
            if e.terminated:
                _silence_(states[b, n : n + 1])
            states[b, n + 1 :] = states[b, n]  # as the decisions repeat the final position
    steps = np.arange(A + 1)
    decisions = np.minimum(steps, lengths[:, None])  # [B, A+1]; beyond the end, the final position again
    mask = steps[:-1] < lengths[:, None]  # [B, A]
    ages = np.array([e.age for e in episodes])[:, None] + decisions[:, :-1]
    learnt = mask & (steps[:-1] >= np.array([e.learn_from for e in episodes])[:, None])
    unknown = ~np.array([e.next_known for e in episodes])
    learnt[unknown, lengths[unknown] - 1] = False  # nothing to bootstrap from
    discounts = np.where(mask, gamma, 0.0)
    over = np.array([e.terminated for e in episodes])
    discounts[over, lengths[over] - 1] = 0.0
    start = np.zeros((B, A + 1), bool)
    start[:, 0] = [e.age == 0 for e in episodes]
    return Batch(
        inputs=StepInputs(
            as_tensor(observation, dtype),
            as_tensor(previous_action, dtype),
            torch.as_tensor(previous_reward, dtype=dtype),
            torch.as_tensor(start),
        ),
        decisions=torch.as_tensor(decisions),
        ends=torch.as_tensor(decisions[:, :-1]),
        actions=as_tensor(actions, dtype),
        rewards=torch.as_tensor(rewards, dtype=dtype),
        discounts=torch.as_tensor(discounts, dtype=dtype),
        mask=torch.as_tensor(mask),
        loss_mask=torch.as_tensor(learnt),
        behavior_logp=None
        if np.isnan(logp[mask]).any()
        else torch.as_tensor(np.where(mask, logp, 0.0), dtype=dtype),
        state0=_memories(episodes, dtype),
        ages=torch.as_tensor(ages),
        states=None if states is None else as_tensor(states, dtype),
    )


def observations_of(episodes: Sequence[Episode], dtype: torch.dtype = torch.float32) -> Tensor:
    """The observations of all M decisions, the final ones left out: [M] symbols or [M, d] vectors."""
    return as_tensor(np.concatenate([e.observations[:-1] for e in episodes]), dtype)


def joined(before: Episode, after: Episode) -> Episode:
    """Two segments of one episode as one, whose first part is burn-in: only `after` is learnt from (R2D2).

    Kapturowski et al. 2019, "Recurrent experience replay in distributed reinforcement learning", section 3.
    """
    if before.terminated or before.age + len(before) != after.age:
        raise ValueError(
            f"a segment of steps {before.age} to {before.age + len(before)} does not go on at {after.age}"
        )
    cat = np.concatenate
    logp = states = None
    if before.behavior_logp is not None and after.behavior_logp is not None:
        logp = cat([before.behavior_logp, after.behavior_logp])
    if before.states is not None and after.states is not None:
        states = cat([before.states[:-1], after.states])
    return replace(
        before,
        # The last observation of `before` is the first of `after`.
        observations=cat([before.observations[:-1], after.observations]),
        actions=cat([before.actions, after.actions]),
        rewards=cat([before.rewards, after.rewards]),
        behavior_logp=logp,
        states=states,
        terminated=after.terminated,
        truncated=after.truncated,
        next_known=after.next_known,
        learn_from=len(before) + after.learn_from,
    )


def _room(like: np.ndarray, B: int, T: int) -> np.ndarray:
    return np.zeros((B, T, *like.shape[1:]), like.dtype)


def _silence_(x: np.ndarray) -> None:
    """0 for what is no number, and as it was otherwise."""
    if x.dtype.kind == "f":
        x[~np.isfinite(x)] = 0.0


def as_tensor(x: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Vectors in `dtype`, symbols as int64, images of bytes as they are."""
    if x.dtype.kind == "u":
        return torch.as_tensor(x)
    return torch.as_tensor(x, dtype=dtype if x.dtype.kind == "f" else torch.int64)


def _memories(episodes: Sequence[Episode], dtype: torch.dtype) -> Tensor | None:
    """[B, K]; a row without a memory has that of nothing, which is zeros. None if no row has one."""
    known = [e.memory for e in episodes if e.memory is not None]
    if not known:
        return None
    nothing = torch.zeros_like(torch.as_tensor(known[0]))
    return torch.stack([nothing if e.memory is None else torch.as_tensor(e.memory) for e in episodes]).to(
        dtype
    )
