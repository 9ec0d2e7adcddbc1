"""How much of what a conversation earns its acts foretell, held out: by what one reading of it beats another.

    earned from turn k on ~ act k, crossed with the answers before it (each once or more, and the last one)

A ridge regression on one half of the conversations foretells the other half. What is foretold is the same
whatever the acts are and however many, so that two readings of the same conversations can be compared. It
is what a plan needs of acts: which of them pays after which answers. Words that came with the pay, such as
thanks at the end, are not asked.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.linear_model import Ridge

from turnwise.data.acts.corpus import Corpus, one_hot, times

PENALTY = 10.0
"""on squared weights, as if ten turns in each column had foretold nothing"""
OFTEN = 2
"""times that an answer counts, at most"""


def foretold(corpus: Corpus, a: np.ndarray, o: np.ndarray) -> float | None:
    """R2 of the return from each turn on, held out, by acts `a` [N] and answers `o` [N] (0 is silence).

    None if nobody rated the conversations, or all earned the same.
    """
    if corpus.earned is None or np.ptp(corpus.earned) == 0 or corpus.half.all():
        return None
    acts, answers = one_hot(a, int(a.max()) + 1), one_hot(o, int(o.max()) + 1)[:, 1:]
    earlier, _ = corpus.earlier_and_later(answers)
    known = [np.ones((len(a), 1), np.float32), np.minimum(earlier, OFTEN), corpus.before(answers)]
    x = times(sparse.hstack([sparse.csr_matrix(part) for part in known]), acts).tocsr()
    y = np.asarray(corpus.earned, np.float64)
    missed = wrong = 0.0
    for train in (corpus.half, ~corpus.half):
        found = Ridge(PENALTY, solver="lsqr").fit(x[train], y[train]).predict(x[~train])
        missed += float(((y[~train] - found) ** 2).sum())
        wrong += float(((y[~train] - y[train].mean()) ** 2).sum())
    return 1 - missed / wrong
