"""The lane loop: conversations in parallel, each lane refilled as soon as its conversation ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.envs.dialogue import DialogueTask, Message, Response
from turnwise.rollout.engines.protocol import LaneModel, Span, Utterance


@dataclass(frozen=True)
class Conversation:
    """One finished conversation: the messages as a view, the sampled ids as the record."""

    episode: int
    dialogue: Dialogue
    tokens: Tokens | None
    """None if the agent did not speak in tokens of its own"""
    info: Mapping[str, Any]
    hidden: Mapping[str, Any]
    turns: tuple[Mapping[str, Any], ...] = ()
    """what an agent of acts meant, understood and believed at each of its turns"""
    spans: tuple[tuple[Span, ...], ...] = ()
    """for each utterance, which weights of an engine spoke which tokens of it; empty without one"""
    failed: bool = False
    """whether the partner broke down, so that it counts for nothing"""


@dataclass
class _Lane:
    """A conversation under way."""

    episode: int
    messages: list[Message]
    row: TokenWriter = field(default_factory=TokenWriter)
    logp: float = 0.0
    spans: list[tuple[Span, ...]] = field(default_factory=list)


def episode_seed(seed: int, episode: int, who: int) -> int:
    """The seed of one side (0 the agent, 1 the partner) of one conversation, the same on any machine."""
    return int(np.random.SeedSequence((seed, episode, who)).generate_state(1, np.uint64)[0])


def converse(
    model: LaneModel,
    task: DialogueTask,
    chat: ChatFormat,
    *,
    episodes: Sequence[int],
    seed: int,
    lanes: int,
    progress: Callable[[int], None] | None = None,
    group: int = 1,
) -> list[Conversation]:
    """Hold the conversations `episodes`, `lanes` at a time; results in the order of `episodes`.

    A conversation that fills the context is truncated, not terminated. Every conversation of `episodes` is
    finished, so none is dropped for being long. With `group` G, conversations pG to pG + G - 1 are with one
    partner: the same seed of it, and other seeds of the agent.
    """
    return _Loop(model, task, chat, seed, group).run(episodes, lanes, progress)


class _Loop:
    def __init__(self, model: LaneModel, task: DialogueTask, chat: ChatFormat, seed: int, group: int):
        self.model, self.task, self.chat, self.seed, self.group = model, task, chat, seed, group
        self.open: dict[int, _Lane] = {}
        self.done: dict[int, Conversation] = {}

    def run(
        self, episodes: Sequence[int], lanes: int, progress: Callable[[int], None] | None
    ) -> list[Conversation]:
        queue = list(reversed(episodes))
        self._begin(range(min(lanes, len(queue))), queue)
        while self.open:
            before = len(self.done)
            freed = self._answer(self.model.collect())
            if progress is not None and len(self.done) > before:
                progress(len(self.done))
            self._begin(freed, queue)
        return [self.done[e] for e in episodes]

    def _begin(self, free: Sequence[int], queue: list[int]) -> None:
        """Refill lanes with the next conversations."""
        starting = [(lane, queue.pop()) for lane in free if queue]
        if not starting:
            return
        seeds = [episode_seed(self.seed, episode // self.group, 1) for _, episode in starting]
        openings = self.task.reset([lane for lane, _ in starting], seeds)
        for (lane, episode), messages in zip(starting, openings, strict=True):
            state = self.open[lane] = _Lane(episode, list(messages))
            ids = self.chat.opening(messages)
            state.row.read(ids)
            self.model.reset(lane, episode_seed(self.seed, episode, 0))
            self.model.submit(lane, ids)

    def _answer(self, utterances: list[Utterance]) -> list[int]:
        """Record what was said, let partners answer; lanes whose conversation is over."""
        freed, spoken = [], []
        for u in utterances:
            if u.out_of_context:
                freed.append(self._close(u.lane, Response((), 0.0, truncated=True), u))
            else:
                spoken.append(u)
        if not spoken:
            return freed
        texts = [self.chat.text(u.ids) for u in spoken]
        responses = self.task.step([u.lane for u in spoken], texts)
        for u, text, response in zip(spoken, texts, responses, strict=True):
            # The lane is over: its memory is not read on, and the next conversation takes its place.
            if response.terminated or response.truncated:
                freed.append(self._close(u.lane, response, u, text))
                continue
            state = self.open[u.lane]
            self._record(state, u, text, response.reward)
            # The cache of the lane has read everything up to the agent's stop token, so only what is new is
            # encoded and read: nothing that was sampled is ever encoded again.
            history = list(state.messages)
            state.messages += response.messages
            ids = self.chat.continuation(history, response.messages)
            state.row.read(ids)
            self.model.submit(u.lane, ids)
        return freed

    def _record(self, state: _Lane, u: Utterance, text: str, reward: float) -> None:
        logp = float(np.sum(u.logp))  # of the whole message, stop token included; rounding can exceed 0
        state.messages.append(Message("assistant", text, reward, min(logp, 0.0)))
        state.row.act(u.ids, reward, logp, u.logp)
        state.spans.append(u.spans)
        if not u.stopped:
            state.row.read([self.chat.stop])

    def _close(self, lane: int, response: Response, u: Utterance, text: str | None = None) -> int:
        state = self.open.pop(lane)
        if text is not None:
            self._record(state, u, text, response.reward)
        elif u.ids:  # the context cut the agent short: a turn without an end, and without a reward
            state.messages.append(Message("assistant", self.chat.text(u.ids)))
            state.row.act(u.ids, 0.0, None, u.logp, complete=False)
            state.spans.append(u.spans)
        if response.messages:
            history = list(state.messages)
            state.messages += response.messages
            state.row.read(self.chat.continuation(history, response.messages))
        # After a cut right behind the agent's own words, the state that they led to was never seen.
        spoke_last = not response.messages and text is not None
        self.done[state.episode] = Conversation(
            episode=state.episode,
            dialogue=Dialogue(tuple(state.messages), response.terminated, id=str(state.episode)),
            tokens=state.row.tokens(
                terminated=response.terminated,
                next_known=response.terminated or not spoke_last,
                id=str(state.episode),
            ),
            info=response.info,
            hidden=dict(self.task.hidden(lane)),
            spans=tuple(state.spans),
            failed=response.failed,
        )
        return lane
