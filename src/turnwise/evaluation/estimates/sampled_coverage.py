"""Coverage of a target whose acts cannot be listed: sentences, drawn at some of the logged decisions.

    c_k = sum_i w_i c_i / sum_i w_i,   w_i = share_k(b_i) / q_k(b_i),   b_i ~ q_k

c_i is 1 if other conversations hold the i-th drawn reply after a like history, and share_k(b) how often the
target comes to the history of conversation b at decision k (its ratio before k, of all). Half of q_k is that
share and half is even over the logs: so one set of draws serves all steps between the logged agent and the
target, with weights of 2 at most at both ends (balance heuristic; Veach & Guibas 1995).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnwise.evaluation.estimates.support import Coverage, Unseen, shares

FEWEST = 10
"""draws at a decision that at least `COUNTED` of the conversations reach"""
COUNTED = 0.05


@dataclass(frozen=True)
class Places:
    """N logged decisions at which the target is let speak; the same one may be among them twice."""

    episode: np.ndarray
    """[N] int"""
    decision: np.ndarray
    """[N] int"""
    density: np.ndarray
    """[N], q_k(b) of the episode at its decision"""

    def __len__(self) -> int:
        return len(self.episode)

    def some(self, kept: np.ndarray) -> Places:
        """Those alone."""
        return Places(self.episode[kept], self.decision[kept], self.density[kept])


def places(mask: np.ndarray, log_ratios: np.ndarray, count: int, rng: np.random.Generator) -> Places:
    """About `count` decisions, shared out as conversations of the target and of the logs reach them.

    `mask` [B, A]; `log_ratios` [B, A] of the target (log rho_{1:k}).
    """
    (even, long), (own, far) = shares(mask, None), shares(mask, log_ratios)
    reached = np.maximum(long, far)  # [A]
    per = np.maximum(
        np.round(count * reached / reached.sum()).astype(int), np.where(reached >= COUNTED, FEWEST, 0)
    )
    episode, decision, density = [], [], []
    for k, n in enumerate(per.tolist()):
        # Where no conversation of the target goes on so long its share is 0, and the logs' is all.
        q = even[:, k] if not own[:, k].any() else (even[:, k] + own[:, k]) / 2
        drawn = rng.choice(len(q), size=n, p=q / q.sum())
        episode.append(drawn)
        decision.append(np.full(n, k))
        density.append(q[drawn])
    return Places(*(np.concatenate(x) for x in (episode, decision, density)))


def sampled_coverage(
    at: Places,
    drawn: np.ndarray,
    acts: np.ndarray,
    histories: np.ndarray,
    mask: np.ndarray,
    *,
    log_ratios: np.ndarray,
    step: float = 1.0,
    clusters: np.ndarray | None = None,
) -> Coverage:
    """The coverage, with the error of its `overall` for lack of draws.

    `drawn` [N] int are the target's acts at the places `at`; `acts` [B, A] int were logged, after
    `histories` [B, A] int (`support.coverage`). `log_ratios` [B, A] are those of the policy that is asked
    for: the target itself, or the `step` from the logged agent to it, which does what was logged otherwise.
    """
    here, anywhere = _Held.of(acts, histories, mask, clusters), _Held.of(acts, 0 * histories, mask, clusters)
    share, running = shares(mask, log_ratios)
    logged = np.stack([here.by_others(*np.nonzero(mask)), anywhere.by_others(*np.nonzero(mask))])  # [2, M]
    _, column = np.nonzero(mask)
    A = mask.shape[1]
    count = np.bincount(column, minlength=A)
    of_logged = np.stack([np.bincount(column, x, A) for x in logged]) / np.where(count, count, np.nan)
    sampled = np.stack([h.by_others(at.episode, at.decision, drawn) for h in (here, anywhere)]).astype(float)
    weight = share[at.episode, at.decision] / at.density  # [N]
    total = np.bincount(at.decision, weight, A)
    with np.errstate(invalid="ignore"):
        target = np.stack([np.bincount(at.decision, weight * x, A) for x in sampled]) / np.where(
            total > 0, total, np.nan
        )
    each = (1 - step) * of_logged + step * target  # [2, A]
    counted = np.where(np.isfinite(each[0]), running, 0.0)
    whole = counted.sum()
    overall = np.nansum(counted * np.where(np.isfinite(each), each, 0.0), axis=1) / whole  # [2]
    part = weight / np.where(total > 0, total, 1.0)[at.decision]
    apart = part * (sampled[0] - np.where(np.isfinite(target[0]), target[0], 0.0)[at.decision])
    error = step * np.sqrt((np.bincount(at.decision, apart**2, A) * counted**2).sum()) / whole
    return Coverage(
        overall=float(overall[0]),
        per_decision=each[0],
        running=running,
        of_logged=float(logged[0].mean()),
        of_logged_per_decision=of_logged[0],
        nowhere=float(1 - overall[1]),
        unseen=_unseen(at, drawn, step * part * (1 - sampled[0]), acts, mask),
        error=float(error),
        of_logged_nowhere=float(1 - logged[1].mean()),
    )


@dataclass(frozen=True)
class _Held:
    """Which acts the clusters of conversations hold after which kinds of history."""

    who: np.ndarray  # [B]
    kinds: np.ndarray  # [B, A]
    acts: np.ndarray  # [B, A]
    size: int  # of acts
    cells: np.ndarray  # sorted: kind x act that some cluster holds
    counts: np.ndarray  # by how many
    pairs: np.ndarray  # sorted: cluster x cell

    @classmethod
    def of(
        cls, acts: np.ndarray, histories: np.ndarray, mask: np.ndarray, clusters: np.ndarray | None
    ) -> _Held:
        who = np.arange(len(mask)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
        names, kinds = np.unique(np.where(mask, histories, histories[mask][0]), return_inverse=True)
        kinds = kinds.reshape(mask.shape).astype(np.int64)
        size = int(acts[mask].max()) + 1
        span = len(names) * size
        cell = kinds * size + np.where(mask, acts, 0)
        pairs = np.unique((who[:, None] * span + cell)[mask])
        cells, counts = np.unique(pairs % span, return_counts=True)
        return cls(who, kinds, acts, size, cells, counts, pairs)

    def by_others(self, episode: np.ndarray, decision: np.ndarray, acts: np.ndarray | None = None):
        """Whether other clusters hold the act (as logged, if None) after the history there."""
        done = self.acts[episode, decision] if acts is None else acts
        known = done < self.size  # what was never logged has a number beyond
        cell = self.kinds[episode, decision] * self.size + np.where(known, done, 0)
        place = np.searchsorted(self.cells, cell).clip(max=len(self.cells) - 1)
        count = np.where(self.cells[place] == cell, self.counts[place], 0)
        span = (int(self.kinds.max()) + 1) * self.size
        own = np.isin(self.who[episode] * span + cell, self.pairs)
        return known & (count - own >= 1)


def _unseen(
    at: Places, drawn: np.ndarray, missing: np.ndarray, acts: np.ndarray, mask: np.ndarray
) -> tuple[Unseen, ...]:
    """What is missing, by decision and act, the most first."""
    gone = missing > 0
    if not gone.any():
        return ()
    pairs, where = np.unique(np.stack([at.decision[gone], drawn[gone]]), axis=1, return_inverse=True)
    mass = np.bincount(where.ravel(), missing[gone])
    found = [
        Unseen(k, a, m, int((acts[mask[:, k], k] == a).sum()))
        for k, a, m in zip(*pairs.tolist(), mass.tolist(), strict=True)
    ]
    return tuple(sorted(found, key=lambda u: -u.mass))
