"""What stands around an utterance: the contexts by which sentences are told apart.

Each is a matrix with a row for each turn: what was answered, what was said before and after, what the
conversation earned, in the acts that are known so far and in main directions of the texts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from turnwise.data.acts.corpus import Corpus, frequent, one_hot, times

GIST = 30
"""main directions of neighbouring texts that are a context"""
CROSSED = 12
"""acts, at most, that are crossed with a neighbouring text"""


class Gists(NamedTuple):
    """What is said around a turn, [N, GIST] each, in main directions: contexts beside the acts."""

    said: sparse.csr_matrix
    heard: sparse.csr_matrix | None
    begun: sparse.csr_matrix


def _pairs(corpus: Corpus, a: np.ndarray, o: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """What was said and answered, as one symbol a turn; such of the turns before, and of those after."""
    size = int(o.max()) + 1
    pairs = frequent(one_hot(a * size + o, (int(a.max()) + 1) * size))
    return pairs, *corpus.earlier_and_later(pairs)


def around_agent(
    corpus: Corpus, a: np.ndarray, o: np.ndarray, heard: Any = None, begun: Any = None
) -> dict[str, sparse.csr_matrix]:
    """Contexts [N, G] of the agent's messages."""
    answers, pay = one_hot(o, int(o.max()) + 1), one_hot(corpus.bins, int(corpus.bins.max()) + 1)
    pairs, earlier, _ = _pairs(corpus, a, o)
    before = sparse.hstack([earlier, corpus.before(pairs)])
    found = {
        "next": sparse.hstack([answers, pay, *([] if heard is None else [heard])]),
        "before": before,
        "pay": times(before, pay),
    }
    few = int(o.max()) < CROSSED
    if few:
        found["pairs"] = times(corpus.before(pairs), answers)
    if heard is not None:
        found["heard"] = corpus.before(times(heard, answers) if few else heard)
    if begun is not None:
        found["known"] = sparse.hstack([begun, times(begun, pay)])
    return {name: sparse.csr_matrix(x) for name, x in found.items()}


def around_partner(
    corpus: Corpus, a: np.ndarray, o: np.ndarray, said: Any = None, begun: Any = None
) -> dict[str, sparse.csr_matrix]:
    """Contexts [N, G] of the answers."""
    size = int(a.max()) + 1
    after = np.where(corpus.last, size, a[np.minimum(np.arange(len(a)) + 1, len(a) - 1)])
    acts, then = one_hot(a, size), one_hot(after, size + 1)
    pay = one_hot(corpus.bins, int(corpus.bins.max()) + 1)
    _, earlier, later = _pairs(corpus, a, o)
    found = {
        "before": sparse.hstack([earlier, acts]),
        "after": sparse.hstack([later, then]),
        "pay": sparse.hstack([pay, times(then, pay), times(earlier + later, pay)]),
    }
    if said is not None:
        gist = corpus.after(said)
        found["said"] = times(gist, then) if size < CROSSED else gist
    if begun is not None:
        found["known"] = sparse.hstack([begun, times(begun, pay)])
    return {name: sparse.csr_matrix(x) for name, x in found.items()}
