"""A trained policy in the partner's place: a language model, or an agent of acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from turnwise.envs.dialogue import Message
from turnwise.models.lm.parts import context_of
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.reading import read_talks
from turnwise.rollout.agent import Agent
from turnwise.rollout.engines.protocol import LaneModel, Utterance


class SpeakingModel:
    """An agent as a `Speaker`: it hears new messages, speaks, and remembers the talk of each lane."""

    def __init__(self, agent: Agent, make: Callable[[int], LaneModel] | None = None) -> None:
        """`make`: what speaks in so many lanes; None: the agent as it acts."""
        self.agent = agent
        self.chat = agent.chat
        self._make = make or (lambda lanes: agent.lane_model(lanes, agent.chat.stop))
        # A model has a fixed number of lanes, and a speaker does not know how many it will have. So whenever
        # lanes come that no model has yet, one more model takes them, beside the talks that are under way.
        self._models: list[LaneModel] = []
        self._places: dict[int, tuple[int, int]] = {}  # the caller's lane: which model, which lane of it
        self._heard: dict[int, list[Message]] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Forget the talk of each lane."""
        new = [lane for lane in lanes if lane not in self._places]
        if new:
            self._places |= {lane: (len(self._models), i) for i, lane in enumerate(new)}
            self._models.append(self._make(len(new)))
        for lane, seed in zip(lanes, seeds, strict=True):
            model, place = self._places[lane]
            self._heard[lane] = []
            self._models[model].reset(place, seed)

    def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
        """What the model says in each lane after `seen`, its whole view; None if its context is full.

        In a lane that was reset it may begin in the middle: what `seen` says that it said before is read as
        its turns in a log are.
        """
        return [None if u.out_of_context else self.chat.text(u.ids) for u in self.utter(lanes, seen)]

    def utter(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[Utterance]:
        """The same as it was sampled."""
        said: dict[int, Utterance] = {}
        waiting = {self._places[lane]: lane for lane in lanes}
        for (model, place), messages in zip(list(waiting), seen, strict=True):
            lane = waiting[model, place]
            old = self._heard[lane]
            new = list(messages)[len(old) :]
            ids = self.chat.continuation(old, new) if old else self.agent.read(tuple(messages))
            # A talk that is taken up may be full by itself; no lane has read it.
            if not old and _begun(messages) and len(ids) >= context_of(self.agent.lm):
                said[waiting.pop((model, place))] = Utterance(place, (), (), False, True)
            else:
                self._models[model].submit(place, ids)
        while waiting:
            model = next(iter(waiting))[0]
            for u in self._models[model].collect():
                said[waiting.pop((model, u.lane))] = u
        for lane, messages in zip(lanes, seen, strict=True):
            words = "" if said[lane].out_of_context else self.chat.text(said[lane].ids)
            self._heard[lane] = [*messages, Message("assistant", words)]
        return [said[lane] for lane in lanes]

    def where(self, lane: int) -> tuple[int, int]:
        """Which of the models that were made speaks in a lane, and in which lane of its own."""
        return self._places[lane]


def _begun(messages: Sequence[Message]) -> bool:
    """Whether the speaker has said something in the talk."""
    return any(m.role == "assistant" for m in messages)


class SpeakingActs:
    """An agent of acts as a `Speaker`."""

    def __init__(self, agent: ActAgent) -> None:
        self.agent = agent
        self._seeds: dict[int, int] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Forget the talk of each lane."""
        self._seeds |= dict(zip(lanes, seeds, strict=True))

    def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
        """What the agent says in each lane after `seen`, its whole view."""
        read = read_talks(self.agent.codes, seen)
        turns = self.agent.speak(seen, read, [self._seeds[lane] for lane in lanes])
        return [turn.text for turn in turns]
