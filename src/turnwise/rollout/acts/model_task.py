"""Models learnt of logged acts as a task: the agent's words are read as acts, and answers are worded.

    words ──codebook──► act ──model──► answer, end, reward ──logged sentences──► words

The model keeps a hidden state that no words show, so that what it answers hangs together over a whole talk.
Its words are sentences of the log, and it knows no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.phrases import PhraseBook
from turnwise.data.acts.talks import Codes
from turnwise.envs.dialogue import Message, Reference, Response
from turnwise.exact.learning.model import CUT_OFF, END, ENDED, GO_ON, STOP, LearntModel
from turnwise.exact.learning.planner import draws
from turnwise.rollout.acts.simulated import LONGEST
from turnwise.rollout.acts.voice import LoggedVoice

SILENT = "it answered with silence, and did not end the conversation"
WORDLESS = "no logged sentence says what it means"


@dataclass
class _Talk:
    """A conversation under way."""

    model: LearntModel
    state: int
    rng: np.random.Generator
    messages: list[Message] = field(default_factory=list)
    turn: int = 0
    over: bool = False


class ModelTask:
    """A `DialogueTask` whose other side is a model of acts; each talk is with one of `models`.

    The mean reward of the model's hidden state is paid. An answer without words, and silence in a talk that
    goes on, fail the conversation: it is cut, and counts for nothing.
    """

    name = "act model"

    def __init__(
        self, models: Sequence[LearntModel], codes: Codes, references: Sequence[Reference] = ()
    ) -> None:
        """ValueError for models without rewards."""
        if any(m.pay is None for m in models):
            raise ValueError("a model without rewards; expected models that know what conversations earned")
        self.models, self.codes, self._references = tuple(models), codes, tuple(references)
        self._answers = LoggedVoice.of(cast(PhraseBook, codes.partner))
        self._openings = LoggedVoice.of(cast(PhraseBook, codes.opening))
        self._talks: dict[int, _Talk] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """A new model, a new state, and an opening that the state makes probable."""
        found = []
        for lane, seed in zip(lanes, seeds, strict=True):
            rng = np.random.default_rng(seed)
            model = self.models[int(rng.integers(len(self.models)))]
            state = _draw(model.start, rng)
            first = _draw(model.firsts[state], rng)
            (said,) = self._openings.say([first], [()], [rng])
            words = self.codes.openings[first] if said is None else said.text
            talk = self._talks[lane] = _Talk(model, state, rng, [Message("user", words)])
            found.append(tuple(talk.messages))
        return found

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The agent's words are read, and the model goes on. ValueError if a conversation is over."""
        talks = [self._talks[lane] for lane in lanes]
        for lane, talk in zip(lanes, talks, strict=True):
            if talk.over:
                raise ValueError(f"lane {lane}: the conversation is over; reset the lane first")
        heard = [Utterance(text, (None,), tuple(t.messages)) for text, t in zip(replies, talks, strict=True)]
        acts = self.codes.agent.read(heard).acts
        return [self._answer(t, text, int(a)) for t, text, a in zip(talks, replies, acts, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """The number of the model's state."""
        return {"state": self._talks[lane].state}

    def references(self) -> list[Reference]:
        """What is known of it."""
        return list(self._references)

    def _answer(self, talk: _Talk, text: str, act: int) -> Response:
        model, rng = talk.model, talk.rng
        talk.messages.append(Message("assistant", text))
        assert model.pay is not None
        over, late = rng.random() < model.ends[act, talk.state], model.pay.late
        clock = model.longest or LONGEST
        kind = END if over else STOP if talk.turn + 1 >= clock else GO_ON
        reward = float(model.pay.means[kind, act, talk.state])
        if kind != GO_ON and len(late):
            reward += float(late[min(talk.turn, len(late) - 1)])
        if kind == GO_ON:
            talk.state = _draw(model.transitions[act, talk.state], rng)
            answer = _draw(model.emissions[act, talk.state], rng)
        else:
            answer = _draw(model.lasts[ENDED if kind == END else CUT_OFF, act, talk.state], rng)
        talk.turn += 1
        ended = kind == END or (kind == STOP and model.longest is not None)
        messages = self._worded(talk, answer)
        why = WORDLESS if messages is None else SILENT if kind == GO_ON and not messages else None
        talk.over = kind != GO_ON or why is not None
        if why is not None:
            return Response((), 0.0, truncated=True, info={"failed": why}, failed=True)
        talk.messages += messages or ()
        return Response(messages or (), reward, terminated=ended, truncated=kind == STOP and not ended)

    def _worded(self, talk: _Talk, answer: int) -> tuple[Message, ...] | None:
        """Answer 0 is silence; None if nothing logged says it."""
        if answer == 0:
            return ()
        (said,) = self._answers.say([answer - 1], [talk.messages], [talk.rng])
        return None if said is None else (Message("user", said.text),)


def _draw(p: np.ndarray, rng: np.random.Generator) -> int:
    return int(draws(p[None], rng)[0])
