"""An agent of acts: it reads what was said as acts, chooses one, and a voice words it.

    messages ──codebooks──► prefix of acts ──chooser──► an act ──voice──► words ──codebook──► read back

It remembers nothing: every turn is a function of the messages and of a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from turnwise.data.acts.codebook import Heard, Utterance
from turnwise.data.acts.talks import Codes
from turnwise.envs.dialogue import Message
from turnwise.rollout.acts.chooser import Choice, Chooser, Prefix, draw
from turnwise.rollout.acts.clone import Clone
from turnwise.rollout.acts.reading import read_talks
from turnwise.rollout.acts.voice import Said, Voice
from turnwise.rollout.agent import messages_of
from turnwise.run.errors import InputError

STRANGE = 1.0
"""distance from which on a message is like nothing that was logged"""


@dataclass(frozen=True)
class Turn:
    """One turn of the agent."""

    text: str
    act: int | None
    """the act that was wanted; None if the clone spoke in its own words"""
    read: int
    """the act that the codebook reads in `text`"""
    trace: Mapping[str, Any]
    """what a reader of the conversation sees: what was heard and how far it was, why this act, whose words"""


@dataclass(frozen=True)
class ActAgent:
    """Speaks per act.

    After `patience` turns in a row of which nothing could be made (`STRANGE`, or the chooser says so) the
    `fallback` chooses until something familiar is heard. It says so in the trace. `clone` speaks in its own
    words: if there is one, it speaks then. The fallback also chooses if the act that is wanted has no words
    in a conversation: a sentence whose slots it cannot fill.
    """

    codes: Codes
    chooser: Chooser
    voice: Voice
    fallback: Chooser | None = None
    clone: Clone | None = None
    patience: int = 3

    def reply(self, messages: Sequence[Message | Mapping[str, str]], seed: int | None = None) -> str:
        """What the agent says next in a conversation of messages `{"role": ..., "content": ...}`.

        Without messages the agent begins the conversation. The reply is a function of the messages and of
        `seed`; None draws a new seed. InputError for a message that is none, and for a conversation whose
        last message is the agent's own.
        """
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
        talk = messages_of(messages)
        return self.speak([talk], read_talks(self.codes, [talk]), [seed])[0].text

    def speak(
        self, talks: Sequence[Sequence[Message]], prefixes: Sequence[Prefix], seeds: Sequence[int]
    ) -> list[Turn]:
        """The next turn in each talk, whose prefix is what `read_talks` makes of it.

        The chances of a turn come from the seed of its talk and the number of the turn, so that it does not
        depend on the talks beside it.
        """
        rngs = [np.random.default_rng((seed, len(p))) for seed, p in zip(seeds, prefixes, strict=True)]
        choices = self.chooser.choose(prefixes, rngs)
        lost = [self._strange(p, c) for p, c in zip(prefixes, choices, strict=True)]
        given_up = [i for i, turns in enumerate(lost) if _in_a_row(turns, len(prefixes[i])) >= self.patience]
        said = self._own_words(given_up, talks, rngs)
        by = ["clone" if i in said else "chooser" for i in range(len(talks))]
        if self.fallback is not None and (others := [i for i in given_up if i not in said]):
            again = self.fallback.choose([prefixes[i] for i in others], [rngs[i] for i in others])
            for i, choice in zip(others, again, strict=True):
                choices[i] = replace(choices[i], act=choice.act, probabilities=choice.probabilities)
                by[i] = "fallback"
        spoken = [i for i in range(len(talks)) if i not in said]
        words = self.voice.say(
            [choices[i].act for i in spoken], [talks[i] for i in spoken], [rngs[i] for i in spoken]
        )
        for i, found in zip(spoken, words, strict=True):
            if found is None:
                choices[i], found = self._another(choices[i], prefixes[i], talks[i], rngs[i])
                by[i] = "fallback"
            said[i] = found
        back = self._read_back([said[i].text for i in range(len(talks))], talks)
        turns = []
        for i, (prefix, choice) in enumerate(zip(prefixes, choices, strict=True)):
            act = None if by[i] == "clone" else choice.act
            trace = {
                "act": None if act is None else self.codes.acts[act],
                "by": by[i],
                "voice": said[i].source,
                "read_as": self.codes.acts[int(back.acts[i])],
                "read_distance": float(back.distances[i]),
                "heard": self._heard(prefix),
                "strange": sorted(lost[i]),
                **choice.trace,
            }
            turns.append(Turn(said[i].text, act, int(back.acts[i]), trace))
        return turns

    def probabilities(
        self,
        talks: Sequence[Sequence[Message]],
        prefixes: Sequence[Prefix],
        rngs: Sequence[np.random.Generator],
        samples: int = 32,
    ) -> tuple[np.ndarray, np.ndarray]:
        """How probable each act is as the next one in each talk [N, A]; and whether chances were drawn [N].

        It is what `speak` does, with its fallback and without words: an act that has none in a talk passes
        its chance on. Of a clone's own words nobody knows what they will mean: the acts are counted that
        `samples` replies are read as. A `Choice` without probabilities is taken for the only one.
        """
        size = len(self.codes.acts)
        choices = self.chooser.choose(prefixes, rngs)
        p = np.stack([_chances(choice, size) for choice in choices])
        lost = [self._strange(x, c) for x, c in zip(prefixes, choices, strict=True)]
        given_up = [i for i, turns in enumerate(lost) if _in_a_row(turns, len(prefixes[i])) >= self.patience]
        if self.fallback is not None and given_up:
            again = self.fallback.choose([prefixes[i] for i in given_up], [rngs[i] for i in given_up])
            p[given_up] = [_chances(choice, size) for choice in again]
        self._pass_on(p, talks, prefixes, rngs)
        drawn = np.zeros(len(talks), bool)
        if self.clone is not None and given_up:
            own = self.clone.proposals([talks[i] for i in given_up], [rngs[i] for i in given_up], samples)
            for i, texts in zip(given_up, own, strict=True):
                if texts:
                    read = self._read_back(texts, [talks[i]] * len(texts)).acts
                    share = (
                        len(texts) / samples
                    )  # where it says nothing, it does what it does without a clone
                    counted = np.bincount(read, minlength=size) / len(texts)
                    p[i], drawn[i] = share * counted + (1 - share) * p[i], True
        return p, drawn

    def _pass_on(
        self,
        p: np.ndarray,
        talks: Sequence[Sequence[Message]],
        prefixes: Sequence[Prefix],
        rngs: Sequence[np.random.Generator],
    ) -> None:
        """Of chances [N, A], give those of acts without words to what `_another` would draw, in place."""
        for i, talk in enumerate(talks):
            can = self.voice.speakable_in(talk)
            wordless = float(p[i][~can].sum())
            if wordless == 0:
                continue
            if not can.any():
                raise InputError("no act has words in a conversation of the logs")
            known = p[i]
            if self.fallback is not None:
                (again,) = self.fallback.choose([prefixes[i]], [rngs[i]])
                known = np.zeros(len(can)) if again.probabilities is None else again.probabilities
            other = np.where(can, known, 0.0)
            other = other if other.sum() > 0 else can.astype(np.float64)
            p[i] = np.where(can, p[i], 0.0) + wordless * other / other.sum()

    def _own_words(
        self, given_up: Sequence[int], talks: Sequence[Sequence[Message]], rngs: Sequence[np.random.Generator]
    ) -> dict[int, Said]:
        """What the clone says in those talks; less those in which it has nothing to say."""
        if self.clone is None or not given_up:
            return {}
        own = self.clone.reply([talks[i] for i in given_up], [rngs[i] for i in given_up])
        return {i: words for i, words in zip(given_up, own, strict=True) if words is not None}

    def _another(
        self, choice: Choice, prefix: Prefix, talk: Sequence[Message], rng: np.random.Generator
    ) -> tuple[Choice, Said]:
        """An act that has words in this talk, drawn by the fallback, in place of one that has none."""
        can = self.voice.speakable_in(talk)
        wanted = self.codes.acts[choice.act]
        if not can.any():
            raise InputError(f"no act has words in this conversation; {wanted!r} was wanted")
        (again,) = self.fallback.choose([prefix], [rng]) if self.fallback is not None else (choice,)
        p = np.where(can, 0.0 if again.probabilities is None else again.probabilities, 0.0)
        act = draw(p if p.sum() > 0 else can.astype(np.float64), rng)
        (said,) = self.voice.say([act], [talk], [rng])
        assert said is not None
        return Choice(act, None, {**choice.trace, "wordless": wanted}, choice.strange), said

    def _strange(self, prefix: Prefix, choice: Choice) -> set[int]:
        """What was said so far that nothing can be made of: 0 the opening, k the answer to the k-th turn."""
        return {*np.flatnonzero(prefix.distances >= STRANGE).tolist(), *choice.strange}

    def _heard(self, prefix: Prefix) -> dict[str, Any]:
        """What was said last, as the agent understood it."""
        last = (
            self.codes.answers[int(prefix.answers[-1])] if len(prefix) else self.codes.openings[prefix.first]
        )
        return {"act": last, "distance": float(prefix.distances[-1])}

    def _read_back(self, texts: Sequence[str], talks: Sequence[Sequence[Message]]) -> Heard:
        """How the codebook reads what is about to be said, from its words alone."""
        said = [Utterance(text, (None,), tuple(talk)) for text, talk in zip(texts, talks, strict=True)]
        return self.codes.agent.read(said)


def _chances(choice: Choice, size: int) -> np.ndarray:
    """[A], those that a choice was drawn with; 1 for the act itself if there are none."""
    if choice.probabilities is None:
        return np.eye(size)[choice.act]
    return np.asarray(choice.probabilities, np.float64)


def _in_a_row(strange: set[int], last: int) -> int:
    """How many of the latest turns up to `last` were strange."""
    count = 0
    while last - count in strange:
        count += 1
    return count
