"""Replies to prompts: several to each, sampled in lanes that read their prompt once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from turnwise.data.chat.format import ChatFormat
from turnwise.data.feedback import Prompt
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.models.lm.parts import context_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.conversations import episode_seed
from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding
from turnwise.rollout.engines.protocol import Span, Utterance
from turnwise.rollout.engines.sampler import Sampler
from turnwise.rollout.engines.servers.engine import Engine
from turnwise.rollout.engines.servers.lanes import EngineLanes
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class Reply:
    """One sampled reply: ids are the record, `text` is what a reader sees.

    `stopped`: the policy said its stop token; else the limit on new tokens cut it, and the stop token is
    read as if it had been said. `columns`: whatever else is known of the prompt (an answer to check, say).
    """

    prompt: Prompt
    text: str
    tokens: Tokens
    stopped: bool
    columns: Mapping[str, Any] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    """which weights of an engine elsewhere spoke which tokens of it; empty if the policy itself spoke"""

    @property
    def length(self) -> int:
        """Tokens that were chosen, the stop token included."""
        return int(self.tokens.action.sum())

    def rewarded(self, reward: float) -> Tokens:
        """The row with its reward, after the last token chosen."""
        rewards = np.zeros(len(self.tokens))
        rewards[np.flatnonzero(self.tokens.action)[-1]] = reward
        return replace(self.tokens, rewards=rewards)


def sample_replies(
    policy: LmPolicy,
    chat: ChatFormat,
    prompts: Sequence[Prompt],
    *,
    group: int = 1,
    seed: int,
    max_new_tokens: int = 64,
    decoding: Decoding = POLICYS_OWN,
    lanes: int = 256,
    columns: Sequence[Mapping[str, Any]] | None = None,
    engine: Engine | None = None,
    places: Sequence[int] | None = None,
) -> list[Reply]:
    """`group` replies to each prompt, those of a prompt together; about `lanes` are spoken at a time.

    With an `engine` its servers speak, with the policy's weights as they are now. What is said depends on
    `seed` and the prompt's place alone; `places` are those among all prompts, if these are a part of them.
    InputError for a prompt that leaves no room in the context.
    """
    expect_room(policy, chat, prompts, max_new_tokens, engine)
    known = [{}] * len(prompts) if columns is None else columns
    # Servers queue what they cannot hold: they are asked for everything, and start with what is free.
    at_once = max(1, lanes // group) if engine is None else max(1, len(prompts))
    places = range(len(prompts)) if places is None else places
    replies: list[Reply] = []
    for start in range(0, len(prompts), at_once):
        part = prompts[start : start + at_once]
        opened = [chat.opening(p) for p in part]
        longest, count = max(map(len, opened)) + max_new_tokens, len(part) * group
        make = partial(Sampler, policy) if engine is None else partial(engine.lanes, policy)
        model = make(
            lanes=count,
            context=longest + 1,
            stop=chat.stop,
            decoding=decoding,
            max_new_tokens=max_new_tokens,
            at_least=count,
        )
        for lane in range(count):
            model.reset(lane, episode_seed(seed, places[start + lane // group] * group + lane % group, 0))
        said = _say(model, opened, group)
        replies += [
            _reply(chat, part[u.lane // group], opened[u.lane // group], u, known[start + u.lane // group])
            for u in said
        ]
    return replies


def has_room(policy: LmPolicy, chat: ChatFormat, prompt: Prompt, max_new_tokens: int) -> bool:
    """Whether a reply, and the stop token after one that is cut short, fit the context after a prompt."""
    return len(chat.opening(prompt)) + max_new_tokens + 1 <= context_of(policy.lm)


def expect_room(
    policy: LmPolicy,
    chat: ChatFormat,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    engine: Engine | None = None,
) -> None:
    """InputError for a prompt that leaves no room for a reply, in the policy's context or the engine's."""
    context, whose = context_of(policy.lm), ""
    if engine is not None and engine.context is not None and engine.context < context:
        context, whose = engine.context, " of the engine's servers"
    for prompt in prompts:
        if (read := len(chat.opening(prompt))) + max_new_tokens + 1 > context:
            raise InputError(
                f"the prompt {prompt[-1].content[:40]!r} has {read} tokens; a reply of {max_new_tokens} and "
                f"its end do not fit the context of {context}{whose} after it; expected a smaller "
                "max_new_tokens, or shorter prompts"
            )


def _say(model: Sampler | EngineLanes, opened: Sequence[list[int]], group: int) -> list[Utterance]:
    """All lanes speak. In a sampler a group's first lane reads the prompt and the others are copies of it."""
    shares = False  # a server remembers by itself what it has read
    if group > 1 and isinstance(model, Sampler):
        shares = True
        long = [(p * group, ids) for p, ids in enumerate(opened) if len(ids) > 1]
        model.read([lead for lead, _ in long], [ids[:-1] for _, ids in long])
        for lead, _ in long:
            model.copy_lane(lead, range(lead, lead + group))
    lanes = len(opened) * group
    for lane in range(lanes):
        ids = opened[lane // group]
        model.submit(lane, ids[-1:] if shares else ids)
    said: list[Utterance] = []
    while len(said) < lanes:
        said += model.collect()
    return sorted(said, key=lambda u: u.lane)


def _reply(
    chat: ChatFormat, prompt: Prompt, opened: Sequence[int], u: Utterance, columns: Mapping[str, Any]
) -> Reply:
    row = TokenWriter()
    row.read(opened)
    row.act(u.ids, 0.0, float(np.sum(u.logp)), u.logp)
    if not u.stopped:
        row.read([chat.stop])
    tokens = row.tokens(terminated=True, next_known=True, id="")
    return Reply(prompt, chat.text(u.ids), tokens, u.stopped, columns, u.spans)
