"""Values of histories under the target, from logs in which another policy chose: for acts that are no list.

At each decision k (or stage), from the last one back to the first, with h a key of the history, rho the
ratio of the one decision and m the `prior`:

    y_k    = r_k + g V(h_{k+1})
    V_k(h) = mean of y_k over logs with h, weighed by rho_k, drawn towards V_k(parent of h) as if m
             conversations said that

Nothing has to be known of acts but their ratios, so it serves where a reply is one of astronomically many and
fitted Q evaluation would have to draw them. An estimate corrects Q(h, a) = V(h): that is right for every V,
since its mean over the target's acts is V again, and whatever the reply itself tells is left to the weights.
Weights of one decision do not grow with the length of a conversation. (Per-decision weighting with one
step of bootstrap: Precup et al. 2000; weighted as in Mahmood et al. 2014, arXiv:1406.2751.)

Two conversations of one turn with rewards 1 and 3, ratios 1 and 3, one key, m = 0: V = (1 + 9) / 4 = 2.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnwise.evaluation.estimates.logged import Logged

PRIOR = 10.0
"""conversations as many as which a shorter history counts"""


def fitted_v(
    keys: Sequence[np.ndarray],
    logged: Logged,
    fold: np.ndarray,
    *,
    stage: np.ndarray | None = None,
    prior: float = PRIOR,
) -> np.ndarray:
    """V [B, A] of every logged history, in the units of the rewards; 0 behind the end.

    `keys` [B, A] int name histories, the longest first, and nest (equal long keys have equal shorter ones).
    `stage` [B, A] int grows along a conversation; histories are alike only if theirs is the same. It is the
    number of the decision if it is None: of tokens, of which earlier messages have more or fewer, it is the
    message and the place in it. `fold` [B]: each part is valued by the others, or by itself if there is but
    one. A conversation that was cut counts as one that ended there, as its return does.
    """
    v = np.zeros(logged.mask.shape)
    ratios = np.exp(np.minimum(logged.logp - logged.behavior_logp, 50.0))  # [B, A], of one decision each
    number = np.tile(np.arange(logged.mask.shape[1]), (len(v), 1)) if stage is None else stage
    episode, decision = np.nonzero(logged.mask)
    order = np.argsort(number[episode, decision], kind="stable")
    episode, decision = episode[order], decision[order]
    begins = np.flatnonzero(np.diff(number[episode, decision], prepend=-1))
    stages = list(zip(np.split(episode, begins[1:]), np.split(decision, begins[1:]), strict=True))
    for part in np.unique(fold):
        here = fold == part
        learnt = here if here.all() else ~here
        v[here] = _values(keys, logged, ratios, learnt, stages, prior)[here]
    return v


def _values(
    keys: Sequence[np.ndarray],
    logged: Logged,
    ratios: np.ndarray,
    learnt: np.ndarray,
    stages: Sequence[tuple[np.ndarray, np.ndarray]],
    prior: float,
) -> np.ndarray:
    """[B, A], all conversations valued by those that are `learnt` [B]; (episode, decision) of each stage."""
    v, after = np.zeros(logged.mask.shape), np.zeros(len(logged.mask))
    for b, k in reversed(stages):
        some = learnt[b]
        from_, at = b[some], k[some]
        y = logged.rewards[from_, at] + logged.discount * after[from_]
        w = ratios[from_, at]
        found = np.full(len(b), _mean(np.zeros(len(y), int), w, y, np.zeros(1), 0.0)[0] if len(y) else 0.0)
        for level in reversed(keys):
            if not len(y):
                break
            names, first, cell = np.unique(level[from_, at], return_index=True, return_inverse=True)
            means = _mean(cell, w, y, found[some][first], prior)
            place = np.searchsorted(names, level[b, k]).clip(max=len(names) - 1)
            found = np.where(names[place] == level[b, k], means[place], found)
        v[b, k] = after[b] = found
    return v


def _mean(cell: np.ndarray, w: np.ndarray, y: np.ndarray, parent: np.ndarray, prior: float) -> np.ndarray:
    """[N], weighted means by cell, drawn towards `parent` [N]; that itself where nothing has weight.

    A cell counts as many conversations as its weights are worth, (sum w)^2 / sum w^2.
    """
    N = len(parent)
    total, squares = np.bincount(cell, w, N), np.bincount(cell, w**2, N)
    some = total > 0
    mean = np.where(some, np.bincount(cell, w * y, N) / np.where(some, total, 1.0), parent)
    worth = np.where(some, total**2 / np.where(some, squares, 1.0), 0.0)
    share = np.where(some, worth / np.where(some, worth + prior, 1.0), 0.0)
    return parent + share * (mean - parent)
