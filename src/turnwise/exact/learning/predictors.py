"""What predicts the next answer without a hidden state, to be set beside a model that has one.

All of them say P(o, whether the episode goes on | context, a) for the same held-out episodes, so that their
log-likelihoods differ in the context alone:

    one step   the last answer (what the first observation was, before there is one)
    n-gram     the last n answers and the acts between them, backed off to shorter contexts

The first observation is predicted by how often it occurs. `one_step` is the model that believes in impossible
futures: it forgets what it was told two turns ago.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from turnwise.exact.learning.open_loop import joined
from turnwise.exact.learning.sequences import Sequences

BACKOFF = 1.0
"""imagined counts with which a context is pulled towards the next shorter one"""


def one_step(learnt: Sequences, apart: Sequences) -> np.ndarray:
    """[N], ln P of each episode of `apart`, by the last answer and the act."""
    return n_gram(learnt, apart, 1)


def n_gram(learnt: Sequences, apart: Sequences, n: int) -> np.ndarray:
    """[N], ln P of first observations, answers and ends of `apart`, by the last n answers.

    A context of n answers is pulled towards that of n - 1 with `BACKOFF` imagined counts, and so on down to
    the act alone, which is pulled towards all outcomes alike.
    """
    outcomes = 2 * learnt.observation_symbols
    chance = np.full(len(apart.actions), 1 / outcomes)
    for length in range(n + 1):
        # One number for each context, in both parts of the data: the same context is the same number.
        both = np.concatenate([_contexts(learnt, length), _contexts(apart, length)])
        context = _numbered(both)
        seen, asked = context[: len(learnt.actions)], context[len(learnt.actions) :]
        many = np.bincount(seen, minlength=context.max() + 1)
        keys, counts = np.unique(seen * np.int64(outcomes) + _outcomes(learnt), return_counts=True)
        key = asked * np.int64(outcomes) + _outcomes(apart)
        at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        found = np.where(keys[at] == key, counts[at], 0)
        chance = (found + BACKOFF * chance) / (many[asked] + BACKOFF)
    begun = np.bincount(learnt.firsts, minlength=learnt.first_symbols) + 1.0
    firsts = np.log(begun[apart.firsts] / begun.sum())
    return firsts + np.add.reduceat(np.log(chance), apart.offsets[:-1])


def nats_per_symbol(likelihoods: np.ndarray, apart: Sequences) -> tuple[float, float]:
    """(-ln P per symbol of the episodes, its standard error); smaller is better.

    Symbols are the steps; episodes are independent, steps of one are not.
    """
    steps = apart.lengths
    mean = -float(likelihoods.sum()) / float(steps.sum())
    rest = -likelihoods - mean * steps
    return mean, float(rest.std() * np.sqrt(len(steps)) / steps.sum())


@dataclass(frozen=True)
class NGram:
    """What followed each context of up to n answers in logged episodes: counted once, asked often."""

    tables: tuple[dict[tuple[int, ...], np.ndarray], ...]
    """for each length from 0 to n: of each context, as `_contexts` writes it, the counts [2 O] of outcomes"""
    observations: int
    """O"""

    def chances(self, contexts: np.ndarray) -> np.ndarray:
        """[rows, 2 O], P(outcome | context [rows, 2 n]), backed off as in `n_gram`."""
        different = _numbered(contexts)
        first = np.unique(different, return_index=True)[1]
        found = np.empty((len(first), 2 * self.observations))
        for i, context in enumerate(contexts[first].tolist()):
            chance = np.full(2 * self.observations, 1 / (2 * self.observations))
            for length, table in enumerate(self.tables):
                counts = table.get(tuple(context[: max(1, 2 * length)]))
                many = 0.0 if counts is None else counts.sum()
                chance = ((0.0 if counts is None else counts) + BACKOFF * chance) / (many + BACKOFF)
            found[i] = chance
        return found[different]


def counted(learnt: Sequences, n: int) -> NGram:
    """The counts of contexts of 0 to n answers."""
    outcome, outcomes, tables = _outcomes(learnt), 2 * learnt.observation_symbols, []
    for length in range(n + 1):
        contexts = _contexts(learnt, length)
        number = _numbered(contexts)
        first = np.unique(number, return_index=True)[1]
        counts = np.bincount(number * outcomes + outcome, minlength=len(first) * outcomes)
        rows = counts.reshape(len(first), outcomes).astype(np.float64)
        tables.append({tuple(c): row for c, row in zip(contexts[first].tolist(), rows, strict=True)})
    return NGram(tuple(tables), learnt.observation_symbols)


def n_gram_futures(counts: NGram, asked: Sequences, actions: np.ndarray) -> np.ndarray:
    """[N, (O+1)^K], P(the next K symbols | an episode so far, actions [N, K]), by the last n answers.

    Symbols as in `open_loop.futures`: O is that the episode is over.
    """
    O, n, N = counts.observations, len(counts.tables) - 1, len(asked)
    recent = _recent(asked, n)  # [N, 2n], (act, answer) of the last n steps
    alive, over = np.ones((N, 1)), np.zeros((N, 1))
    for k, a in enumerate(actions.T):
        paths = np.arange(alive.shape[1])
        columns = [np.broadcast_to(a[:, None], alive.shape)]
        for back in range(1, n + 1):
            if back <= k:  # seen on the path
                seen = (paths // (O + 1) ** (back - 1) % (O + 1))[None]
                done = actions[:, k - back]
            else:
                done, seen = recent[:, 2 * (n + k - back)], recent[:, 2 * (n + k - back) + 1][:, None]
            columns.append(np.broadcast_to(seen, alive.shape))
            if back < n:
                columns.append(np.broadcast_to(done[:, None], alive.shape))
        contexts = np.stack([c.ravel() for c in columns], 1)
        chance = alive[:, :, None] * counts.chances(contexts).reshape(N, -1, 2 * O)
        over = joined(chance[:, :, O:], over)
        alive = joined(chance[:, :, :O], np.zeros(alive.shape))
    return alive + over


def _numbered(rows: np.ndarray) -> np.ndarray:
    """[M], a number from 0 on for each row of whole numbers, the same for the same row."""
    number = np.zeros(len(rows), np.int64)
    for column in rows.T:  # column by column, so that no product of sizes grows too large to count
        low = column.min(initial=0)
        size = int(column.max(initial=0) - low) + 1
        number = np.unique(number * size + (column - low), return_inverse=True)[1].ravel()
    return number


def _contexts(s: Sequences, length: int) -> np.ndarray:
    """[M, 2 length] (1 for length 0), the act of each step, the answer before it, the act before that, and so
    on to the answer `length` steps back; -1 where nothing was.

    The first observation stands for an answer before the first act.
    """
    m = len(s.actions)
    columns = [s.actions.astype(np.int64)]
    place = np.arange(m) - np.repeat(s.offsets[:-1], s.lengths)
    first = np.repeat(s.firsts, s.lengths).astype(np.int64)
    for back in range(1, length + 1):
        at = np.maximum(np.arange(m) - back, 0)
        there = place >= back
        columns.append(np.where(there, s.observations[at], np.where(place == back - 1, -2 - first, -1)))
        if back < length:  # the last answer is a context whatever was done before it
            columns.append(np.where(there, s.actions[at], -1))
    return np.stack(columns, 1)


def _outcomes(s: Sequences) -> np.ndarray:
    """[M], the answer of each step and whether the episode ended with it, as one number."""
    over = np.zeros(len(s.actions), np.int64)
    over[s.offsets[1:] - 1] = s.ended
    return s.observations + over * np.int64(s.observation_symbols)


def _recent(s: Sequences, n: int) -> np.ndarray:
    """[N, 2n], the last n pairs (act, answer) of each episode, oldest first."""
    found = np.full((len(s), 2 * n), -1, np.int64)
    for back in range(1, n + 1):
        at = s.offsets[1:] - back
        there = at >= s.offsets[:-1]
        found[:, 2 * (n - back)] = np.where(there, s.actions[np.maximum(at, 0)], -1)
        answer = np.where(there, s.observations[np.maximum(at, 0)], -1)
        begun = s.lengths == back - 1
        found[:, 2 * (n - back) + 1] = np.where(begun, -2 - s.firsts, answer)
    return found


def prefixes(sequences: Sequences, rng: np.random.Generator, many: int) -> Sequences:
    """Beginnings of episodes that went on after them, cut at a random step. ValueError if none did."""
    lengths = sequences.lengths
    longer = np.flatnonzero(lengths > 1)
    if not len(longer):
        raise ValueError("no episode has a step after its first; expected longer episodes")
    chosen = rng.choice(longer, many)
    keep = 1 + (rng.random(many) * (lengths[chosen] - 1)).astype(np.int64)
    whole = sequences.select(chosen)
    offsets = np.append(0, np.cumsum(keep))
    steps = np.repeat(whole.offsets[:-1] - offsets[:-1], keep) + np.arange(offsets[-1])
    return replace(
        whole,
        actions=whole.actions[steps],
        observations=whole.observations[steps],
        rewards=None if whole.rewards is None else whole.rewards[steps],
        offsets=offsets,
        ended=np.zeros(many, bool),
    )
