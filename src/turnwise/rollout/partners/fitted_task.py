"""A partner that was learnt from logs, as a task: it answers, ends the talk, says what was earned.

Whatever it does comes from the seed of the conversation and from what the agent says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.other_side import Scene, read_turn, scene_of, turned
from turnwise.envs.dialogue import Message, Reference, Response
from turnwise.models.lm.parts import context_of
from turnwise.rollout.engines.protocol import Utterance
from turnwise.rollout.engines.sampler import Sampler
from turnwise.rollout.partners.fitted import FittedPartner
from turnwise.rollout.partners.speakers import SpeakingModel
from turnwise.run.rehearsal import rehearsing

CUT = "its turn had no end within its longest turn"
FULL = "its context is full"
SILENT = "it said nothing, and did not end the conversation"


@dataclass
class _Talk:
    """A conversation under way, as the partner has it."""

    scene: Scene
    rng: np.random.Generator
    seen: list[Message] = field(default_factory=list)
    why: str | None = None
    """why it failed, if it did"""
    over: bool = False


class FittedTask:
    """A `DialogueTask` whose other side is a model of logged partners.

    Behind each of its turns the model says how probable it is that the conversation is over, which is drawn,
    and what the agent's words before it earned on average, which is paid. A turn that cannot be used (it
    never stopped, nothing was said although the talk goes on, the context is full) fails the conversation: it
    is cut, and counts for nothing.
    """

    name = "partner"

    def __init__(self, partner: FittedPartner, references: Sequence[Reference] = ()) -> None:
        """`references`: what is known of it, as what its logs earned."""
        self.partner, self._references = partner, tuple(references)
        self._samplers: list[Sampler] = []
        self._speaker = SpeakingModel(partner.agent, self._sampler)
        self._talks: dict[int, _Talk] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """New scenes. If the partner has the first word, it has spoken."""
        rngs = [np.random.default_rng(seed) for seed in seeds]
        self._speaker.reset(lanes, [int(rng.integers(2**62)) for rng in rngs])
        for lane, rng in zip(lanes, rngs, strict=True):
            scene = self.partner.scenes.draw(rng)
            self._talks[lane] = _Talk(scene, rng, list(scene.seen()))
        heard: dict[int, tuple[Message, ...]] = dict.fromkeys(lanes, ())
        first = [lane for lane in lanes if self._talks[lane].scene.first]
        for lane, u in zip(first, self._utter(first), strict=True):
            heard[lane] = self._said(lane, u)
            if not heard[lane]:  # an opening without a word: the next step says that it failed
                self._talks[lane].why = self._talks[lane].why or SILENT
                heard[lane] = (Message("user", ""),)
        system = {n: tuple(Message("system", x) for x in self._talks[n].scene.system) for n in lanes}
        return [system[lane] + heard[lane] for lane in lanes]

    def take_up(self, lanes: Sequence[int], seeds: Sequence[int], talks: Sequence[Sequence[Message]]) -> None:
        """Go on from talks as the agent has them, in which the agent has the next word.

        ValueError for a partner that knows facts: nobody can tell which ones it had in a talk.
        """
        if any(scene.facts for scene in self.partner.scenes.scenes):
            raise ValueError("the partner knows facts that no talk shows; expected one without facts")
        rngs = [np.random.default_rng(seed) for seed in seeds]
        self._speaker.reset(lanes, [int(rng.integers(2**62)) for rng in rngs])
        for lane, rng, messages in zip(lanes, rngs, talks, strict=True):
            # The agent's next word, which nobody has said yet, stands at the end and is taken off again.
            waiting = Dialogue((*messages, Message("assistant", "")), terminated=False)
            scene, heard = scene_of(waiting), turned(waiting)
            seen = scene.seen() if heard is None else heard.messages[:-1]
            self._talks[lane] = _Talk(scene, rng, list(seen))

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The agent speaks, then the partner, unless it has failed. ValueError if a conversation is over."""
        for lane, text in zip(lanes, replies, strict=True):
            if self._talks[lane].over:
                raise ValueError(f"lane {lane}: the conversation is over; reset the lane first")
            self._talks[lane].seen.append(Message("user", text))
        going = [lane for lane in lanes if self._talks[lane].why is None]
        said = dict(zip(going, self._utter(going), strict=True))
        spoke = {lane for lane in going if not said[lane].out_of_context}
        ends, rewards = self._judged(sorted(spoke))
        found = []
        for lane in lanes:
            talk = self._talks[lane]
            heard = self._said(lane, said[lane]) if lane in said else ()
            over = lane in spoke and bool(talk.rng.random() < ends[lane])
            if talk.why is None and not over and not heard:
                talk.why = SILENT
            talk.over = over or talk.why is not None
            if talk.why is not None:
                found.append(Response((), 0.0, truncated=True, info={"failed": talk.why}, failed=True))
            else:
                found.append(Response(heard, rewards[lane], terminated=over))
        return found

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """What the partner knew and the agent did not."""
        return dict(self._talks[lane].scene.facts)

    def references(self) -> list[Reference]:
        """What is known of it."""
        return list(self._references)

    def _utter(self, lanes: Sequence[int]) -> list[Utterance]:
        return self._speaker.utter(lanes, [self._talks[lane].seen for lane in lanes]) if lanes else []

    def _said(self, lane: int, u: Utterance) -> tuple[Message, ...]:
        """The messages of a turn, taken down; or why it is none."""
        talk = self._talks[lane]
        # A rehearsal's partner has learnt nothing, and would hardly ever stop.
        if u.out_of_context or not (u.stopped or rehearsing()):
            talk.why = FULL if u.out_of_context else CUT
            return ()
        text = self._speaker.chat.text(u.ids)
        talk.seen.append(Message("assistant", text))
        return read_turn(text)

    def _judged(self, lanes: Sequence[int]) -> tuple[dict[int, float], dict[int, float]]:
        """Chance of the end and reward behind what each lane said last."""
        ends, rewards = dict[int, float](), dict[int, float]()
        for n, sampler in enumerate(self._samplers):
            here = [lane for lane in lanes if self._speaker.where(lane)[0] == n]
            if here:
                features = sampler.features[0][[self._speaker.where(lane)[1] for lane in here]]
                end, reward = self.partner.judged(features)
                ends |= dict(zip(here, end.tolist(), strict=True))
                rewards |= dict(zip(here, reward.tolist(), strict=True))
        return ends, rewards

    def _sampler(self, lanes: int) -> Sampler:
        """It reads its own stop token at once: there the heads look."""
        policy, decoding = self.partner.agent.token_policy()
        made = Sampler(
            policy,
            lanes=lanes,
            context=context_of(self.partner.agent.lm),
            stop=self._speaker.chat.stop,
            decoding=decoding,
            max_new_tokens=self.partner.acting.max_new_tokens,
            read_stop=True,
        )
        self._samplers.append(made)
        return made
