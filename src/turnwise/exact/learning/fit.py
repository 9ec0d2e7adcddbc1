"""Learning a POMDP by EM: many short climbs, long ones from the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from turnwise.exact.learning.expectation import expected, log_prior, maximised, model_of, steps_of
from turnwise.exact.learning.kernels import Steps, Tables
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.rewards import edges_of, means_of
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.smoothing import prior_of
from turnwise.exact.learning.starts import lasting_start, random_start

CHANCE = 1e-3
"""A longest length is believed if its episodes would all have ended there by chance with less than this."""


@dataclass(frozen=True)
class Data:
    """What EM reads: the steps, the imagined counts, and how rewards are put into bins."""

    steps: Steps
    edges: np.ndarray | None
    longest: int | None
    sizes: tuple[int, int, int, int, int]
    """S, A, O, F, B"""
    strength: float
    by_clock: bool
    prior: Tables


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


def prepared(sequences: Sequences, states: int, *, longest: int | None, smoothing: float = 1.0) -> Data:
    """The data of one number of states. SettingError-free: the caller has checked its numbers."""
    if longest is not None and len(sequences) and sequences.lengths.max() > longest:
        raise ValueError(
            f"longest is {longest}, and an episode has {sequences.lengths.max()} steps; "
            "expected at least as many"
        )
    edges = None if sequences.rewards is None else edges_of(sequences.rewards)
    bins = None
    if edges is not None and sequences.rewards is not None:
        bins = np.searchsorted(edges, sequences.rewards, side="left").astype(np.int32)
    steps = steps_of(sequences, longest, bins)
    sizes = (
        states,
        sequences.action_symbols,
        sequences.observation_symbols,
        sequences.first_symbols,
        1 if edges is None else len(edges) + 1,
    )
    last = np.zeros(len(steps.actions), bool)
    last[steps.offsets[1:] - 1] = True
    by_clock = longest is not None and edges is not None and not steps.rewards[~last].any()
    return Data(steps, edges, longest, sizes, smoothing, by_clock, prior_of(steps, sizes, smoothing))


@dataclass(frozen=True)
class Climb:
    """Where EM stands."""

    tables: Tables
    values: tuple[float, ...]
    """the penalised log-likelihood in nats, before each iteration"""
    converged: bool


def climb(
    data: Data,
    tables: Tables,
    iterations: int,
    tolerance: float,
    progress: Callable[[int, float], None] | None = None,
) -> Climb:
    """EM until an iteration gains less than `tolerance` nats per step, or `iterations` are over."""
    values: list[float] = []
    for i in range(iterations):
        counts, likelihoods = expected(data.steps, tables)
        values.append(float(likelihoods.sum()) + log_prior(data.prior, tables))
        if progress is not None:
            progress(i, values[-1])
        if i and values[-1] - values[-2] < tolerance * len(data.steps.actions):
            return Climb(tables, tuple(values), True)
        tables = maximised(counts, data.prior, tables)
    return Climb(tables, tuple(values), False)


def finished(data: Data, tables: Tables) -> LearntModel:
    """The model of the tables, with the means of its rewards."""
    counts, _ = expected(data.steps, tables)
    pay = None
    if data.edges is not None:
        means, late = means_of(counts, data.strength, data.by_clock)
        pay = Pay(data.edges, tables.bins.swapaxes(2, 3), means, late if data.longest else np.zeros(0))
    tried = np.bincount(data.steps.actions, minlength=data.sizes[1]).astype(np.float64)
    return model_of(tables, data.longest, pay, tried)


def fit(
    sequences: Sequences,
    states: int,
    rng: np.random.Generator,
    *,
    longest: int | str | None = "auto",
    smoothing: float = 1.0,
    starts: int = 10,
    short: int = 20,
    iterations: int = 500,
    tolerance: float = 1e-7,
) -> LearntModel:
    """A model of so many hidden states, by EM.

    `longest`: steps after which every episode has ended; "auto": found in the data; None: there is none.
    `smoothing`: imagined counts in each row. `starts` climbs of `short` iterations begin at random; the best
    goes on for up to `iterations`, until one gains less than `tolerance` nats per step.
    """
    limit = longest_of(sequences) if longest == "auto" else longest
    assert not isinstance(limit, str)
    data = prepared(sequences, states, longest=limit, smoothing=smoothing)
    kinds = (lasting_start, random_start)
    tried = [climb(data, kinds[i % 2](data.prior, rng), short, tolerance) for i in range(starts)]
    best = max(tried, key=lambda c: c.values[-1])
    return finished(data, climb(data, best.tables, iterations, tolerance).tables)
