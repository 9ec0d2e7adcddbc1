"""Words and what stands around them agree on acts, held out; features are taken where they tell more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from scipy import sparse

from turnwise.data.acts import agreement
from turnwise.data.acts.agreement import agreed, rises
from turnwise.data.acts.build import build_codes
from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.files import load_codes, save_codes
from turnwise.data.acts.spaces import Beside, Embedded, Words
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

WAYS, THINGS = 8, 25


def said(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sentences of two acts in one of eight ways each, [M, D]; their acts; the sentence of each utterance,
    said once to three times; and a coin beside each that is right about its act nine times in ten."""
    rng = np.random.default_rng(seed)
    cells = [(a, w, t) for a in range(2) for w in range(WAYS) for t in range(THINGS)]
    x = np.zeros((len(cells), 2 * WAYS + THINGS))
    for i, (a, w, t) in enumerate(cells):
        x[i, [a * WAYS + w, 2 * WAYS + t]] = 0.7
    acts = np.array([a for a, _, _ in cells])
    which = np.repeat(np.arange(len(cells)), rng.integers(1, 4, len(cells)))
    rng.shuffle(which)
    return x, acts, which, np.where(rng.random(len(which)) < 0.9, acts[which], 1 - acts[which])


def coin(y: np.ndarray) -> dict[str, sparse.csr_matrix]:
    return {"next": sparse.csr_matrix(np.eye(2, dtype=np.float32)[y])}


@pytest.mark.parametrize("penalty", ["strong", "weak"])
def test_ways_that_were_misread_are_read_as_what_stands_around_them_says(
    penalty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if penalty == "weak":  # one column that tells much needs none
        monkeypatch.setattr(agreement, "AROUND", 1.0)
    x, acts, which, y = said()
    half = np.random.default_rng(1).random(len(which)) < 0.5
    wrong = acts.copy()
    wrong[x[:, 0] > 0] = 1  # one way of the first act, and one of the second
    wrong[x[:, WAYS] > 0] = 0
    assert (wrong == acts).mean() == 1 - 1 / WAYS
    found = agreed(sparse.csr_matrix(x), coin(y), which, half, wrong, 0)
    assert found is not None and (found.acts == acts).mean() == 1
    # What a coin that is right in .9 tells of an act: ln 2 - H(.9) nats. A penalty believes less of it.
    tells = np.log(2) + 0.9 * np.log(0.9) + 0.1 * np.log(0.1)
    assert found.before < found.told.mean() < tells + 0.04
    assert penalty == "strong" or found.told.mean() == pytest.approx(tells, abs=0.04)
    np.testing.assert_allclose(found.chances.sum(1), 1)


def test_acts_that_are_right_stay_and_dense_vectors_are_read_like_sparse_ones() -> None:
    x, acts, which, y = said(2)
    half = np.arange(len(which)) % 2 == 0
    found = [agreed(v, coin(y), which, half, acts, 0) for v in (sparse.csr_matrix(x), x)]
    for one in found:
        assert one is not None and (one.acts == acts).mean() > 0.99
    np.testing.assert_allclose(found[0].told, found[1].told, atol=0.02)  # pyright: ignore
    # Of two beliefs to begin with, the one by which more is told is gone on with.
    wrong = np.random.default_rng(3).integers(2, size=len(acts))
    better = agreed(x, coin(y), which, half, wrong, 0, np.eye(2)[acts])
    assert better is not None and (better.acts == acts).mean() > 0.99
    assert better.before == pytest.approx(found[1].before, abs=0.01)  # pyright: ignore
    assert agreed(x, coin(y), which, half, np.zeros_like(acts), 0) is None  # one act
    few = which < 250
    assert agreed(x[:250], coin(y[few]), which[few], half[few], acts[:250], 0) is None


def test_what_is_said_often_stays_and_few_sentences_are_left_alone() -> None:
    """Five sentences are said thirty times, and known to be what their words are not: no word moves them."""
    x, acts, which, y = said(4)
    odd = np.flatnonzero((acts == 0) & (x[:, 0] > 0))[:5]
    where = np.concatenate([which, np.repeat(odd, 30)])
    y = np.concatenate([y, np.ones(150, np.int64)])
    half = np.arange(len(where)) % 2 == 0
    begun = acts.copy()
    begun[odd] = 1
    wrong = begun.copy()
    wrong[x[:, WAYS] > 0] = 0
    found = agreed(x, coin(y), where, half, wrong, 0)
    assert found is not None and (found.acts[odd] == 1).all()
    assert (found.acts == begun).mean() > 0.98
    assert agreed(x, coin(np.tile(y, 20)), np.tile(where, 20), np.tile(half, 20), wrong, 0) is None


def test_a_rise_must_be_beyond_the_noise_of_conversations() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=400)
    conversation = np.repeat(np.arange(100), 4)
    assert rises(noise + 0.3, np.zeros(400), conversation)
    assert not rises(np.zeros(400), noise + 0.3, conversation)
    # Four utterances that rise and fall together are one, not four.
    together = np.repeat(rng.normal(size=100) + 0.15, 4)
    assert not rises(together, np.zeros(400), conversation)
    assert rises(rng.permutation(together), np.zeros(400), np.arange(400))


def mood(word: str) -> int:
    """Nonsense words are good or bad by their last letter alone."""
    return int(word[-1:] in tuple("aeiou"))


def made_up(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list("bdgklmnprst"), 6)) + str(rng.choice(list("aeioulmnrs")))


def talks(n: int, seed: int, word: bool) -> list[Dialogue]:
    """The partner is well or not, and says so in a word that nobody knows, or in plain ones."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        messages = []
        for _ in range(3):
            well = int(rng.integers(2))
            messages.append(Message("assistant", "how are you?"))
            while mood(odd := made_up(rng)) != well:
                pass
            plain = f"I am {('bad', 'good')[well]} said {odd}"
            messages.append(Message("user", odd if word else plain))
            right = well if rng.random() < 0.95 else 1 - well
            messages.append(Message("assistant", ("oh no", "I see")[right]))
            messages.append(Message("user", "yes"))
        found.append(Dialogue(tuple(messages), id=str(i), rated_by="nothing"))
    return found


def hears(texts: Sequence[str]) -> np.ndarray:
    """Features that know the last letter, beside much that means nothing."""
    noise = np.stack([np.random.default_rng(crc32(t.encode())).normal(size=12) for t in texts])
    return np.hstack([noise, [[0.9 - 1.8 * mood(t)] for t in texts]])


def guesses(texts: Sequence[str]) -> np.ndarray:
    return hears(texts)[:, :12]


def read(codes, words: list[str]) -> np.ndarray:
    return codes.partner.read([Utterance(w) for w in words]).acts


def test_features_are_taken_where_words_tell_nothing(tmp_path: Path) -> None:
    built = build_codes(talks(200, 0, True), "auto", "discover", embed=hears, embed_name="ears")
    book: Any = built.codes.partner
    assert isinstance(book.space, Beside) and book.space.name == "words and ears"
    rng = np.random.default_rng(5)
    new = [made_up(rng) for _ in range(200)]
    acts = read(built.codes, new)
    kinds = np.zeros((len(book.names), 2))
    np.add.at(kinds, (acts, np.array([mood(w) for w in new])), 1)
    assert kinds.max(1).sum() / len(new) > 0.9
    save_codes(built.codes, tmp_path / "codes")
    loaded = load_codes(tmp_path / "codes", embed=lambda name: {"ears": hears}[name])
    np.testing.assert_array_equal(read(loaded, new), acts)
    with pytest.raises(InputError, match=r"partner are read by vectors of 'ears', which makes others"):
        load_codes(tmp_path / "codes", embed=lambda name: lambda texts: hears(texts)[:, ::-1])


def test_words_stay_where_features_tell_nothing_more() -> None:
    logs = talks(150, 1, False)
    plain = build_codes(logs, "auto", "discover").codes
    built = build_codes(logs, "auto", "discover", embed=guesses, embed_name="guesses").codes
    assert isinstance(getattr(built.partner, "space", None), Words)
    heard = [m.content for d in talks(40, 2, False) for m in d.messages if m.role == "user"]
    np.testing.assert_array_equal(read(built, heard), read(plain, heard))


def test_features_beside_words_weigh_alike() -> None:
    """Squares of all directions together average 1, each as much as any other."""
    rng = np.random.default_rng(0)
    texts = [made_up(rng) for _ in range(300)]
    embedded = Embedded.learn(hears, texts, "ears")
    space = Beside.learn(Words.learn(texts), embedded, embedded.vectors(texts))
    found = space.features(texts)
    np.testing.assert_allclose((found**2).sum(1).mean(), 1, rtol=1e-4)
    np.testing.assert_allclose((found**2).mean(0), 1 / found.shape[1], rtol=1e-3)
    np.testing.assert_allclose(space.vectors(texts)[:, -found.shape[1] :].toarray(), found, rtol=1e-5)
