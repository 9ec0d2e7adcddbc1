"""The E-step and the M-step: from parameters to expected counts, and from counts to parameters.

    Q-step   N(x) = expected number of times that x happened, given the data and the parameters (`expect`)
    M-step   P(x) = (N(x) + prior(x)) / sum over its row

The prior is a number of imagined observations (`smoothing`): with it the *penalised* likelihood

    ln P(data | parameters) + sum over x of prior(x) ln P(x)

never falls, without it the likelihood itself does not (Dempster, Laird & Rubin 1977).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from turnwise.exact.learning.kernels import Counts, Steps, Tables, expect, score
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.sequences import Sequences

CHUNK = 20_000
"""episodes between two calls of `progress`"""


def steps_of(sequences: Sequences, longest: int | None, bins: np.ndarray | None) -> Steps:
    """The episodes as the loops read them; `bins` [M] of the rewards, None: they are no evidence."""
    m = len(sequences.actions)
    rewards = np.zeros(m) if sequences.rewards is None else sequences.rewards
    return Steps(
        actions=sequences.actions,
        observations=sequences.observations,
        bins=np.zeros(m, np.int32) if bins is None else np.ascontiguousarray(bins, np.int32),
        rewards=rewards,
        offsets=sequences.offsets,
        ended=sequences.ended,
        firsts=sequences.firsts,
        longest=longest or 0,
    )


def tables_of(model: LearntModel, *, rewards: bool = True) -> Tables:
    """The parameters as the loops read them. Without `rewards`, all are in one bin of probability 1."""
    S, A, _ = model.shape
    if rewards and model.pay is not None:
        bins = _writable(model.pay.bins.swapaxes(2, 3))
    else:
        bins = np.ones((3, A, 1, S))
    return Tables(
        start=model.start.copy(),
        firsts=_writable(model.firsts.T),
        transitions=np.empty((A, 0, 0)) if model.stays else model.transitions.copy(),
        emissions=_writable(model.emissions.swapaxes(1, 2)),
        ends=model.ends.copy(),
        lasts=_writable(model.lasts.swapaxes(2, 3)),
        bins=bins,
    )


def _writable(array: np.ndarray) -> np.ndarray:
    """A copy by rows: a kernel is compiled anew for arrays that are laid out otherwise, or read-only."""
    return np.array(array, order="C")


def model_of(
    tables: Tables, longest: int | None, pay: Pay | None, tried: np.ndarray | None = None
) -> LearntModel:
    """The model of tables; `pay` comes with its own bins."""
    A, S = tables.ends.shape
    stays = not tables.transitions.size
    return LearntModel(
        start=tables.start,
        firsts=tables.firsts.T,
        transitions=np.broadcast_to(np.eye(S), (A, S, S)) if stays else tables.transitions,
        emissions=tables.emissions.swapaxes(1, 2),
        ends=tables.ends,
        lasts=tables.lasts.swapaxes(2, 3),
        longest=longest,
        pay=pay,
        tried=tried,
    )


def log_likelihoods(model: LearntModel, sequences: Sequences, *, rewards: bool = False) -> np.ndarray:
    """[N], see `LearntModel.log_likelihoods`. ValueError for symbols that the model does not have."""
    _, A, O = model.shape
    F = model.firsts.shape[1]
    asked = (sequences.action_symbols, sequences.observation_symbols, sequences.first_symbols)
    if asked[0] > A or asked[1] > O or asked[2] > F:
        raise ValueError(
            f"sequences of {asked[0]} actions, {asked[1]} observations and {asked[2]} first observations; "
            f"expected at most the model's {A}, {O} and {F}"
        )
    if rewards and (model.pay is None or sequences.rewards is None):
        raise ValueError("rewards cannot be explained; expected sequences and a model that have rewards")
    bins = None
    if rewards and model.pay is not None and sequences.rewards is not None:
        bins = model.pay.bins_of(sequences)
    steps = steps_of(sequences, model.longest, bins)
    found = np.empty(len(sequences))
    if len(found):
        score(steps, tables_of(model, rewards=rewards), 0, len(found), found)
    if model.longest is not None:
        found[sequences.lengths > model.longest] = -np.inf
    return found


def expected(
    steps: Steps, tables: Tables, progress: Callable[[int], None] | None = None
) -> tuple[Counts, np.ndarray]:
    """(expected counts, ln P of each episode [N]); `progress(episodes read)` is called now and then."""
    counts = no_counts(tables, steps.longest)
    n = len(steps.ended)
    likelihoods = np.empty(n)
    for first in range(0, n, CHUNK):
        last = min(n, first + CHUNK)
        expect(steps, tables, first, last, counts, likelihoods)
        if progress is not None:
            progress(last)
    counts.transitions[...] *= tables.transitions
    return counts, likelihoods


def no_counts(tables: Tables, longest: int) -> Counts:
    """Zeros."""
    A, S = tables.ends.shape
    by_time = (2, A, S, max(1, longest))
    return Counts(
        firsts=np.zeros_like(tables.firsts),
        transitions=np.zeros_like(tables.transitions),
        emissions=np.zeros_like(tables.emissions),
        lasts=np.zeros_like(tables.lasts),
        bins=np.zeros_like(tables.bins),
        paid=np.zeros((3, A, S)),
        late=np.zeros(by_time),
        late_paid=np.zeros(by_time),
    )


def maximised(counts: Counts, prior: Tables, before: Tables) -> Tables:
    """The parameters of largest expected (penalised) likelihood; a row without any count stays as it was.

    `prior` holds imagined counts in the shape of the tables; its `ends` is the pair of counts [A, S, 2] of
    ending and of going on.
    """
    starts = counts.firsts.sum(0)
    gone, ended = counts.bins[0].sum(1), counts.bins[1].sum(1)  # [A, S]
    stopped = counts.bins[2].sum(1)  # would have gone on, but for the clock
    hazard = np.stack([ended, gone + stopped], -1) + prior.ends
    old = np.stack([before.ends, 1 - before.ends], -1)
    return Tables(
        start=_rows(starts + prior.start, before.start, 0),
        firsts=_rows(counts.firsts + prior.firsts, before.firsts, 0),
        transitions=_rows(counts.transitions + prior.transitions, before.transitions, 2),
        emissions=_rows(counts.emissions + prior.emissions, before.emissions, 1),
        ends=np.ascontiguousarray(_rows(hazard, old, 2)[..., 0]),
        lasts=_rows(counts.lasts + prior.lasts, before.lasts, 2),
        bins=_rows(counts.bins + prior.bins, before.bins, 2),
    )


def log_prior(prior: Tables, tables: Tables) -> float:
    """Sum of imagined counts times ln P: what is added to the log-likelihood, in nats."""
    pairs = [(getattr(prior, f), getattr(tables, f)) for f in Tables._fields if f != "ends"]
    pairs.append((prior.ends, np.stack([tables.ends, 1 - tables.ends], -1)))
    total = 0.0
    for imagined, p in pairs:
        real = imagined > 0
        if real.any():
            with np.errstate(divide="ignore"):
                total += float((imagined[real] * np.log(p[real])).sum())
    return total


def _rows(counts: np.ndarray, before: np.ndarray, axis: int) -> np.ndarray:
    """`counts` divided by their sums along `axis`; `before` where the sum is 0."""
    sums = counts.sum(axis, keepdims=True)
    return np.where(sums > 0, counts / np.where(sums > 0, sums, 1.0), before)
