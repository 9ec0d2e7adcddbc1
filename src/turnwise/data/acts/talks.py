"""Conversations as sequences of acts: what was meant, turn by turn, and what was meant in return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from turnwise.data.acts.codebook import Codebook, Example, Utterance
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.envs.dialogue import Message

SILENCE = "(nothing)"
"""name of the answer that nobody gave: the agent goes on, or the conversation ends without a last word"""


class Turns(NamedTuple):
    """A conversation, complete or under way, cut where the agent decides."""

    opening: Utterance
    """all that is known before the agent's first message"""
    said: tuple[Utterance, ...]
    """[K], the agent's messages: each one is a decision"""
    heard: tuple[Utterance | None, ...]
    """[K], what was said after each of them; None for silence"""


def cut_turns(messages: Sequence[Message], agent_role: str = "assistant") -> Turns:
    """The turns of messages. The agent's messages in a row are a turn each, with silence between them."""
    opening: list[Message] = []
    said: list[Utterance] = []
    heard: list[list[Message]] = []
    for i, m in enumerate(messages):
        if m.role == agent_role:
            said.append(_utterance([m], messages[:i]))
            heard.append([])
        else:
            (heard[-1] if heard else opening).append(m)
    places = [i for i, m in enumerate(messages) if m.role == agent_role]
    answers = [
        _utterance(after, messages[: at + 1]) if after else None
        for at, after in zip(places, heard, strict=True)
    ]
    return Turns(_utterance(opening, ()), tuple(said), tuple(answers))


def _utterance(messages: Sequence[Message], before: Sequence[Message]) -> Utterance:
    return Utterance("\n".join(map(spoken, messages)), tuple(m.act for m in messages), tuple(before))


@dataclass(frozen=True)
class ActTalk:
    """K decisions of the agent and what followed each, as acts.

    `first` is the act of the opening, `acts` [K] are the agent's, `answers` [K] the partner's (0 is silence).
    `rewards` [K] follow each act; `terminated` is True after a true end. `behavior_logp` [K] are
    log-probabilities of the *messages*, and `act_logp` [K] those of the acts, under the logged agent: NaN
    where the log has none, and of an act that the log gives another name than the codebook does.
    """

    first: int
    acts: np.ndarray
    answers: np.ndarray
    rewards: np.ndarray
    terminated: bool
    behavior_logp: np.ndarray
    act_logp: np.ndarray
    id: str = ""

    def __len__(self) -> int:
        """K, the agent's turns."""
        return len(self.acts)


@dataclass(frozen=True)
class ActLogs(Sequence[ActTalk]):
    """Talks as acts, with the names of the acts. `answers[0]` is silence."""

    talks: tuple[ActTalk, ...]
    acts: tuple[str, ...]
    answers: tuple[str, ...]
    openings: tuple[str, ...]
    rated: bool = True
    """whether anybody said how the conversations went"""

    def __len__(self) -> int:
        return len(self.talks)

    @overload
    def __getitem__(self, index: int) -> ActTalk: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ActTalk, ...]: ...
    def __getitem__(self, index: int | slice) -> ActTalk | tuple[ActTalk, ...]:
        return self.talks[index]


@dataclass(frozen=True)
class Codes:
    """The codebooks of a log: for the agent, for what answers it, and for what it knows beforehand."""

    agent: Codebook
    partner: Codebook
    opening: Codebook

    @property
    def acts(self) -> tuple[str, ...]:
        """Names of the agent's acts."""
        return self.agent.names

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of the answers: silence, then the partner's acts."""
        return (SILENCE, *self.partner.names)

    @property
    def openings(self) -> tuple[str, ...]:
        """Names of openings."""
        return self.opening.names

    def examples(self, act: int) -> list[Example]:
        """The logged sentences of an act of the agent, the most frequent first: what a voice may say."""
        return self.agent.examples(act)

    def talks(self, dialogues: Sequence[Dialogue]) -> ActLogs:
        """Whole conversations as acts, read side by side in one go."""
        cut = [cut_turns(d.messages, d.agent_role) for d in dialogues]
        firsts, acts, answers = self.read(cut)
        found = []
        for d, first, done, seen in zip(dialogues, firsts, acts, answers, strict=True):
            turns = d.turns
            numbers = [
                (m.reward, _or_nan(m.behavior_logp), _or_nan(m.act_logp if self._same(m, a) else None))
                for m, a in zip(turns, done.tolist(), strict=True)
            ]
            rewards, logp, act_logp = np.array(numbers, np.float64).T
            found.append(ActTalk(int(first), done, seen, rewards, d.terminated, logp, act_logp, d.id))
        rated = any(d.rated_by != "nothing" for d in dialogues)
        return ActLogs(tuple(found), self.acts, self.answers, self.openings, rated)

    def _same(self, message: Message, act: int) -> bool:
        """Whether the act is the one that the log names, if it names one."""
        return message.act is None or message.act == self.acts[act]

    def read(self, talks: Sequence[Turns]) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Openings [N], and for each talk its acts [K] and its answers [K]. Talks may be under way."""
        firsts = self.opening.read([t.opening for t in talks]).acts
        ends = np.cumsum([len(t.said) for t in talks])[:-1] if talks else []
        acts = self.agent.read([u for t in talks for u in t.said]).acts
        heard = [u for t in talks for u in t.heard]
        answers = np.zeros(len(heard), np.int64)
        spoke = [i for i, u in enumerate(heard) if u is not None]
        if spoke:
            answers[spoke] = 1 + self.partner.read([u for u in heard if u is not None]).acts
        return firsts, np.split(np.asarray(acts, np.int64), ends), np.split(answers, ends)


def _or_nan(number: float | None) -> float:
    return np.nan if number is None else number
