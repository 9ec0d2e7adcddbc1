"""What predicts the next answer without a hidden state, to be set beside a model that has one.

All of them say P(o, whether the episode goes on | context, a) for the same held-out episodes, so that their
log-likelihoods differ in the context alone:

    one step   the last answer (what the first observation was, before there is one)
    n-gram     the last n answers and the acts between them, backed off to shorter contexts

The first observation is predicted by how often it occurs. `one_step` is the model that believes in impossible
futures: it forgets what it was told two turns ago.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

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
        _, context = np.unique(both, axis=0, return_inverse=True)
        context = context.ravel()
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


def n_gram_futures(
    learnt: Sequences, asked: Sequences, actions: Sequence[int] | np.ndarray, n: int = 1
) -> np.ndarray:
    """[N, O^K], P(the next K answers | an episode so far, K fixed `actions`) by the last n answers.

    For episodes that go on: ends among what was learnt are left out.
    """
    O = learnt.observation_symbols
    recent = _recent(asked, n)  # [N, 2n], of the moment after the last step
    tables = [_table(learnt, length) for length in range(n + 1)]
    paths = np.zeros((len(asked), 1, 0), np.int64)
    chances = np.ones((len(asked), 1))
    for a in actions:
        N, P, _ = paths.shape
        context = np.concatenate([np.repeat(recent[:, None], P, 1), paths], 2).reshape(N * P, -1)
        rows = _row(tables, context, int(a), n, O)  # [N P, O]
        chances = (chances.reshape(-1, 1) * rows).reshape(N, P * O)
        pairs = np.stack([np.full(O, a), np.arange(O)], 1)
        paths = np.concatenate(
            [np.repeat(paths, O, 1), np.broadcast_to(np.tile(pairs, (P, 1)), (N, P * O, 2))], 2
        )
    return chances


def _contexts(s: Sequences, length: int) -> np.ndarray:
    """[M, 1 + 2 length], the act of each step and the (act, answer) before it; -1 where nothing was.

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


def _table(learnt: Sequences, length: int) -> dict[tuple[int, ...], np.ndarray]:
    """For each context of so many answers the counts [O] of what followed it and went on."""
    outcome = _outcomes(learnt)
    on = outcome < learnt.observation_symbols
    context, seen = _contexts(learnt, length)[on], outcome[on]
    unique, inverse = np.unique(context, axis=0, return_inverse=True)
    counts = np.zeros((len(unique), learnt.observation_symbols))
    np.add.at(counts, (inverse.ravel(), seen), 1)
    return {tuple(c): row for c, row in zip(unique.tolist(), counts, strict=True)}


def _row(
    tables: Sequence[dict[tuple[int, ...], np.ndarray]], context: np.ndarray, a: int, n: int, O: int
) -> np.ndarray:
    """[rows, O], P(next answer | context, act `a`), backed off as in `n_gram`."""
    unique, inverse = np.unique(context[:, -2 * n :], axis=0, return_inverse=True)
    found = np.empty((len(unique), O))
    for i, pairs in enumerate(unique.tolist()):
        chance = np.full(O, 1 / O)
        for length, table in enumerate(tables):
            key = [a]
            for back in range(1, length + 1):
                key.append(pairs[-2 * back + 1])
                if back < length:
                    key.append(pairs[-2 * back])
            counts = table.get(tuple(key))
            if counts is not None:
                chance = (counts + BACKOFF * chance) / (counts.sum() + BACKOFF)
        found[i] = chance
    return found[inverse.ravel()]


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
