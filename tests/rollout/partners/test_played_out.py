"""Looking ahead: what is said is what ends best on average, where every ending can be enumerated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from turnwise.envs.dialogue import Message, Response
from turnwise.rollout.partners.played_out import Ahead, PlaysOut, Talk
from turnwise.rollout.spoken import converse_in_messages
from turnwise.run.errors import InputError, SettingError

WORDS = ("leave", "take", "ask")
LUCK, ASKING, AGAIN = 0.6, -0.05, -0.2
"""a box is full with probability LUCK; to ask about it costs .05, and .2 if it was asked before"""


def ends(talk: Talk, word: str) -> Iterator[tuple[float, str | None, float]]:
    """(probability, answer or None for the end, reward) of all that may follow. An answer is true.

    To take the box earns 1 if it is full and -1 if not, to leave it 0; a second question ends the talk.
    """
    told = [m.content for m in talk if m.role == "user"][1:]
    full = LUCK if not told else float(told[-1] == "full")
    if word == "take":
        yield full, None, 1.0
        yield 1 - full, None, -1.0
    elif word == "leave":
        yield 1.0, None, 0.0
    elif told:
        yield 1.0, None, AGAIN
    else:
        yield LUCK, "full", ASKING
        yield 1 - LUCK, "empty", ASKING


def worth(talk: Talk, word: str) -> float:
    """Q of the speaker that draws among the words evenly, by enumeration.

    At first: leave 0, take .6 - .4 = .2, ask -.05 + .6 (0 + 1 - .2) / 3 + .4 (0 - 1 - .2) / 3 = -.05.
    """
    total = 0.0
    for p, answer, reward in ends(talk, word):
        total += p * reward
        if answer is not None:
            then = (*talk, Message("assistant", word), Message("user", answer))
            total += p * sum(worth(then, w) for w in WORDS) / len(WORDS)
    return total


@dataclass
class Box:
    """The partner, as a task and as a model of itself."""

    fails: bool = False
    steps: int = 0
    talks: dict[int, Talk] = field(default_factory=dict)
    rngs: dict[int, np.random.Generator] = field(default_factory=dict)

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        self.take_up(lanes, seeds, [(Message("user", "a box"),)] * len(lanes))
        return [self.talks[lane] for lane in lanes]

    def take_up(self, lanes: Sequence[int], seeds: Sequence[int], talks: Sequence[Talk]) -> None:
        self.talks |= dict(zip(lanes, talks, strict=True))
        self.rngs |= {lane: np.random.default_rng(s) for lane, s in zip(lanes, seeds, strict=True)}

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        self.steps += len(lanes)
        return [self._answer(lane, word) for lane, word in zip(lanes, replies, strict=True)]

    def hidden(self, lane: int) -> dict[str, str]:
        return {}

    def _answer(self, lane: int, word: str) -> Response:
        if self.fails and word == "take":
            return Response((), 0.0, truncated=True, failed=True)
        some = list(ends(self.talks[lane], word))
        _, answer, reward = some[int(self.rngs[lane].choice(len(some), p=[p for p, *_ in some]))]
        if answer is None:
            return Response((), reward, terminated=True)
        heard = Message("user", answer)
        self.talks[lane] = (*self.talks[lane], Message("assistant", word), heard)
        return Response((heard,), reward)


@dataclass
class Evenly:
    """Draws among the words."""

    words: tuple[str, ...] = WORDS
    rngs: dict[int, np.random.Generator] = field(default_factory=dict)

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        self.rngs |= {lane: np.random.default_rng(s) for lane, s in zip(lanes, seeds, strict=True)}

    def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
        return [str(self.rngs[lane].choice(self.words)) for lane in lanes]


OPENING = (Message("user", "a box"),)
FULL = (*OPENING, Message("assistant", "ask"), Message("user", "full"))
EMPTY = (*OPENING, Message("assistant", "ask"), Message("user", "empty"))


def test_the_toy_is_what_its_docstring_says():
    assert [worth(OPENING, w) for w in WORDS] == pytest.approx([0.0, 0.2, -0.05])
    assert [worth(FULL, w) for w in WORDS] == pytest.approx([0.0, 1.0, -0.2])


@pytest.mark.parametrize("talk", [OPENING, FULL, EMPTY])
def test_means_are_the_worth_of_what_was_proposed(talk: Talk):
    """Returns lie in [-1.25, 1]: of 1,000 playouts a mean has a standard error of .0356 at most."""
    ahead = PlaysOut(Evenly(), Box(), Ahead(proposals=1, playouts=1000))
    (means,) = ahead.means([talk], [list(WORDS)], [np.random.default_rng(0)])
    assert means == pytest.approx([worth(talk, w) for w in WORDS], abs=4 * 0.0356)


def test_the_best_proposal_is_said_in_each_place():
    """After "full" to take the box is best, after "empty" to leave it, at first to take it. Of 12 proposals
    one of the three words is missing with probability 3 (2/3)^12 = .02, in which case another one is said."""
    ahead = PlaysOut(Evenly(), Box(), Ahead(proposals=12, playouts=100))
    lanes, talks = range(30), [OPENING, FULL, EMPTY] * 10
    ahead.reset(lanes, lanes)
    said = ahead.answer(lanes, talks)
    for talk, best in ((OPENING, "take"), (FULL, "take"), (EMPTY, "leave")):
        right = [text == best for text, t in zip(said, talks, strict=True) if t == talk]
        assert sum(right) >= 8
    assert said == ahead.answer(lanes, talks)  # a function of the talk and of the lane's seed


def test_one_playout_of_two_proposals_errs_as_often_as_it_should():
    """Among leave and take alone: both proposals are take with probability 1/4; of one each, which comes in
    half of the talks, take is said if its one playout earns 1: with .6, as 0 beats -1. Together .55. Of 1,500
    talks, four standard errors are .0514."""
    ahead = PlaysOut(Evenly(("leave", "take")), Box(), Ahead(proposals=2, playouts=1))
    lanes = range(1500)
    ahead.reset(lanes, lanes)
    said = ahead.answer(lanes, [OPENING] * len(lanes))
    assert np.mean([text == "take" for text in said]) == pytest.approx(0.55, abs=0.0514)


def test_who_looks_ahead_earns_what_the_best_words_do():
    """Who draws evenly earns (0 + .2 - .05) / 3 = .05, who says the best word .2 (it takes the box at once).
    400 talks of returns 1 and -1 have a standard error of .049. Of 30 playouts the mean of to take is off by
    .18, below 0 with probability .13, which costs .2: the lower end is .03 wider. The partner that it talks
    with is not the one that it asks: only what was really said counts there."""
    task, imagined = Box(), Box()
    ahead = PlaysOut(Evenly(), imagined, Ahead(proposals=12, playouts=30))
    earned = []
    for speaker in (Evenly(), ahead):
        before = task.steps
        held = converse_in_messages(speaker, task, episodes=range(400), seed=3, lanes=50)
        earned.append(np.mean([c.dialogue.undiscounted_return() for c in held]))
        assert task.steps - before == sum(len(c.dialogue.turns) for c in held)
    plain, looking = earned
    assert abs(plain - 0.05) < 4 * 0.049
    assert 0.2 - 4 * 0.049 - 0.03 < looking < 0.2 + 4 * 0.049
    assert imagined.steps > 30 * 400


def test_what_it_says_depends_on_no_neighbour():
    talks = []
    for lanes in (3, 8):
        ahead = PlaysOut(Evenly(), Box(), Ahead(proposals=3, playouts=2, lanes=2 * lanes))
        held = converse_in_messages(ahead, Box(), episodes=range(20), seed=1, lanes=lanes)
        talks.append([[(m.role, m.content, m.reward) for m in c.dialogue.messages] for c in held])
    assert talks[0] == talks[1]


def test_talks_in_which_the_model_breaks_down_count_for_nothing():
    """It fails whenever "take" is said, which would be a 0 that nobody earned. To take is out; to ask is
    -.05 + .6 (0 - .2) / 2 + .4 (0 - .2) / 2 = -.15 in the talks that remain, where to take is never said."""
    ahead = PlaysOut(Evenly(), Box(fails=True), Ahead(playouts=1000))
    (means,) = ahead.means([OPENING], [list(WORDS)], [np.random.default_rng(0)])
    assert means[1] == -np.inf
    assert means[[0, 2]] == pytest.approx([0.0, -0.15], abs=0.02)
    ahead = PlaysOut(Evenly(("take",)), Box(fails=True), Ahead(proposals=4, playouts=2))
    ahead.reset([0], [0])
    assert ahead.answer([0], [OPENING]) == ["take"]


def test_a_single_proposal_is_not_played_out():
    imagined = Box()
    ahead = PlaysOut(Evenly(("ask",)), imagined, Ahead(proposals=5, playouts=5))
    ahead.reset([0], [0])
    assert ahead.answer([0], [OPENING]) == ["ask"]
    assert imagined.steps == 0


def test_a_speaker_that_cannot_go_on_ends_the_talk():
    """It asks, and has no word for what it hears."""

    class Speechless(Evenly):
        def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
            return ["ask" if len(talk) == 1 else None for talk in seen]

    (c,) = converse_in_messages(PlaysOut(Speechless(), Box()), Box(), episodes=[0], seed=0, lanes=1)
    assert not c.dialogue.terminated and not c.failed and len(c.dialogue.turns) == 1
    (means,) = PlaysOut(Speechless(), Box()).means([OPENING], [["ask", "leave"]], [np.random.default_rng(0)])
    assert means.tolist() == pytest.approx([ASKING, 0.0])  # a cut counts with what was earned until then

    class Mute(Evenly):
        def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
            return [None] * len(lanes)

    with pytest.raises(InputError, match="no word for the opening"):
        converse_in_messages(PlaysOut(Mute(), Box()), Box(), episodes=[0], seed=0, lanes=1)


def test_a_talk_that_nobody_ends_is_cut():
    """Every turn earns 1 and nobody ends it: of 3 turns at most, each proposal is worth 3."""

    class Endless(Box):
        def _answer(self, lane: int, word: str) -> Response:
            return Response((Message("user", "go on"),), 1.0)

    ahead = PlaysOut(Evenly(), Endless(), Ahead(playouts=2, longest=3))
    (means,) = ahead.means([OPENING], [list(WORDS)], [np.random.default_rng(0)])
    assert means.tolist() == [3.0, 3.0, 3.0]


def test_it_looks_at_least_at_one_proposal():
    with pytest.raises(SettingError, match="proposals"):
        Ahead(proposals=0)
