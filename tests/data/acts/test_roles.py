"""Words that tell the same of different things are learnt from all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.files import load_codes, save_codes
from turnwise.data.acts.gate import Gate
from turnwise.data.acts.phrases import PhraseBook, Phrases
from turnwise.data.acts.roles import Roles
from turnwise.data.acts.slots import Slots
from turnwise.data.acts.spaces import Words
from turnwise.data.acts.talks import Codes

THINGS = ("door", "oven", "lamp", "roof", "pump")
BAD = ("alas the {} leaks", "pity your {} rattles", "alas one {} jams", "pity that {} smokes")
GOOD = ("hurrah the {} holds", "bravo your {} shines", "hurrah one {} hums", "bravo that {} gleams")
FOLLOWS = np.kron(np.eye(5), np.full((1, 2), 30.0))
"""each thing is asked after by an act of its own, and answered by two"""


def book(texts: list[tuple[str, int]], names: int = 10) -> PhraseBook:
    """A book of sentences with their acts, each said ten times, and one act more for what is like nothing."""
    templates = tuple(t for t, _ in texts)
    acts = np.array([a for _, a in texts])
    space = Words.learn(templates)
    gate = Gate.learn(space.vectors(templates), acts, np.full(len(acts), 10), names, 0)
    phrases = Phrases(templates, acts, np.full(len(acts), 10), np.zeros(len(acts)))
    own = tuple(f"act {i}" for i in range(names))
    return PhraseBook("discover", (*own, "other"), phrases, Slots(frozenset()), space, names, gate=gate)


def logged() -> list[tuple[str, int]]:
    """Act 2 k is bad news of thing k, 2 k + 1 good news. Of each, two of four sentences, in turns."""
    return [
        (form.format(thing), 2 * k + good)
        for k, thing in enumerate(THINGS)
        for good, forms in enumerate((BAD, GOOD))
        for form in forms[(k + good) % 2 :: 2]
    ]


ROLES = np.array([0, 1] * 5 + [0])


def told(codes: PhraseBook, text: str) -> np.ndarray:
    found = codes.read([Utterance(text)]).evidence[0]
    assert found is not None
    return found


def test_news_of_one_thing_is_read_by_news_of_others() -> None:
    """What is bad news of the door is told by words that were only said of other things."""
    read = book(logged()).with_roles(ROLES, FOLLOWS, 0)
    assert read.roles is not None and read.roles.of.tolist() == [0, 1] * 5 + [-1]
    for k, thing in enumerate(THINGS):
        for good, forms in enumerate((BAD, GOOD)):
            for form in forms[(k + good + 1) % 2 :: 2]:
                found = told(read, form.format(thing))
                assert found[2 * k + good] > 1.5 * found[2 * k + 1 - good], form
                assert found[10] == 0
    assert read.roles.evidence(read.logged)[:, :2] @ read.roles.shares == pytest.approx(1)


def test_what_is_said_after_one_act_alone_tells_nothing_of_others() -> None:
    """The thing's own name, and words that nobody said, leave things as they are."""
    read = book(logged()).with_roles(ROLES, FOLLOWS, 0)
    assert read.roles is not None
    names = read.space.vectors(["oven", "zebra"])
    found = read.roles.evidence(names)
    np.testing.assert_allclose(found[0], found[1])
    assert found[0, 0] == pytest.approx(1, abs=0.1)


def test_words_that_go_with_no_role_move_little() -> None:
    """The same sentences, of which chance says which is which: twenty shuffles. Some odds are never even."""
    rng = np.random.default_rng(0)
    pulls = []
    for _ in range(20):
        texts = [(t, 2 * (a // 2) + int(rng.integers(2))) for t, a in logged()]
        read = book(texts).with_roles(ROLES, FOLLOWS, 0)
        found = told(read, BAD[1].format("lamp"))
        pulls.append(abs(np.log(found[4] / found[5])))
    clear = told(book(logged()).with_roles(ROLES, FOLLOWS, 0), BAD[1].format("lamp"))
    assert np.median(pulls) < 0.4 * abs(np.log(clear[4] / clear[5]))


def test_nothing_to_learn_leaves_the_book_as_it_is() -> None:
    plain = book(logged())
    for roles in (np.arange(11), np.zeros(11, int), np.full(11, -1)):
        assert plain.with_roles(roles, FOLLOWS, 0).roles is None
    few = book(logged()[:8])
    assert few.with_roles(ROLES, FOLLOWS, 0).roles is None
    assert replace(plain, gate=None).with_roles(ROLES, FOLLOWS, 0).roles is None


def test_what_acts_say_themselves_stands_beside_it() -> None:
    """Where each act has words of its own, roles add little: what the book says of acts stays what it was."""
    texts = [(f"{w} {x} {i}", i) for i, w in enumerate("abcdefghij") for x in ("p", "q", "r", "s")]
    plain = book(texts)
    assert plain.gate is not None and plain.gate.heat > 0
    read = plain.with_roles(ROLES, FOLLOWS, 0)
    for i, word in enumerate("abcdefghij"):
        before, after = told(plain, f"{word} z {i}"), told(read, f"{word} z {i}")
        assert before.argmax() == after.argmax() == i


def test_saved_and_loaded(tmp_path: Path) -> None:
    read = book(logged()).with_roles(ROLES, FOLLOWS, 0)
    save_codes(Codes(read, read, book(logged())), tmp_path / "codes")
    again = load_codes(tmp_path / "codes")
    text = BAD[1].format("door")
    assert isinstance(again.partner, PhraseBook) and isinstance(again.opening, PhraseBook)
    np.testing.assert_array_equal(told(again.partner, text), told(read, text))
    assert again.opening.roles is None


def test_numbers_in_place_of_words() -> None:
    """Dense vectors: the first number tells good from bad of all things, the others name the thing."""
    rng = np.random.default_rng(1)
    acts = np.repeat(np.arange(10), 4)
    x = np.hstack([(2.0 * (acts % 2) - 1)[:, None], 2 * np.eye(5)[acts // 2]]) + 0.3 * rng.normal(
        size=(40, 6)
    )
    gate = Gate.learn(x, acts, np.ones(40, int), 10, 0)
    assert gate is not None
    found = Roles.learn(x, acts, np.ones(40, int), gate, ROLES[:10], FOLLOWS, 0)
    assert found is not None
    evidence = found.evidence(np.array([[1.0, 0, 0, 0, 0, 0]]))[0]
    assert evidence[1] > evidence[0]
