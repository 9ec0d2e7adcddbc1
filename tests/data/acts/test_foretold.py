"""What acts foretell of the return: the same number for the same meanings, less for worse ones."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.corpus import Corpus
from turnwise.data.acts.foretold import foretold

NOTHING = Utterance("")


def talks(n: int, seed: int, rated: bool = True) -> tuple[Corpus, np.ndarray, np.ndarray]:
    """A question (act 0) and its answer (1 or 2), then act 1 or 2, which is paid 1 if it is the answer."""
    rng = np.random.default_rng(seed)
    a, o = np.zeros((n, 2), np.int64), np.zeros((n, 2), np.int64)
    o[:, 0], a[:, 1] = rng.integers(1, 3, n), rng.integers(1, 3, n)
    earned = np.repeat((o[:, 0] == a[:, 1]).astype(np.float64), 2) if rated else None
    said = [NOTHING] * (2 * n)
    return Corpus(said, said, [NOTHING] * n, np.repeat(np.arange(n), 2), earned), a.ravel(), o.ravel()


def test_second_turns_are_foretold_and_first_ones_cannot_be() -> None:
    """The variance of the return is 1/4 in both turns; all of it is foretold in one of the two: R2 = 1/2."""
    corpus, a, o = talks(1000, 0)
    told = foretold(corpus, a, o)
    assert told == pytest.approx(0.5, abs=0.03)
    # Without the answer, or without the act, a half is as likely as the other.
    assert foretold(corpus, a, np.minimum(o, 1)) == pytest.approx(0, abs=0.03)
    assert foretold(corpus, np.minimum(a, 1), o) == pytest.approx(0, abs=0.03)


def test_names_do_not_count_and_needless_acts_gain_nothing() -> None:
    corpus, a, o = talks(1000, 1)
    told = foretold(corpus, a, o)
    assert told is not None
    assert foretold(corpus, np.array([2, 0, 1])[a], np.array([0, 2, 1])[o]) == pytest.approx(told, abs=1e-6)
    fine = foretold(corpus, 2 * a + np.random.default_rng(2).integers(2, size=len(a)), o)
    assert fine is not None and fine <= told
    # A quarter of the answers misread: right with 3/4, so what is foretold falls to (2 x 3/4 - 1)^2 of it.
    heard = np.where((o > 0) & (np.random.default_rng(3).random(len(o)) < 0.25), 3 - o, o)
    assert foretold(corpus, a, heard) == pytest.approx(0.25 * 0.5, abs=0.05)


def test_nothing_is_foretold_of_conversations_that_nobody_rated() -> None:
    corpus, a, o = talks(10, 0, rated=False)
    assert foretold(corpus, a, o) is None
