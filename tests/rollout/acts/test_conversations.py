"""Agents of acts: what they read, choose and say, alone and in lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from turnwise.data.acts.codebook import Heard, Utterance
from turnwise.data.acts.talks import ActLogs, ActTalk, Codes, cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.data.files.logs import read_logs
from turnwise.envs.dialogue import Message, Response
from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
from turnwise.envs.tasks.helpdesk.rules import ACTS
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.helpdesk.words import read_act, read_answer, wordings
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Choice, LoggedActs, Prefix, logged_acts
from turnwise.rollout.acts.conversations import LONGEST, converse_in_acts
from turnwise.rollout.acts.reading import read_talks
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.rollout.conversations import episode_seed
from turnwise.rollout.partners.speakers import SpeakingActs
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class ByRule:
    """A codebook by a function of the text; what the function does not know is the last act, far away."""

    names: tuple[str, ...]
    rule: object

    def read(self, utterances: Sequence[Utterance]) -> Heard:
        found = [self.rule(u.text) for u in utterances]  # type: ignore[operator]
        acts = [len(self.names) - 1 if x is None else x for x in found]
        return Heard(np.array(acts, np.int64), np.array([float(x is None) for x in found]))


def agent_act(text: str) -> int | None:
    act = read_act(text)
    return ACTS.index(act) if act in ACTS else None


def answer(text: str) -> int | None:
    heard = read_answer(text)
    return None if heard is None else 2 * heard[0] + heard[1]


CODES = Codes(
    ByRule((*map(str, ACTS), "other"), agent_act),
    ByRule((*(f"{k} {b}" for k in range(4) for b in ("fine", "broken")), "other"), answer),
    ByRule(("hello",), lambda text: 0),
)
VOICE = LoggedVoice((*(tuple((text, 1) for text in wordings(act)) for act in ACTS), ()))


class Script:
    """Chooses the acts of a list, one a turn; the last one again and again."""

    def __init__(self, *acts: int) -> None:
        self.acts = acts

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        return [Choice(self.acts[min(len(t), len(self.acts) - 1)], None, {"turn": len(t)}) for t in talks]


def logs(n: int) -> list[Dialogue]:
    return list(read_logs(list(helpdesk_logs(n, seed=5))))


def test_frequencies_after_an_answer_by_hand() -> None:
    """Two talks: act 0, answer 1, act 1; and act 0, answer 1, act 0. p = (3/4, 1/4); after answer 1 there is
    one turn of each act: (1 + 10 * 3/4) / 12 = 8.5/12."""
    names = ("a", "b"), ("(nothing)", "x"), ("o",)

    def talk(acts: list[int]) -> ActTalk:
        nan = np.full(2, np.nan)
        return ActTalk(0, np.array(acts), np.array([1, 0]), np.zeros(2), True, nan, nan)

    found = logged_acts(ActLogs((talk([0, 1]), talk([0, 0])), *names))
    np.testing.assert_allclose(found.after[1], [8.5 / 12, 3.5 / 12])
    np.testing.assert_allclose(found.after[0], [0.75, 0.25])
    np.testing.assert_allclose(found.begin[0], [(2 + 7.5) / 12, 2.5 / 12])
    assert logged_acts(ActLogs((talk([0, 1]),), *names), np.array([False, True])).after[1].tolist() == [
        0,
        1,
    ]


def test_reading_on_is_reading_all() -> None:
    """A talk that is read turn by turn means what it means when it is read in one go, as logs do."""
    dialogues = logs(20)
    whole = CODES.talks(dialogues)
    for d, talk in zip(dialogues, whole, strict=True):
        known: Prefix | None = None
        cuts = [i for i, m in enumerate(d.messages) if m.role == "assistant"] + [len(d.messages)]
        for cut in cuts:
            (known,) = read_talks(CODES, [d.messages[:cut]], [known])
        assert known is not None and known.first == talk.first
        np.testing.assert_array_equal(known.acts, talk.acts)
        np.testing.assert_array_equal(known.answers, talk.answers)
        assert len(known.distances) == len(talk) + 1
    empty = read_talks(CODES, [()])[0]
    assert len(empty) == 0 and empty.first == 0


def test_messages_in_a_row_and_silence() -> None:
    """Two messages of the agent in a row are two turns with silence between them."""
    talk = (
        Message("assistant", "Please test the battery."),
        Message("assistant", "Now try the camera."),
        Message("user", "so"),
        Message("user", "hm"),
    )
    (found,) = read_talks(CODES, [talk])
    assert found.answers.tolist() == [0, 9]
    assert found.distances.tolist() == [0, 0, 1]
    assert cut_turns(talk).said[1].before == talk[:1]


def test_lanes_say_what_replies_say() -> None:
    """The lanes are the stateless replies: same seed, same words, whatever the number of lanes."""
    agent = ActAgent(CODES, logged_acts(CODES.talks(logs(200))), VOICE)
    held = [converse_in_acts(agent, HelpDesk(), episodes=range(9), seed=3, lanes=n) for n in (1, 4)]
    for one, other in zip(*held, strict=True):
        assert one.dialogue == other.dialogue
        assert one.turns == other.turns
        assert one.tokens is None
        assert len(one.turns) == len(one.dialogue.turns)
        at = [i for i, m in enumerate(one.dialogue.messages) if m.role == "assistant"]
        for i in at:
            before = [Message(m.role, m.content) for m in one.dialogue.messages[:i]]
            assert (
                agent.reply(before, seed=episode_seed(3, one.episode, 0)) == one.dialogue.messages[i].content
            )


def test_what_is_said_is_read_back_by_codebook_and_task() -> None:
    """Every logged sentence of an act is read as that act by both."""
    agent = ActAgent(CODES, Script(1, 3, 2, 6), VOICE)
    for c in converse_in_acts(agent, HelpDesk(), episodes=range(20), seed=0, lanes=7):
        for message, turn in zip(c.dialogue.turns, c.turns, strict=True):
            assert turn["act"] == turn["read_as"] == turn["parsed"]["act"] == message.act
            assert turn["by"] == "chooser" and turn["voice"] == "logged"


class Babble:
    """A partner that nobody understands, and that never ends the talk."""

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        return [(Message("user", "?"),) for _ in lanes]

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        known = Message("user", "The battery works fine.")
        said = known if replies[0] in wordings(ACTS[1]) else Message("user", "zzz")
        return [Response((said,), 0.0) for _ in lanes]

    def hidden(self, lane: int) -> dict[str, str]:
        return {}


def test_after_some_strange_turns_the_fallback_chooses_and_says_so() -> None:
    """Patience 3: three answers of which nothing can be made, then the fallback chooses."""
    only_fix = np.eye(len(CODES.acts))[4]
    fallback = LoggedActs(np.tile(only_fix, (1, 1)), np.tile(only_fix, (len(CODES.answers), 1)))
    agent = ActAgent(CODES, Script(0), VOICE, fallback, patience=3)
    (c,) = converse_in_acts(agent, Babble(), episodes=[0], seed=0, lanes=1)
    assert [t["by"] for t in c.turns[:5]] == ["chooser"] * 3 + ["fallback"] * 2
    assert [t["act"] for t in c.turns[:4]] == [str(ACTS[0])] * 3 + [str(ACTS[4])]
    assert c.turns[3]["strange"] == [1, 2, 3]
    assert c.turns[3]["heard"] == {"act": "other", "distance": 1.0}
    assert len(c.turns) == LONGEST and not c.dialogue.terminated
    # What is understood again takes it back.
    (heard,) = read_talks(
        CODES, [(*c.dialogue.messages[:7], Message("user", "zz"), Message("assistant", "x"))]
    )
    assert agent.speak([()], [heard], [0])[0].trace["by"] == "chooser"


def test_words_that_make_no_conversation() -> None:
    agent = ActAgent(CODES, Script(0), VOICE)
    with pytest.raises(InputError, match="last message"):
        agent.reply([{"role": "assistant", "content": "I"}])
    with pytest.raises(InputError, match="list of messages"):
        agent.reply("hello")  # type: ignore[arg-type]
    assert agent_act(agent.reply([])) == 0


def test_an_agent_of_acts_is_a_partner() -> None:
    """In the partner's place it says what it replies, in every lane by its own seed."""
    agent = ActAgent(CODES, logged_acts(CODES.talks(logs(100))), VOICE)
    partner = SpeakingActs(agent)
    partner.reset([4, 7], [11, 12])
    views = [[Message("user", "My phone is broken.")], [Message("user", "The battery works fine.")]]
    said = partner.answer([7, 4], views)
    assert said == [agent.reply(views[0], seed=12), agent.reply(views[1], seed=11)]
