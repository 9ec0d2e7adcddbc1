"""What agents of acts would do in logged talk, clones of logged agents by counting, and talk with a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.planner import mixture
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Choice, LoggedActs, Prefix, draw
from turnwise.rollout.acts.imitation.frequencies import timed_acts
from turnwise.rollout.acts.logged import chances, logged_chances
from turnwise.rollout.acts.simulated import siblings, simulated_talks
from turnwise.rollout.acts.voice import LoggedVoice

from .test_conversations import CODES, VOICE, Script

A = len(CODES.acts)


def talk(*texts: str) -> tuple[Message, ...]:
    """The user and the agent by turns."""
    return tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts))


FAMILIAR = talk("hello", "Please test the battery.", "The battery test came back fine.")
LOST = talk("hello", "Please test the battery.", "so", "Please test the battery.", "hm")
TABLE = np.linspace(1, 3, A * 10).reshape(10, A)
TABLE /= TABLE.sum(1, keepdims=True)
WHIM = LoggedActs(TABLE[:1], TABLE)


class Speakable:
    """Draws by the table, but never the act that nobody can say."""

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        p = TABLE[3] * (np.arange(A) < A - 1)
        return [Choice(draw(p, rng), p / p.sum()) for rng in rngs]


def mute(*acts: int) -> LoggedVoice:
    """The voice without a sentence for some acts; of act 0 it knows one with a number that nobody said."""
    phrases = [() if a in acts else own for a, own in enumerate(VOICE.phrases)]
    return LoggedVoice(((("Please test battery {number}.", 1),), *phrases[1:]))


@pytest.mark.parametrize(
    "agent",
    [
        ActAgent(CODES, Speakable(), VOICE),
        ActAgent(CODES, Script(2), VOICE, WHIM, patience=2),
        ActAgent(CODES, Script(0), mute(8), WHIM),
        ActAgent(CODES, Speakable(), mute(1, 2, 8)),
        ActAgent(CODES, Script(0), mute(8)),
    ],
    ids=["draws", "gives up", "no words", "no words, draws", "no words, no fallback"],
)
def test_chances_are_how_often_it_does_so(agent: ActAgent) -> None:
    """The slow twin speaks 2,000 times in each of two talks; a share is within 5 standard errors."""
    n, logs = 2000, [Dialogue((*t, Message("assistant", "x"))) for t in (FAMILIAR, LOST)]
    found = logged_chances(agent, logs)
    for b, (messages, last) in enumerate(((FAMILIAR, 1), (LOST, 2))):
        prefix = found.prefixes[b][last]
        turns = agent.speak([messages] * n, [prefix] * n, list(range(n)))
        counted = np.bincount([t.act for t in turns], minlength=A) / n
        p = found.probabilities[b, last]
        assert p.sum() == pytest.approx(1)
        assert (np.abs(counted - p) <= 5 * np.sqrt(p * (1 - p) / n) + 1e-12).all()
    assert not found.drawn.any() and (found.probabilities[0, 2] == 0).all()


def test_alike_talks_are_asked_about_once() -> None:
    asked: list[int] = []

    class Counting:
        def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
            asked.append(len(talks))
            return [Choice(len(t), None) for t in talks]

    prefixes = [Prefix.of(0), Prefix.of(0, [1], [2]), Prefix.of(0), Prefix.of(0, [1], [2], [0.0, 0.5])]
    found = chances(Counting(), prefixes, 3)
    assert found.argmax(1).tolist() == [0, 1, 0, 1] and asked == [3]


def logs_of(talks: Sequence[ActTalk], acts: int, answers: int) -> ActLogs:
    names = [tuple(f"{side}{i}" for i in range(n)) for side, n in (("a", acts), ("o", answers))]
    return ActLogs(tuple(talks), names[0], names[1], ("hello",))


def act_talk(acts: Sequence[int], answers: Sequence[int]) -> ActTalk:
    nan = np.full(len(acts), np.nan)
    return ActTalk(0, np.array(acts), np.array(answers), np.zeros(len(acts)), True, nan, nan)


def test_frequencies_by_turn_by_hand() -> None:
    """Talks a0 o1 a1 o1 a0 and a0 o1 a1. p(a) = (3.5, 2.5) / 6; after o1, (1, 2) and ten of those:
    (1 + 35/6, 2 + 25/6) / 13; at the second turn, (0, 2) and ten of these."""
    found = timed_acts(logs_of([act_talk([0, 1, 0], [1, 1, 0]), act_talk([0, 1], [1, 0])], 2, 2))
    after = np.array([1 + 35 / 6, 2 + 25 / 6]) / 13
    second = (np.array([0, 2]) + 10 * after) / 12
    got = chances(found, [Prefix.of(0, [0], [1])], 2)[0]
    np.testing.assert_allclose(got, second)
    late = chances(found, [Prefix.of(0, [0] * 9, [1] * 9)], 2)[0]
    np.testing.assert_allclose(late, (np.array([1, 0]) + 10 * after) / 11)


def two_turns(end: float, late: float = 0.0) -> LearntModel:
    """One state, two turns at most. Act 0 ends the talk with `end` and pays 1 then; whatever goes on pays
    -.1, and what the clock ends -.5 (and `late` at the second turn)."""
    means = np.array([[-0.1, -0.1], [1.0, 0.0], [-0.5, -0.5]])[:, :, None]
    pay = Pay(np.zeros(0), np.ones((3, 2, 1, 1)), means, np.array([0.0, late]))
    ones = np.ones((2, 1, 1))
    ends = np.array([[end], [0.0]])
    return LearntModel(np.ones(1), np.ones((1, 1)), ones, ones, ends, np.ones((2, 2, 1, 1)), 2, pay)


def test_talk_with_a_model_earns_what_it_must() -> None:
    """Act 0 with .3: it ends with .8 and pays 1, so v2 = .24 (1 + late) + .76 (-.5 + late), and
    v1 = .24 + .76 (-.1 + .9 v2). And a policy that reads the turn: act 0 at the second turn alone."""
    v2 = 0.24 * 1.2 + 0.76 * -0.3
    rng = np.random.default_rng(0)
    got = simulated_talks(
        two_turns(0.8, 0.2), lambda t, _: np.tile([0.3, 0.7], (len(t), 1)), 20_000, 0.9, rng
    )
    assert got.mean() == pytest.approx(0.24 + 0.76 * (-0.1 + 0.9 * v2), abs=4 * got.std() / 20_000**0.5)

    def second(talks: Sequence[Prefix], lanes: np.ndarray) -> np.ndarray:
        assert len(talks) == len(lanes)
        return np.array([[float(len(t) == 1), float(len(t) != 1)] for t in talks])

    assert simulated_talks(two_turns(1.0), second, 50, 1.0, rng) == pytest.approx(0.9)


def test_a_mixture_is_taken_apart_again() -> None:
    models = [two_turns(0.8), two_turns(0.3)]
    for one, other in zip(models, siblings(mixture(models), 2), strict=True):
        for name, table in one.arrays().items():
            np.testing.assert_allclose(other.arrays()[name], table)
