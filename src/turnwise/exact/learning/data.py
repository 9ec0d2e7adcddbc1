"""What EM reads: steps, imagined counts, bins of rewards, the longest length."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from turnwise.exact.learning.expectation import expected, model_of, steps_of
from turnwise.exact.learning.kernels import Steps, Tables
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.rewards import FEW, SAME, distinct, edges_of, late_of, means_of, without_late
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.smoothing import prior_of
from turnwise.run.errors import InputError

CHANCE = 1e-3
"""A longest length is believed if its episodes would all have ended there by chance with less than this."""


@dataclass(frozen=True)
class Data:
    """Episodes for models of one number of states."""

    steps: Steps
    edges: np.ndarray | None
    """what separates bins of rewards; None: there are no rewards"""
    longest: int | None
    sizes: tuple[int, int, int, int, int]
    """S, A, O, F, B"""
    smoothing: float
    """imagined counts in a row"""
    late: np.ndarray
    """[longest], what the reward of an end owes to its step; empty without a clock, 0 if steps are paid"""
    prior: Tables
    phases: int | None = None
    """states of one class: an episode never leaves the class of its first state; None: all are one class"""

    def of(self, states: int, smoothing: float | None = None) -> Data:
        """The same episodes for another number of states, with other smoothing."""
        return self.within(self.phases, states, smoothing)

    def within(self, phases: int | None, states: int, smoothing: float | None = None) -> Data:
        """The same if states are so many phases of each of some classes."""
        k = self.smoothing if smoothing is None else smoothing
        sizes = (states, *self.sizes[1:])
        prior = prior_of(self.steps, sizes, k, phases)
        return replace(self, sizes=sizes, smoothing=k, prior=prior, phases=phases)


def prepared(
    sequences: Sequences,
    states: int,
    *,
    longest: int | None,
    smoothing: float = 1.0,
    like: Data | Pay | None = None,
) -> Data:
    """The data; rewards are binned as in `like`, so that two parts of data, or data and a model, agree.

    InputError if there is no episode, or one that is longer than `longest`.
    """
    if not len(sequences):
        raise InputError("there is no episode to learn from; expected at least one")
    if longest is not None and sequences.lengths.max() > longest:
        raise InputError(
            f"an episode has {sequences.lengths.max()} steps; expected at most the longest length, {longest}"
        )
    if longest is not None:  # whatever the log says: who got there has ended
        sequences = replace(sequences, ended=sequences.ended | (sequences.lengths == longest))
    bins, edges, late = None, None, np.zeros(longest or 0)
    if sequences.rewards is not None:
        if like is not None:
            late = like.late
        elif longest is not None and _at_ends_only(sequences):
            late = late_of(sequences, longest)
        rewards = without_late(sequences, late)
        edges = edges_of(rewards) if like is None else like.edges
        assert edges is not None
        bins = np.searchsorted(edges, rewards, side="left").astype(np.int32)
    steps = steps_of(sequences, longest, bins)
    sizes = (
        states,
        sequences.action_symbols,
        sequences.observation_symbols,
        sequences.first_symbols,
        1 if edges is None else len(edges) + 1,
    )
    return Data(steps, edges, longest, sizes, smoothing, late, prior_of(steps, sizes, smoothing))


def _at_ends_only(sequences: Sequences) -> bool:
    """Whether nothing is paid but for ends, and there are some."""
    assert sequences.rewards is not None
    before = np.ones(len(sequences.rewards), bool)
    before[sequences.offsets[1:][sequences.ended] - 1] = False
    return bool(sequences.ended.any()) and not sequences.rewards[before].any()


def longest_of(sequences: Sequences) -> int | None:
    """The length at which every episode ends that gets so far, if chance does not explain it; else None.

    With hazard h of the steps before it, all n episodes that got there end by chance with probability h^n.
    """
    lengths, ended = sequences.lengths, sequences.ended
    if not len(lengths):
        return None
    most = int(lengths.max())
    there = lengths == most
    if not ended[there].all():
        return None
    earlier = int((ended & ~there).sum())
    exposed = int(np.minimum(lengths, most - 1).sum())
    hazard = (earlier + 1) / (exposed + 2)
    return most if there.sum() * np.log(hazard) < np.log(CHANCE) else None


def sampled(data: Data, steps: int, rng: np.random.Generator) -> Data:
    """Whole episodes drawn at random, of so many steps in all; all of them if there are no more."""
    s = data.steps
    if len(s.actions) <= steps:
        return data
    order = rng.permutation(len(s.ended))
    lengths = np.diff(s.offsets)
    taken = np.sort(order[: max(1, int(np.searchsorted(np.cumsum(lengths[order]), steps)))])
    offsets = np.append(0, np.cumsum(lengths[taken]))
    at = np.repeat(s.offsets[taken] - offsets[:-1], lengths[taken]) + np.arange(offsets[-1])
    few = s._replace(
        actions=s.actions[at],
        observations=s.observations[at],
        bins=s.bins[at],
        rewards=s.rewards[at],
        offsets=offsets,
        ended=s.ended[taken],
        firsts=s.firsts[taken],
    )
    return replace(data, steps=few).of(data.sizes[0])


def paid_by_step(sequences: Sequences) -> bool:
    """Whether a few outcomes, which are paid at ends alone, are higher or lower by what their step owes.

    That is so if there are fewer different ones once it is taken off. A model with a clock knows the step; in
    one without, hidden states have to count it.
    """
    if sequences.rewards is None or not len(sequences) or not _at_ends_only(sequences):
        return False
    ends = sequences.offsets[1:][sequences.ended] - 1
    paid, left = sequences.rewards, without_late(sequences, late_of(sequences, int(sequences.lengths.max())))
    near = SAME * np.ptp(paid[ends])
    return len(distinct(left[ends], near)) < min(len(distinct(paid[ends], near)), FEW + 1)


def finished(data: Data, tables: Tables) -> LearntModel:
    """The model of the tables, with the means of its rewards."""
    counts, _ = expected(data.steps, tables)
    pay = None
    if data.edges is not None:
        means = means_of(counts, data.smoothing, data.late)
        pay = Pay(data.edges, tables.bins.swapaxes(2, 3), means, data.late)
    tried = np.bincount(data.steps.actions, minlength=data.sizes[1]).astype(np.float64)
    s, (_, _, O, F, _) = data.steps, data.sizes
    tables = tables._replace(
        emissions=_telling_nothing(tables.emissions, np.bincount(s.observations, minlength=O) == 0, 1),
        firsts=_telling_nothing(tables.firsts, np.bincount(s.firsts, minlength=F) == 0, 0),
    )
    return model_of(tables, data.longest, pay, tried)


def _telling_nothing(rows: np.ndarray, never: np.ndarray, axis: int) -> np.ndarray:
    """Probabilities in which symbols that were `never` seen have one probability, whatever the state.

    Smoothing alone gives them more of it in states with fewer data, and a belief would take that for news.
    Heard at last (as what is like nothing that was logged), such a symbol now tells nothing: the belief is
    what it would be had nobody listened.
    """
    if not never.any() or never.all():
        return rows
    moved = np.moveaxis(rows, axis, -1)
    rare = moved[..., never].mean(tuple(range(moved.ndim - 1)))
    known = np.where(never, 0.0, moved)
    found = known * ((1 - rare.sum()) / known.sum(-1, keepdims=True))
    found[..., never] = rare
    return np.ascontiguousarray(np.moveaxis(found, -1, axis))
