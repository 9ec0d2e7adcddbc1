"""Vectors of a function of texts: what all sentences have in common is taken out, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from turnwise.data.acts.spaces import FEWEST, Embedded
from turnwise.run.errors import InputError

N, D = 400, 100
RNG = np.random.default_rng(0)
MEANT = RNG.integers(4, size=N)
LENGTH = RNG.standard_normal(N) * 5
AXES = np.linalg.qr(RNG.standard_normal((D, D)))[0]


def embed(texts):
    """A large constant, a part that goes with length along one axis, and a smaller one for the meaning."""
    i = np.array([int(t) for t in texts])
    noise = np.random.default_rng(1).standard_normal((N, D))[i] * 0.1
    return 20 * AXES[0] + LENGTH[i, None] * AXES[1] + 2 * AXES[2 + MEANT[i]] + noise


TEXTS = [str(i) for i in range(N)]


def test_what_sentences_share_no_longer_hides_what_they_mean():
    """Length, along which they differ most, goes; meaning is what is near."""
    space = Embedded.learn(embed, TEXTS)
    assert space.common.shape == (1, D)
    np.testing.assert_allclose(space.common @ space.common.T, np.eye(1), atol=1e-5)
    assert abs(space.common[0] @ AXES[1]) > 0.99
    found = space.vectors(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found @ space.common.T, 0, atol=1e-5)
    raw = embed(TEXTS) / np.linalg.norm(embed(TEXTS), axis=1, keepdims=True)
    same = (MEANT[:, None] == MEANT) & ~np.eye(N, dtype=bool)
    other = MEANT[:, None] != MEANT
    gaps = [(x @ x.T)[same].mean() - (x @ x.T)[other].mean() for x in (raw, found)]
    assert gaps[0] < 0.05 < 0.5 < gaps[1]


@pytest.mark.parametrize("n", [1, FEWEST - 1, FEWEST])
def test_a_few_sentences_tell_no_direction(n):
    assert len(Embedded.learn(embed, TEXTS[:n]).common) == (n >= FEWEST)
    assert np.isfinite(Embedded.learn(embed, TEXTS[:n]).vectors(TEXTS[:60])).all()


def test_what_is_no_vector_is_refused():
    space = Embedded.learn(embed, TEXTS)
    assert space.vectors([]).shape == (0, D)
    with pytest.raises(InputError, match="gave 3 numbers a text; expected 100, as before"):
        Embedded(lambda texts: np.ones((len(texts), 3)), space.mean, space.common).vectors(["a"])
    with pytest.raises(InputError, match=r"shape \[2\] for 1 texts; expected finite numbers"):
        Embedded.learn(lambda texts: np.ones(2), ["a"])


def test_a_saved_space_is_the_same(tmp_path: Path):
    from turnwise.data.acts.files import load_codes, save_codes
    from turnwise.data.acts.phrases import PhraseBook, Phrases
    from turnwise.data.acts.slots import Slots
    from turnwise.data.acts.talks import Codes

    space = Embedded.learn(embed, TEXTS, "mine")
    few = Phrases(("1", "2"), np.array([0, 1]), np.array([3, 4]), np.zeros(2))
    book = PhraseBook("discover", ("a", "b"), few, Slots(frozenset()), space, None, 1.0, None, "mine")
    save_codes(Codes(book, book, book), tmp_path / "codes")
    found = load_codes(tmp_path / "codes", embed={"mine": embed}.__getitem__).agent
    np.testing.assert_array_equal(found.space.vectors(TEXTS), space.vectors(TEXTS))
    with pytest.raises(InputError, match=r"acts of the agent are read by vectors of 'mine'; expected what"):
        load_codes(tmp_path / "codes")

    def another(texts):
        return embed([int(text) + 100 for text in texts])

    with pytest.raises(InputError, match="makes others of the same sentences now"):
        load_codes(tmp_path / "codes", embed=lambda name: another)
    (tmp_path / "mine").mkdir()  # beside the codebooks, which have moved with it
    asked = []
    load_codes(tmp_path / "codes", embed=lambda name: (asked.append(name), embed)[1])
    assert set(asked) == {str((tmp_path / "mine").resolve())}

    def gone(name):
        raise InputError("no such folder")

    with pytest.raises(
        InputError, match=r"'mine', which cannot be loaded \(no such folder\); expected its f"
    ):
        load_codes(tmp_path / "codes", embed=gone)
