"""A language model beside the chooser of acts: it words them, and it speaks where the plan is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.acts.codebook import Heard, Utterance
from turnwise.data.acts.labelled import by_field
from turnwise.data.acts.talks import Codes
from turnwise.envs.dialogue import Message
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import LoggedActs
from turnwise.rollout.acts.clone import Clone
from turnwise.rollout.acts.files import load_act_agent, save_act_agent
from turnwise.rollout.acts.model_voice import ModelVoice
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.rollout.agent import Acting, Agent

TALK = (Message("user", "My phone is broken."),)
BOOK = by_field(
    [Utterance("Please test the battery.", ("test",)), Utterance("Replace the screen.", ("fix",))],
    "agent_acts",
    True,
)
CODES = Codes(BOOK, BOOK, BOOK)
VOICE = LoggedVoice.of(BOOK)


def speaker(tiny: Callable[..., Any], chat: Any) -> Clone:
    return Clone(Agent(tiny(), chat.tokenizer, acting=Acting(max_new_tokens=8)))


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


class Long:
    """A codebook that reads long texts as act 0 and short ones as act 1."""

    names = ("long", "short")

    def read(self, utterances: Any) -> Heard:
        return Heard(np.array([int(len(u.text) < 12) for u in utterances]), np.zeros(len(utterances)))

    def examples(self, act: int) -> list[Any]:
        return []


def test_what_a_talk_is_offered_does_not_depend_on_its_neighbours(
    tiny: Callable[..., Any], chat: Any
) -> None:
    clone = speaker(tiny, chat)
    other = (Message("user", "The screen works fine."), *TALK)
    alone = clone.proposals([TALK], [rng(1)], 3)
    beside = clone.proposals([other, TALK], [rng(0), rng(1)], 3)
    assert alone[0] == beside[1] and len(alone[0]) > 0
    full = (Message("user", "My phone is broken. " * 60),)
    assert clone.proposals([full, TALK], [rng(0), rng(1)], 3) == [[], alone[0]]


def test_a_reply_that_is_read_as_the_act_is_said(tiny: Callable[..., Any], chat: Any) -> None:
    """The first of the replies that the codebook reads as the act; where there is none, a logged sentence."""
    clone, book = speaker(tiny, chat), Long()
    voice = ModelVoice(clone, book, LoggedVoice(((("Please.", 1),), (("No.", 1),))), tries=6)
    offered = clone.proposals([TALK], [rng(2)], 6)[0]
    for act in (0, 1):
        fits = [text for text in offered if (len(text) < 12) == bool(act)]
        (said,) = voice.say([act], [TALK], [rng(2)])
        expected = (fits[0], "model") if fits else (("Please.", "No.")[act], "logged")
        assert said == expected
    (said,) = voice.say([0], [(Message("user", "My phone is broken. " * 60),)], [rng(2)])
    assert said == ("Please.", "logged")


def test_the_clone_speaks_after_strange_turns_and_is_saved(
    tiny: Callable[..., Any], chat: Any, tmp_path: Path
) -> None:
    """Patience 1: an answer like nothing that was logged, and the clone says what it would say itself."""
    clone = speaker(tiny, chat)
    chooser = LoggedActs(np.tile([1.0, 0, 0], (3, 1)), np.tile([0, 1.0, 0], (4, 1)))
    agent = ActAgent(CODES, chooser, VOICE, chooser, clone, patience=1)
    strange = (*TALK, Message("assistant", "Please test the battery."), Message("user", "zzz qqq"))
    from turnwise.rollout.acts.reading import read_talks

    (turn,) = agent.speak([strange], read_talks(CODES, [strange]), [5])
    assert turn.act is None and turn.trace["by"] == "clone" == turn.trace["voice"]
    save_act_agent(agent, tmp_path / "agent")
    again = load_act_agent(tmp_path / "agent")
    assert again.patience == 1 and again.clone is not None
    plain = ({"role": "user", "content": "Replace the screen."},)
    assert again.reply(plain, seed=1) == agent.reply(plain, seed=1)
