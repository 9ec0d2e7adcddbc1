"""Looking ahead before speaking: several proposals are played out with a model of the partner.

    x_1 .. x_n ~ pi(. | h)        proposals of a speaker, after all that was said, h
    G_ij                          return of the rest of the j-th talk that begins with h, x_i
    said is x_i of the largest    (1/m) sum_j G_ij

In each of these talks the speaker goes on as it always does, with a model of the partner that it carries with
it; the partner that it really talks with is asked nothing. So the mean estimates Q^pi(h, x_i) as far as the
model is right, and one step of policy improvement is taken at every turn (Tesauro & Galperin 1996). Lewis et
al. 2017 (arXiv:1706.05125), section 5, do so in negotiations, where one network imagines both sides.

Differs from theirs: who proposes and who imagines the partner are any speaker and any model of one; equal
proposals are one; a talk in which the model breaks down is left out of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from turnwise.envs.dialogue import Message, Response
from turnwise.envs.tasks.table import Speaker
from turnwise.run.checks import ONE_OR_MORE, check

Talk = tuple[Message, ...]


class Imagined(Protocol):
    """A model of a partner that takes up a talk in the middle."""

    def take_up(self, lanes: Sequence[int], seeds: Sequence[int], talks: Sequence[Talk]) -> None:
        """Go on in each lane from a talk, as the agent has it, in which the agent has the next word."""
        ...

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The agent speaks in each lane; what follows."""
        ...


@dataclass(frozen=True)
class Ahead:
    """How far it looks."""

    proposals: int = 8
    """n, utterances that are proposed at a turn."""
    playouts: int = 8
    """m, talks in which each of them is played out."""
    longest: int = 10
    """Turns of the agent after which such a talk is cut; it counts for what it has earned."""
    lanes: int = 128
    """Talks at a time."""

    def __post_init__(self) -> None:
        check(self, proposals=ONE_OR_MORE, playouts=ONE_OR_MORE, longest=ONE_OR_MORE, lanes=ONE_OR_MORE)


class _Playout(NamedTuple):
    """A talk to be played out: all so far, what the agent says next, and the seeds of both sides."""

    talk: Talk
    words: str
    partner: int
    agent: int


@dataclass
class _Going:
    """One under way."""

    job: int
    talk: list[Message]
    words: str
    earned: float = 0.0
    turns: int = 0


class PlaysOut:
    """A `Speaker` that says, of another speaker's proposals, the one that was played out best.

    What it says is a function of the talk and of the lane's seed. If the other speaker cannot go on, neither
    can it. If every talk broke down, the first proposal is said.
    """

    def __init__(self, speaker: Speaker, partner: Imagined, ahead: Ahead = Ahead()) -> None:
        """`speaker` speaks for nobody else at the same time: all of its lanes are used here."""
        self.speaker, self.partner, self.ahead = speaker, partner, ahead
        self._seeds: dict[int, int] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Forget the talk of each lane."""
        self._seeds |= dict(zip(lanes, seeds, strict=True))

    def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
        """What is said in each lane after `seen`, all messages so far."""
        talks = [tuple(messages) for messages in seen]
        turns = [sum(m.role == "assistant" for m in talk) for talk in talks]
        rngs = [np.random.default_rng((self._seeds[n], k)) for n, k in zip(lanes, turns, strict=True)]
        proposed = self._proposals(talks, rngs)
        means = self.means(talks, proposed, rngs)
        return [
            None if not words else words[int(np.argmax(mean))]
            for words, mean in zip(proposed, means, strict=True)
        ]

    def means(
        self,
        talks: Sequence[Talk],
        proposed: Sequence[Sequence[str]],
        rngs: Sequence[np.random.Generator],
    ) -> list[np.ndarray]:
        """For each talk [proposals], the mean return of the playouts of each; -inf where all broke down.

        A single proposal is not played out: it has 0.
        """
        m, jobs = self.ahead.playouts, list[_Playout]()
        for talk, words, rng in zip(talks, proposed, rngs, strict=True):
            if len(words) > 1:
                # The j-th playouts of all proposals meet one partner: what differs is what was proposed.
                partners = rng.integers(2**62, size=m).tolist()
                own = rng.integers(2**62, size=(len(words), m)).tolist()
                for w, seeds in zip(words, own, strict=True):
                    jobs += [_Playout(talk, w, p, s) for p, s in zip(partners, seeds, strict=True)]
        returns = iter(self._play_out(jobs))
        found = []
        for words in proposed:
            if len(words) < 2:
                found.append(np.zeros(len(words)))
                continue
            earned = np.array([next(returns) for _ in range(len(words) * m)]).reshape(len(words), m)
            good = ~np.isnan(earned)
            total, count = np.where(good, earned, 0.0).sum(1), good.sum(1)
            found.append(np.where(count > 0, total / np.maximum(count, 1), -np.inf))
        return found

    def _proposals(self, talks: Sequence[Talk], rngs: Sequence[np.random.Generator]) -> list[list[str]]:
        """Different ones of each talk, in the order in which they were proposed."""
        asked = [
            (i, seed)
            for i, rng in enumerate(rngs)
            for seed in rng.integers(2**62, size=self.ahead.proposals).tolist()
        ]
        found: list[dict[str, None]] = [{} for _ in talks]
        for start in range(0, len(asked), self.ahead.lanes):
            some = asked[start : start + self.ahead.lanes]
            lanes = range(len(some))
            self.speaker.reset(lanes, [seed for _, seed in some])
            for (i, _), text in zip(
                some, self.speaker.answer(lanes, [talks[i] for i, _ in some]), strict=True
            ):
                if text is not None:
                    found[i][text] = None
        return [list(words) for words in found]

    def _play_out(self, jobs: Sequence[_Playout]) -> list[float]:
        """The return of what follows each talk; not a number where the partner broke down."""
        returns = [float("nan")] * len(jobs)
        waiting = list(range(len(jobs)))[::-1]
        going: dict[int, _Going] = {}
        free = list(range(self.ahead.lanes))[::-1]
        while waiting or going:
            self._begin(jobs, waiting, free, going)
            lanes = sorted(going)
            responses = self.partner.step(lanes, [going[n].words for n in lanes])
            speaks = []
            for n, response in zip(lanes, responses, strict=True):
                x = going[n]
                x.earned, x.turns = x.earned + response.reward, x.turns + 1
                x.talk += [Message("assistant", x.words), *response.messages]
                over = response.terminated or response.truncated or x.turns >= self.ahead.longest
                if not over:
                    speaks.append(n)
                    continue
                if not response.failed:
                    returns[x.job] = x.earned
                free.append(n)
                del going[n]
            said = self.speaker.answer(speaks, [going[n].talk for n in speaks]) if speaks else []
            for n, text in zip(speaks, said, strict=True):
                if text is None:  # the speaker's own context is full: a cut, with what was earned until then
                    returns[going[n].job] = going[n].earned
                    free.append(n)
                    del going[n]
                else:
                    going[n].words = text
        return returns

    def _begin(
        self, jobs: Sequence[_Playout], waiting: list[int], free: list[int], going: dict[int, _Going]
    ) -> None:
        """Fill free lanes with talks that are still to be played out."""
        starting = []
        while waiting and free:
            lane, job = free.pop(), waiting.pop()
            going[lane] = _Going(job, list(jobs[job].talk), jobs[job].words)
            starting.append((lane, jobs[job]))
        if starting:
            lanes = [lane for lane, _ in starting]
            self.partner.take_up(lanes, [x.partner for _, x in starting], [x.talk for _, x in starting])
            self.speaker.reset(lanes, [x.agent for _, x in starting])
