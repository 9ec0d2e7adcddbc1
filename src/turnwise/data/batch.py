"""The decision axis: the only place that shifts time or pads.

Packers turn conversations and episodes into a `Batch` whose axis A counts decisions, whatever lies between
them: an environment's step, one token, or a whole utterance. Every return and loss is written on [B, A].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from turnwise.data.tokens import Tokens


@dataclass(frozen=True)
class Batch:
    """B rows, T positions that the model reads, A decisions; a row never crosses an episode.

    `decisions` [B, A+1]: position from which decision k is taken, the last one being the final state.
    `ends` [B, A]: last position that belongs to action k (for steps the action is no position: the
    decision itself). `discounts` multiply the value of decision k+1: 0 after a true termination, never 0
    after truncation. `mask`: True = a real decision of the agent; False only as a suffix. `loss_mask`:
    mask less what is read but not learnt from. Padding has reward 0, discount 0 and repeats the final
    position. `state0`: the model's memory before the first position (None: a memory of nothing). Of steps
    also `ages`, the number of decisions that were taken before in the episode, and `states` [B, A+1, ...],
    the hidden states at the decisions (privileged; None where they are not told).
    """

    inputs: Any  # ids, an int tensor [B, T]; or StepInputs
    decisions: Int[Tensor, "B A1"]
    ends: Int[Tensor, "B A"]
    actions: Any  # a tensor [B, A, ...], or None per turn
    rewards: Float[Tensor, "B A"]
    discounts: Float[Tensor, "B A"]
    mask: Bool[Tensor, "B A"]
    loss_mask: Bool[Tensor, "B A"]
    behavior_logp: Float[Tensor, "B A"] | None = None
    state0: Float[Tensor, "B K"] | None = None
    ages: Int[Tensor, "B A"] | None = None
    states: Any = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, tuple):
                moved[f.name] = type(value)(*(x.to(device) for x in value))
            elif isinstance(value, Tensor):
                moved[f.name] = value.to(device)
        return replace(self, **moved)


def pack_tokens(
    rows: Sequence[Tokens],
    *,
    gamma: float,
    gamma_within_turn: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """A decision per token of the agent, its stop token included.

    `gamma` is the discount per turn, paid where a turn ends; `gamma_within_turn` the one between two tokens
    of the same turn (.99 there would be .37 after a hundred tokens).
    """
    packed = []
    for t in rows:
        chosen = np.flatnonzero(t.action[1:]) + 1
        discounts = np.where(t.turn_end[chosen], gamma, gamma_within_turn)
        packed.append(
            _row(t, chosen - 1, chosen, t.ids[chosen], t.rewards[chosen], discounts, t.token_logp[chosen])
        )
    return _stack(rows, packed, dtype)


def pack_turns(rows: Sequence[Tokens], *, gamma: float, dtype: torch.dtype = torch.float32) -> Batch:
    """A decision per turn: the action is the whole utterance, positions decisions[k]+1 .. ends[k].

    A turn that was cut at the end of a row continues in the next one: its discount is 1.
    """
    packed = []
    for t in rows:
        chosen = np.flatnonzero(t.action[1:]) + 1
        before = chosen - 1
        # A turn that began before this row goes on where learning begins: that is where the last row ended.
        goes_on = t.action[before] & (before == t.learn_from)
        opens = chosen[~t.action[before] | t.turn_end[before] | goes_on]
        spans = np.split(chosen, np.searchsorted(chosen, opens))[1:]
        ends = np.array([span[-1] for span in spans], np.int64)
        discounts = np.where(t.turn_end[ends], gamma, 1.0)
        packed.append(_row(t, opens - 1, ends, None, t.rewards[ends], discounts, t.message_logp[ends]))
    return _stack(rows, packed, dtype)


class _PackedRow(NamedTuple):
    decisions: np.ndarray
    ends: np.ndarray
    actions: np.ndarray | None
    rewards: np.ndarray
    discounts: np.ndarray
    logp: np.ndarray
    learnt: np.ndarray


def _row(
    t: Tokens,
    decisions: np.ndarray,
    ends: np.ndarray,
    actions: np.ndarray | None,
    rewards: np.ndarray,
    discounts: np.ndarray,
    logp: np.ndarray,
) -> _PackedRow:
    learnt = decisions >= t.learn_from
    discounts = discounts.astype(np.float64)
    if len(decisions) and t.terminated:
        discounts[-1] = 0.0
    if len(decisions) and not t.next_known:
        learnt[-1] = False
    return _PackedRow(np.append(decisions, len(t) - 1), ends, actions, rewards, discounts, logp, learnt)


def _stack(rows: Sequence[Tokens], packed: Sequence[_PackedRow], dtype: torch.dtype) -> Batch:
    B, T, A = len(rows), max(len(t) for t in rows), max(len(p.ends) for p in packed)
    ids, decisions = np.zeros((B, T), np.int64), np.zeros((B, A + 1), np.int64)
    ends, actions = np.zeros((B, A), np.int64), np.zeros((B, A), np.int64)
    rewards, discounts, logp = np.zeros((B, A)), np.zeros((B, A)), np.full((B, A), np.nan)
    mask, loss_mask = np.zeros((B, A), bool), np.zeros((B, A), bool)
    for b, (t, p) in enumerate(zip(rows, packed, strict=True)):
        n = len(p.ends)
        ids[b, : len(t)] = t.ids
        decisions[b, : n + 1], decisions[b, n + 1 :] = p.decisions, len(t) - 1
        ends[b, :n], ends[b, n:] = p.ends, len(t) - 1
        if p.actions is not None:
            actions[b, :n] = p.actions
        rewards[b, :n], discounts[b, :n], logp[b, :n] = p.rewards, p.discounts, p.logp
        mask[b, :n], loss_mask[b, :n] = True, p.learnt
    if not mask.any():
        raise ValueError("a batch without a decision")
    return Batch(
        inputs=torch.from_numpy(ids),
        decisions=torch.from_numpy(decisions),
        ends=torch.from_numpy(ends),
        actions=None if packed[0].actions is None else torch.from_numpy(actions),
        rewards=torch.as_tensor(rewards, dtype=dtype),
        discounts=torch.as_tensor(discounts, dtype=dtype),
        mask=torch.from_numpy(mask),
        loss_mask=torch.from_numpy(loss_mask),
        behavior_logp=_all_or_none(logp, mask, dtype),
    )


def _all_or_none(logp: np.ndarray, mask: np.ndarray, dtype: torch.dtype) -> Tensor | None:
    """Behaviour log-probabilities count only where every decision carries one."""
    if np.isnan(logp[mask]).any():
        return None
    return torch.as_tensor(np.where(mask, logp, 0.0), dtype=dtype)
