"""How an act is worded: sentences of the log, with what the conversation puts into their slots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.labelled import by_field
from turnwise.data.acts.phrases import PhraseBook, Phrases
from turnwise.data.acts.slots import Slots
from turnwise.data.acts.spaces import Words
from turnwise.data.acts.talks import Codes
from turnwise.envs.dialogue import Message
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Choice, LoggedActs, Prefix
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.run.errors import InputError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spoken(text: str, act: str) -> Utterance:
    return Utterance(text, (act,))


BOOK = by_field(
    [
        *[spoken("Your order 4711 is late, sorry.", "late")] * 3,
        spoken("Order 991 is late.", "late"),
        spoken("Please wait.", "late"),
        *[spoken("Please wait.", "wait")] * 2,
        *[spoken("Call 555123 now.", "call")] * 2,
    ],
    "agent_acts",
    False,
)
LATE, WAIT, CALL = (BOOK.names.index(name) for name in ("late", "wait", "call"))


def test_sentences_are_said_as_often_as_they_were_logged() -> None:
    """Of four sentences of "late" with slots three are the one and one is the other; "Please wait." is read
    as "wait", which it means more often, and is not said for "late"."""
    voice, talk = LoggedVoice.of(BOOK), [Message("user", "Where is 1234?")]
    found = [voice.say([LATE], [talk], [rng(i)])[0] for i in range(400)]
    texts = [said.text for said in found if said is not None]
    assert set(texts) == {"Your order 1234 is late, sorry.", "Order 1234 is late."}
    assert np.mean([t.startswith("Your") for t in texts]) == pytest.approx(0.75, abs=0.07)
    assert voice.say([WAIT], [talk], [rng()])[0] == ("Please wait.", "logged")


def test_a_sentence_that_the_talk_cannot_fill_is_not_said() -> None:
    """Nothing of another conversation is put into a slot."""
    voice = LoggedVoice.of(BOOK)
    assert voice.say([CALL], [[Message("user", "Hello?")]], [rng()]) == [None]
    assert voice.speakable.all()
    assert np.flatnonzero(voice.speakable_in([])).tolist() == [WAIT]


def test_numbers_that_the_agent_made_up_are_said_as_they_were() -> None:
    """12 is said thrice as often as 34. A talk with a number fills the slot, and every form is read as the
    act."""
    offers = [*[spoken("Take shirt 12.", "offer")] * 3, spoken("Take shirt 34.", "offer")]
    book = by_field(offers, "agent_acts", False).with_own_words(offers)
    voice = LoggedVoice.of(book)
    assert voice.speakable_in([]).tolist() == [True]
    found = [voice.say([0], [[Message("user", "Hello?")]], [rng(i)])[0] for i in range(400)]
    texts = [said.text for said in found if said is not None]
    assert set(texts) == {"Take shirt 12.", "Take shirt 34."}
    assert np.mean([t.endswith("12.") for t in texts]) == pytest.approx(0.75, abs=0.07)
    assert book.read([spoken(t, "?") for t in set(texts)]).distances.tolist() == [0, 0]
    assert voice.say([0], [[Message("user", "No. 56, please")]], [rng()])[0] == ("Take shirt 56.", "logged")


class Wants:
    def __init__(self, act: int) -> None:
        self.act = act

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        return [Choice(self.act, None, {"belief": [1.0]}) for _ in talks]


def test_another_act_is_said_in_place_of_one_without_words() -> None:
    codes = Codes(BOOK, BOOK, BOOK)
    alike = LoggedActs(np.full((3, 3), 1 / 3), np.full((4, 3), 1 / 3))
    for fallback in (None, alike):
        agent = ActAgent(codes, Wants(CALL), LoggedVoice.of(BOOK), fallback)
        talk = (Message("user", "Hello?"),)
        from turnwise.rollout.acts.reading import read_talks

        (turn,) = agent.speak([talk], read_talks(codes, [talk]), [0])
        assert turn.text == "Please wait." and turn.act == WAIT == turn.read
        assert (turn.trace["by"], turn.trace["wordless"]) == ("fallback", "call")
        assert turn.trace["belief"] == [1.0]
    silent = LoggedVoice((((("{name}", 1),)), (), ()))
    with pytest.raises(InputError, match="no act has words"):
        ActAgent(codes, Wants(0), silent).reply([{"role": "user", "content": "Hello?"}])


def test_the_clearest_sentences_of_an_act_are_said() -> None:
    """100 sentences, said 3 times each: a tenth of 300 is 30, that is 10 sentences; at least 20 are kept."""
    templates = tuple(f"sentence {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100))
    phrases = Phrases(templates, np.zeros(100, np.int64), np.full(100, 3), np.arange(100) / 100)
    book = PhraseBook("discover", ("act",), phrases, Slots(), Words.learn(templates), None)
    assert [text for text, _ in LoggedVoice.of(book).phrases[0]] == list(templates[:20])
    many = Phrases(
        templates, np.zeros(100, np.int64), np.where(np.arange(100) < 50, 1, 99), phrases.distances
    )
    book = PhraseBook("discover", ("act",), many, Slots(), Words.learn(templates), None)
    assert len(LoggedVoice.of(book).phrases[0]) == 55  # 50 + 5 x 99 = 545 of 5,000
    alike = Phrases(templates, phrases.acts, phrases.counts, np.zeros(100))
    book = PhraseBook("discover", ("act",), alike, Slots(), Words.learn(templates), None)
    assert len(LoggedVoice.of(book).phrases[0]) == 100  # none is clearer than another
