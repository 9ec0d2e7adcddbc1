"""Policies that write: how probable each logged message is for them, and what they would have said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import TokenRows, token_rows
from turnwise.envs.dialogue import Message
from turnwise.models.lm.parts import context_of
from turnwise.rollout.agent import Agent
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.engines.sampler import Policy
from turnwise.rollout.scores import token_scores
from turnwise.run.progress import Progress

LANES = 64
"""replies that are sampled at a time"""


@dataclass(frozen=True)
class Spoken:
    """The agent's tokens in B conversations with M turns in all, N tokens one after the other.

    `logp` [N] in nats; `top` [N] the probability of the likeliest token and `hit` [N] whether that one was
    said. `turn` [N] numbers the turn of each token, from 0 to M - 1, and `place` [N] the token in its turn.
    """

    logp: np.ndarray
    top: np.ndarray
    hit: np.ndarray
    ids: np.ndarray
    turn: np.ndarray
    place: np.ndarray

    @property
    def by_turn(self) -> np.ndarray:
        """[M], ln P of each whole message, its stop token included."""
        return np.bincount(self.turn, self.logp)

    def parted(self, x: np.ndarray) -> list[np.ndarray]:
        """Numbers of all tokens [N], apart for each of the M turns."""
        return np.split(x, np.flatnonzero(np.diff(self.turn)) + 1)

    @property
    def last(self) -> np.ndarray:
        """[N] bool, the last token of each turn."""
        return np.append(self.turn[1:] != self.turn[:-1], True)


class Speaker(Protocol):
    """A policy whose messages have probabilities."""

    def score(self, dialogues: Sequence[Dialogue], *, seed: int, quiet: bool) -> tuple[np.ndarray, list[str]]:
        """ln P of each of the agent's messages [M] given all before it, and what people should know."""
        ...

    def say(
        self, talks: Sequence[tuple[Message, ...]], seeds: Sequence[int], *, quiet: bool
    ) -> list[str | None]:
        """A reply in each of the talks, in which it is the assistant; None where its context is full."""
        ...


def encoded(dialogues: Sequence[Dialogue], chat: ChatFormat, context: int, *, quiet: bool) -> TokenRows:
    """Conversations as a language model reads them."""
    with Progress("encoding", len(dialogues), quiet=quiet) as bar:
        return token_rows(dialogues, chat, context, bar.at)


def spoken_in(policy: Policy, decoding: Decoding, rows: TokenRows, what: str, *, quiet: bool) -> Spoken:
    """Scores of all that the agent said in whole conversations. Each token counts in one row: where the row
    before ended."""
    with Progress(what, len(rows), quiet=quiet) as bar:
        scores = token_scores(policy, decoding, rows, bar.at)
    parts: list[tuple[np.ndarray, ...]] = []
    for row, score in zip(rows, scores, strict=True):
        own = row.decisions >= row.learn_from
        said = row.decisions[own] + 1
        parts.append((score.logp[own], score.top[own], score.hit[own], row.ids[said], row.turn_end[said]))
    logp, top, hit, ids, end = (np.concatenate(x) for x in zip(*parts, strict=True))
    turn = np.cumsum(np.append(0, end[:-1]))
    begins = np.append(0, np.flatnonzero(end)[:-1] + 1)
    return Spoken(logp, top, hit, ids, turn, np.arange(len(turn)) - begins[turn])


@dataclass(frozen=True)
class LmSpeaker:
    """A language model, alone or guided by a critic of tokens."""

    agent: Agent

    def tokens(self, rows: TokenRows, *, quiet: bool) -> tuple[Spoken, list[str]]:
        """Scores of every token as the agent acts, and what people should know of them.

        A message is cut after `max_new_tokens`, and its stop token is then read as if it had been said: a
        longer one is never said, and one that is just as long needs no stop.
        """
        policy, decoding = self.agent.token_policy()
        found = spoken_in(policy, decoding, rows, "scoring the policy", quiet=quiet)
        most = self.agent.acting.max_new_tokens
        beyond = found.place == most
        logp = np.where(beyond, np.where(found.last, 0.0, -np.inf), found.logp)
        logp = np.where(found.place > most, 0.0, logp)
        unknown = self._unknown(found)
        logp = np.where(unknown, -np.inf, logp)
        turns, notes = int(found.turn[-1]) + 1, []
        if long := len(np.unique(found.turn[beyond & ~found.last])):
            notes.append(
                f"{long:,} of {turns:,} logged messages are longer than the policy ever speaks "
                f"(max_new_tokens is {most}): it never says them"
            )
        if strange := len(np.unique(found.turn[unknown])):
            notes.append(
                f"{strange:,} of {turns:,} logged messages hold characters that the policy's tokenizer "
                "cannot write: it never says them"
            )
        more = rows.conversation_lengths.above(context_of(self.agent.lm))
        if rows.cuts.conversations or more:
            notes.append(
                f"{max(more, rows.cuts.conversations):,} conversations are longer than the policy's context "
                f"of {context_of(self.agent.lm):,} tokens: it reads the later part of what was said before"
            )
        return replace(found, logp=logp), notes

    def score(self, dialogues: Sequence[Dialogue], *, seed: int, quiet: bool) -> tuple[np.ndarray, list[str]]:
        """ln P of each message."""
        rows = encoded(dialogues, self.agent.chat, context_of(self.agent.lm), quiet=quiet)
        found, notes = self.tokens(rows, quiet=quiet)
        return found.by_turn, notes

    def say(
        self, talks: Sequence[tuple[Message, ...]], seeds: Sequence[int], *, quiet: bool
    ) -> list[str | None]:
        """A reply in each of the talks."""
        ids, context = [self.agent.read(talk) for talk in talks], context_of(self.agent.lm)
        open_ = [i for i, x in enumerate(ids) if len(x) < context]
        found: list[str | None] = [None] * len(talks)
        with Progress("sampling the policy", len(open_), quiet=quiet) as bar:
            for at in range(0, len(open_), LANES):
                part = open_[at : at + LANES]
                model = self.agent.lane_model(len(part), self.agent.chat.stop)
                for lane, i in enumerate(part):
                    model.reset(lane, seeds[i])
                    model.submit(lane, ids[i])
                waiting = len(part)
                while waiting:
                    for u in model.collect():
                        found[part[u.lane]] = None if u.out_of_context else self.agent.chat.text(u.ids)
                        waiting -= 1
                bar.at(at + len(part))
        return found

    def _unknown(self, found: Spoken) -> Any:
        """[N] bool, tokens that stand for what the tokenizer does not know."""
        unknown = self.agent.tokenizer.unk_token_id
        if unknown is None or unknown == self.agent.chat.stop:
            return np.zeros(len(found.ids), bool)
        return found.ids == unknown


def before(d: Dialogue, turn: int) -> tuple[Message, ...]:
    """What was said before a turn of the agent (counted from 0), as the model reads it: as the assistant."""
    at = [i for i, m in enumerate(d.messages) if m.role == d.agent_role][turn]
    if d.agent_role == "assistant":
        return d.messages[:at]
    roles = {d.agent_role: "assistant", "assistant": "user"}
    return tuple(replace(m, role=roles.get(m.role, m.role)) for m in d.messages[:at])
