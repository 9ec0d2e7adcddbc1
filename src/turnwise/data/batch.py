"""The decision axis: the only place that shifts time or pads.

Packers turn conversations and episodes into a `Batch` whose axis A counts decisions, whatever lies between
them: an environment's step, one token, or a whole utterance. Every return and loss is written on [B, A].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from turnwise.data.tokens import Tokens


@dataclass(frozen=True)
class Batch:
    """B rows, T positions that the model reads, A decisions; a row never crosses an episode.

    One conversation, with a decision per token and with a decision per turn (x is an action):

        position     0  1  2  3  4  5  6  7  8  9
        action                x  x        x  x  x       rewards -.1 after 4 and 1 after 9, then a true end
        per token    decisions 2 3 6 7 8, final 9       ends 3 4 7 8 9      rewards 0 -.1 0 0 1
        per turn     decisions 2 6, final 9             ends 4 9            rewards -.1 1

    Decision k is taken where everything before the action has been read, and the state that it leads to is
    index k+1, whatever a partner said in between. Padding is on the right, with reward 0 and discount 0, and
    its decisions repeat the final position.
    """

    inputs: Any
    """What the model reads: ids, int64 [B, T]; features of a frozen trunk, [B, T, D]; or `StepInputs` of
    environments."""
    decisions: Int[Tensor, "B A1"]
    """Position from which decision k is taken; the last one is the final state."""
    ends: Int[Tensor, "B A"]
    """Last position of action k; for a step, whose action is no position, the decision itself."""
    actions: Any
    """A tensor [B, A, ...]; None per turn, where the action is the span (decisions[k], ends[k]]."""
    rewards: Float[Tensor, "B A"]
    """What followed action k, in the units of the task."""
    discounts: Float[Tensor, "B A"]
    """What multiplies the value of decision k+1: 0 after a true end, never 0 after a cut."""
    mask: Bool[Tensor, "B A"]
    """True: a real decision of the agent; False only as a suffix."""
    loss_mask: Bool[Tensor, "B A"]
    """`mask` less what is read but not learnt from: burn-in, an action whose next state is unknown."""
    behavior_logp: Float[Tensor, "B A"] | None = None
    """Log-probability of action k under the policy that acted, in nats; None unless all are known."""
    state0: Float[Tensor, "B K"] | None = None
    """The model's memory before the first position; None: a memory of nothing."""
    ages: Int[Tensor, "B A"] | None = None
    """Steps only: how many decisions of the episode were taken before."""
    states: Any = None
    """Steps only: hidden states at the decisions, [B, A+1, ...], privileged; None if not recorded."""

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


P = TypeVar("P")


def row_parts(value: P, at_once: Callable[[int], int | None], group: int = 1) -> list[P]:
    """A batch, or a dataclass of one and of tensors [B, ...] beside it, in parts of whole groups of rows.

    `at_once` says how many rows of so many positions go together; None: all. Padding stays as it is.
    """
    batch: Any = value if isinstance(value, Batch) else value.batch  # pyright: ignore[reportAttributeAccessIssue]
    rows, positions = batch.inputs.shape
    size = at_once(positions) or rows
    size = max(group, size // group * group)
    return [value] if size >= rows else [_rows_of(value, i, i + size) for i in range(0, rows, size)]


def _rows_of(value: Any, start: int, stop: int) -> Any:
    if isinstance(value, Tensor):
        return value[start:stop]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(value, **{f.name: _rows_of(getattr(value, f.name), start, stop) for f in fields(value)})


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
        # Positions [A] of the tokens that were chosen, each from the position before it. An action at
        # position 0, which nothing precedes, would be no decision.
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
        chosen = np.flatnonzero(t.action[1:]) + 1  # positions of the agent's tokens
        before = chosen - 1
        opens = chosen[_opens(t, before)]  # [A]
        # What is chosen before the first opening is the tail of a turn in the burn-in: no decision.
        spans = np.split(chosen, np.searchsorted(chosen, opens))[1:]
        ends = np.array([span[-1] for span in spans], np.int64)
        discounts = np.where(t.turn_end[ends], gamma, 1.0)
        packed.append(_row(t, opens - 1, ends, None, t.rewards[ends], discounts, t.message_logp[ends]))
    return _stack(rows, packed, dtype)


def turn_of_tokens(rows: Sequence[Tokens]) -> Int[Tensor, "B A"]:
    """For each decision of `pack_tokens`, the decision of `pack_turns` whose utterance the token is part of.

    What belongs to a turn (its advantage, say) is spread over its tokens by `x.gather(1, turns)`. It is 0 at
    padding, and at the tail of a turn in the burn-in, which is part of no turn: neither is learnt from.
    """
    A = max(int(t.action[1:].sum()) for t in rows)
    found = np.zeros((len(rows), A), np.int64)
    for b, t in enumerate(rows):
        opens = _opens(t, np.flatnonzero(t.action[1:]))
        found[b, : len(opens)] = np.maximum(np.cumsum(opens) - 1, 0)
    return torch.from_numpy(found)


def _opens(t: Tokens, before: np.ndarray) -> np.ndarray:
    """Whether a turn opens with the token behind each of the positions `before`.

    It does after a token that was read, or after the stop of another turn. The rest of a turn that a cut
    tore apart counts as a turn too: it goes on where this row begins to learn, where the row before ended.
    """
    goes_on = t.action[before] & (before == t.learn_from)
    return ~t.action[before] | t.turn_end[before] | goes_on


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
        discounts[-1] = 0.0  # the one place where a value is cut off: a true end
    if len(decisions) and not t.next_known:
        learnt[-1] = False  # nothing to bootstrap from
    return _PackedRow(np.append(decisions, len(t) - 1), ends, actions, rewards, discounts, logp, learnt)


def _stack(rows: Sequence[Tokens], packed: Sequence[_PackedRow], dtype: torch.dtype) -> Batch:
    # B, T, A: everything below is written over padding, so what is not written is padding.
    B, T, A = len(rows), max(len(t) for t in rows), max(len(p.ends) for p in packed)
    decisions = np.zeros((B, A + 1), np.int64)
    ends, actions = np.zeros((B, A), np.int64), np.zeros((B, A), np.int64)
    rewards, discounts, logp = np.zeros((B, A)), np.zeros((B, A)), np.full((B, A), np.nan)
    mask, loss_mask = np.zeros((B, A), bool), np.zeros((B, A), bool)
    for b, (t, p) in enumerate(zip(rows, packed, strict=True)):
        n = len(p.ends)
        decisions[b, : n + 1], decisions[b, n + 1 :] = p.decisions, len(t) - 1  # [n+1], then the final state
        ends[b, :n], ends[b, n:] = p.ends, len(t) - 1
        if p.actions is not None:
            actions[b, :n] = p.actions
        rewards[b, :n], discounts[b, :n], logp[b, :n] = p.rewards, p.discounts, p.logp
        mask[b, :n], loss_mask[b, :n] = True, p.learnt
    if not mask.any():  # refused here once, so that no loss needs an epsilon in its denominator
        raise ValueError("a batch without a decision")
    return Batch(
        inputs=_inputs(rows, T, dtype),
        decisions=torch.from_numpy(decisions),
        ends=torch.from_numpy(ends),
        actions=None if packed[0].actions is None else torch.from_numpy(actions),
        rewards=torch.as_tensor(rewards, dtype=dtype),
        discounts=torch.as_tensor(discounts, dtype=dtype),
        mask=torch.from_numpy(mask),
        loss_mask=torch.from_numpy(loss_mask),
        behavior_logp=_all_or_none(logp, mask, dtype),
    )


def padded_ids(rows: Sequence[Tokens]) -> Int[Tensor, "B T"]:
    """Ids of rows, as long as the longest; 0 behind the others."""
    ids = np.zeros((len(rows), max(len(t) for t in rows)), np.int64)
    for b, t in enumerate(rows):
        ids[b, : len(t)] = t.ids
    return torch.from_numpy(ids)


def _inputs(rows: Sequence[Tokens], T: int, dtype: torch.dtype) -> Tensor:
    """Ids [B, T]; or features [B, T, D], if that is what the rows hold."""
    if rows[0].features is None:
        return padded_ids(rows)
    features = torch.zeros(len(rows), T, rows[0].features.shape[1], dtype=dtype)
    for b, t in enumerate(rows):
        features[b, : len(t)] = torch.from_numpy(np.array(t.features))  # a copy: a mapped file is read-only
    return features


def _all_or_none(logp: np.ndarray, mask: np.ndarray, dtype: torch.dtype) -> Tensor | None:
    """Behaviour log-probabilities [B, A], or None unless every decision has one.

    A part of them would weigh some rows by importance and others not, in one mean.
    """
    if np.isnan(logp[mask]).any():
        return None
    return torch.as_tensor(np.where(mask, logp, 0.0), dtype=dtype)
