"""Two warnings, measured on logs: what words still tell where the model counts them as the same.

    wording   does the agent's wording predict the next answer, given belief and act?
    dropped   does the partner's wording predict what the logged agent did next, given the belief?

Two logistic regressions predict the same thing on conversations that they were not fitted to. Both know what
the model knows; one also reads the words, and the other one reads the words of another message with the same
act. What the first predicts better, in nats, is what the act leaves out: both have as many features, so that
neither gains from their number. It is a lower bound: other words, or a better reader, may tell more.

If the first warning applies, acts are too coarse. If the second does, the logged agent acted on something
that the model does not see, and what followed its acts may be due to that (confounding).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from turnwise.data.acts.talks import ActLogs, Turns, cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.evaluation.measures.intervals import widened
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.evaluation.measures.playbook.schema import Figure, Warned

DECISIONS = 3000
"""decisions of the agent that are read, in conversations drawn at random"""
FEATURES = 200
"""words and pairs of words, the most frequent ones"""
FEWEST = 10
"""what is predicted is one of those that occur so often, or the rest"""
LEAST = 40
"""conversations below which nothing is measured"""
RESAMPLES = 500


def measure_overlooked(
    plan: Plan, logs: ActLogs, dialogues: Sequence[Dialogue], rng: np.random.Generator
) -> list[Warned]:
    """Both warnings; none if there are too few conversations. `dialogues` are those of `logs`, in order."""
    order = rng.permutation(len(logs))
    sizes = np.cumsum([len(logs[i]) for i in order])
    chosen = order[: int(np.searchsorted(sizes, DECISIONS)) + 1]
    if len(chosen) < LEAST:
        return []
    talks = [logs[i] for i in chosen]
    cut = [cut_turns(dialogues[i].messages, dialogues[i].agent_role) for i in chosen]
    beliefs, _ = plan.follow(talks)
    group = np.repeat(np.arange(len(talks)), [len(t) for t in talks])
    times = np.concatenate([np.arange(len(t)) for t in talks])
    acts, answers = (np.concatenate([getattr(t, name) for t in talks]) for name in ("acts", "answers"))
    firsts = np.array([t.first for t in talks])[group]
    before = np.concatenate([b[:-1] for b in beliefs])  # [M, S], where each decision was taken
    told = np.log(np.clip(plan.model.predict(before, acts, times), 1e-6, 1))
    heard = answers > 0
    said = [u.text for t in cut for u in t.said]
    wording = _gain(
        np.hstack([told, _one_hot(acts, len(logs.acts))])[heard],
        [text for text, here in zip(said, heard, strict=True) if here],
        acts[heard],
        answers[heard],
        group[heard],
        rng,
    )
    # What was read last: an answer, or the opening before the first act.
    last = np.where(times > 0, np.roll(answers, 1), len(logs.answers) + firsts)
    symbols = len(logs.answers) + len(logs.openings)
    dropped = _gain(
        np.hstack([before, np.minimum(times, 20)[:, None] / 20, _one_hot(last, symbols)]),
        _read_last(cut),
        last,
        acts,
        group,
        rng,
    )
    found: list[Warned] = []
    if wording is not None:
        found.append({"kind": "wording", "gain": wording})
    if dropped is not None:
        found.append({"kind": "dropped", "gain": dropped, "note": "by the words of the message before it"})
    return found


def _read_last(cut: Sequence[Turns]) -> list[str]:
    """What was said before each decision of each talk."""
    texts = []
    for turns in cut:
        before = [turns.opening, *turns.heard[:-1]]
        texts += ["" if u is None else u.text for u in before]
    return texts


def _one_hot(symbols: np.ndarray, size: int) -> np.ndarray:
    return np.eye(size)[symbols]


def _gain(
    known: np.ndarray,
    texts: Sequence[str],
    same: np.ndarray,
    targets: np.ndarray,
    group: np.ndarray,
    rng: np.random.Generator,
) -> Figure | None:
    """Nats per target by which `texts` improve its prediction, over texts of others that are the `same` [M].

    `known` [M, D] are the features of both. `group` [M] is the conversation: its halves predict each other,
    and the interval is over conversations. None if nothing varies.
    """
    common, where, count = np.unique(targets, return_inverse=True, return_counts=True)
    labels = np.where(count[where] >= FEWEST, where, len(common))
    if len(np.unique(labels)) < 2:
        return None
    others = _exchanged(texts, same, rng)
    if list(others) == list(texts):
        return {"mean": 0.0, "low": 0.0, "high": 0.0, "n": len(texts)}
    half = rng.permutation(group.max() + 1)[group] % 2
    gains = np.zeros(len(labels))
    for side in (0, 1):
        train, test = np.flatnonzero(half != side), np.flatnonzero(half == side)
        if len(np.unique(labels[train])) < 2 or not len(test):
            return None
        reader = TfidfVectorizer(ngram_range=(1, 2), max_features=FEATURES, token_pattern=r"\S+")
        reader.fit([words[i] for words in (texts, others) for i in train.tolist()])
        ours, theirs = (
            _nats(known, reader.transform(words), labels, train, test) for words in (texts, others)
        )
        gains[test] = theirs - ours
    return _over_conversations(gains, group, rng)


def _exchanged(texts: Sequence[str], same: np.ndarray, rng: np.random.Generator) -> list[str]:
    """The texts, dealt out anew among those that are the same."""
    found = list(texts)
    for symbol in np.unique(same):
        here = np.flatnonzero(same == symbol)
        for i, j in zip(here.tolist(), rng.permutation(here), strict=True):
            found[i] = texts[int(j)]
    return found


def _nats(known: np.ndarray, words: Any, labels: np.ndarray, train: np.ndarray, test: np.ndarray):
    """[len(test)], -ln of the probability of each label; a label that was never trained on has the least."""
    features = sparse.csr_matrix(sparse.hstack([sparse.csr_matrix(known), words]))
    model = LogisticRegression(max_iter=60, tol=1e-3)
    with warnings.catch_warnings():
        # A few more steps would change little: both regressions stop as early.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features[train], labels[train])
    p = model.predict_proba(features[test])
    place = np.searchsorted(model.classes_, labels[test]).clip(max=len(model.classes_) - 1)
    seen = model.classes_[place] == labels[test]
    chosen = np.where(seen, p[np.arange(len(test)), place], p.min())
    return -np.log(np.clip(chosen, 1e-12, 1))


def _over_conversations(gains: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> Figure:
    """The mean gain with its bootstrap interval: whole conversations are drawn."""
    _, which = np.unique(group, return_inverse=True)
    sums, sizes = np.bincount(which, gains), np.bincount(which)
    n = len(sums)
    draws = rng.integers(0, n, size=(RESAMPLES, n))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    mean = float(sums.sum() / sizes.sum())
    low, high = widened(np.quantile(means, [0.025, 0.975]), mean, n)
    return {"mean": mean, "low": low, "high": high, "n": len(gains)}
