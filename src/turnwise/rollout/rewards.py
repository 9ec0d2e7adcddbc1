"""What a reply is worth: any function of TRL's kind, a reward model, and how rewards are put together.

A reward maps replies to one number each; nan says that it has nothing to say of a reply.
"""

from __future__ import annotations

import inspect
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from turnwise.data.feedback import Prompt
from turnwise.data.tokens import Tokens
from turnwise.rollout.replies import Reply
from turnwise.run.errors import InputError


class RewardFailed(InputError):
    """A reward function raised. `passing`: what it raised may pass, as a time-out does, if one asks again."""

    passing = True


_FAULTS = (TypeError, NameError, AttributeError, ImportError, AssertionError, NotImplementedError)
"""what code that is wrong raises, however often it is run"""


class Reward(Protocol):
    """A number for each reply."""

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """[n], in units of reward; nan where it has no opinion."""
        ...


class ReadsText(Protocol):
    """How a reward model reads words: a `ChatFormat`, or one that sees to the model's context too."""

    def reply(self, prompt: Prompt, text: str, /) -> Tokens | None:
        """A row of ids of a prompt and a reply to it; None if the model cannot read so much."""
        ...


def chat_messages(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as chat messages."""
    return [{"role": m.role, "content": m.content} for m in prompt]


@dataclass(frozen=True)
class FunctionReward:
    """A reward function in TRL's signature: f(prompts, completions, completion_ids, **columns) -> numbers.

    Prompts and completions are chats ([{role, content}]), or plain text if the prompts were given as text
    (`text`); `completion_ids` lists of ids, columns lists of what else is known of each prompt. None is no
    opinion. RewardFailed if it fails; InputError if it returns anything but one finite number or None for
    each reply.
    """

    function: Callable[..., Any]
    text: bool = False

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """Call it on all replies at once."""
        names = dict.fromkeys(name for r in replies for name in r.columns)
        columns = {name: [r.columns.get(name) for r in replies] for name in names}
        completions = [r.text if self.text else [{"role": "assistant", "content": r.text}] for r in replies]
        name = getattr(self.function, "__name__", "the reward function")
        try:
            found = self.function(
                prompts=[r.prompt[-1].content if self.text else chat_messages(r.prompt) for r in replies],
                completions=completions,
                completion_ids=[r.tokens.ids[r.tokens.action].tolist() for r in replies],
                **columns,
            )
        except Exception as e:  # whatever somebody's function raises
            where = traceback.extract_tb(e.__traceback__)[-1]
            given = ", ".join(["prompts", "completions", "completion_ids", *columns])
            failed = RewardFailed(
                f"{name} failed with {type(e).__name__}: {e} ({Path(where.filename).name}:{where.lineno}); "
                f"it was given {given}{_TAKE_ALL if isinstance(e, TypeError) else ''}"
            )
            failed.passing = not isinstance(e, _FAULTS)
            raise failed from e
        if inspect.iscoroutine(found):
            found.close()
            raise InputError(f"{name}: expected a function that returns rewards; found an async one")
        try:
            values = np.array([np.nan if x is None else _number(x) for x in found], np.float64)
        except (TypeError, ValueError):
            raise InputError(
                f"{name}: expected a list of finite numbers or None; found {str(found)[:60]}"
            ) from None
        if len(values) != len(replies):
            raise InputError(f"{name}: expected {len(replies)} rewards, one a reply; found {len(values)}")
        for x, value, reply in zip(found, values, replies, strict=True):
            if x is not None and not math.isfinite(value):
                raise not_finite(name, value, reply)
        return values


_TAKE_ALL = " (a function takes what it does not need as **columns)"


def _number(x: Any) -> float:
    if isinstance(x, str):
        raise ValueError
    return float(x)


def not_finite(name: str, value: float, reply: Reply) -> InputError:
    """The refusal of a reward that is no number, to be raised: it names the reply and its prompt."""
    return InputError(
        f"{name}: expected a list of finite numbers or None; found {value:g} for the reply "
        f"{reply.text[:60]!r} to the prompt {reply.prompt[-1].content[:60]!r}"
    )


@dataclass(frozen=True)
class WeightedSum:
    """sum_i w_i r_i over the rewards that have an opinion, and the terms; nan where no reward has one."""

    rewards: tuple[Reward, ...]
    weights: tuple[float, ...]
    terms: tuple[Reward, ...] = ()
    """Rewards that are added to an opinion and are none by themselves: a length, say."""

    def __post_init__(self) -> None:
        if not self.rewards or len(self.rewards) != len(self.weights):
            raise ValueError(
                f"{len(self.rewards)} rewards with {len(self.weights)} weights; expected as many"
            )

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """Each reward once, then the sum."""
        each = np.stack([w * r(replies) for r, w in zip(self.rewards, self.weights, strict=True)])
        whole = np.where(np.isnan(each).all(0), np.nan, np.nansum(each, axis=0))
        return whole + sum(term(replies) for term in self.terms)


@dataclass(frozen=True)
class ClippedReward:
    """min(max(r, low), high)."""

    reward: Reward
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"rewards clipped to at least {self.low} and at most {self.high}")

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """Clipped rewards; nan stays nan."""
        return np.clip(self.reward(replies), self.low, self.high)


@dataclass(frozen=True)
class LengthReward:
    """`per_token` times the tokens of the reply beyond `free`; negative makes replies shorter."""

    per_token: float
    free: int = 0

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """One number a reply, by its chosen tokens with the stop token."""
        return self.per_token * np.array([max(0, r.length - self.free) for r in replies], np.float64)


@dataclass(frozen=True)
class Patient:
    """A reward that is asked again if it fails with what may pass: up to `retries` times.

    Before the first time it waits `wait` seconds, and twice as long before each further one. `say` is told.
    """

    reward: Reward
    retries: int
    wait: float
    say: Callable[[str], None]

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """What the reward says in the end. RewardFailed if it fails each time."""
        for again in range(self.retries):
            try:
                return self.reward(replies)
            except RewardFailed as e:
                if not e.passing:
                    raise
                pause = self.wait * 2**again
                self.say(f"{e}. It is asked again in {pause:g} s ({again + 1} of {self.retries} times)")
                time.sleep(pause)
        return self.reward(replies)


def judged_groups(reward: Reward, replies: Sequence[Reply], group: int) -> tuple[np.ndarray, np.ndarray]:
    """(rewards [P G], whether there is an opinion of every reply of a group [P]).

    Replies of a group are compared with each other: one that nobody judged leaves out all of them.
    """
    rewards = reward(replies)
    for i in np.flatnonzero(np.isinf(rewards))[:1]:
        raise not_finite("the reward", float(rewards[i]), replies[i])
    return rewards, np.asarray(np.isfinite(rewards).reshape(-1, group).all(1))


@dataclass(frozen=True)
class UnfinishedPenalty:
    """`penalty` for a reply that the limit on tokens cut before its stop token, else 0."""

    penalty: float

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """-penalty for each reply that was cut, else 0."""
        return np.array([0.0 if r.stopped else -self.penalty for r in replies])


@dataclass(frozen=True)
class ModelReward:
    """A reward model's opinion: `score` gives rows of ids [E, n] rewards, E members of an ensemble.

    Rewards are (mean - doubt * deviation of the members - shift) / scale: `doubt` holds back if members
    disagree (Coste et al. 2023, arXiv:2310.02743, section 3.2, with their variance); shift and scale put the
    reference policy's replies at mean 0 and deviation 1, so that weights of the KL mean the same for every
    model. Where the model reads with the policy's tokenizer (`chat` None) it reads the sampled ids
    themselves, else the text.
    """

    score: Callable[[Sequence[Tokens]], np.ndarray]
    chat: ReadsText | None = None
    doubt: float = 0.0
    shift: float = 0.0
    scale: float = 1.0

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """One number a reply; nan if it cannot read it."""
        rows = [r.tokens if self.chat is None else self.chat.reply(r.prompt, r.text) for r in replies]
        found = np.full(len(rows), np.nan)
        read = np.array([row is not None for row in rows], bool)
        if read.any():
            each = self.score([row for row in rows if row is not None])
            spread = each.std(0) if len(each) > 1 else 0.0
            found[read] = (each.mean(0) - self.doubt * spread - self.shift) / self.scale
        for i in np.flatnonzero(read & ~np.isfinite(found))[:1]:  # it would pass for no opinion
            raise not_finite("the reward model", float(found[i]), replies[i])
        return found

    def standardised_on(self, replies: Sequence[Reply]) -> ModelReward:
        """The same, with mean 0 and deviation 1 over these replies. ValueError if they are all alike."""
        worth = replace(self, shift=0.0, scale=1.0)(replies)
        worth = worth[~np.isnan(worth)]
        if not len(worth):
            raise ValueError(
                "the reward model can read none of the replies; expected shorter prompts or replies"
            )
        if not worth.std() > 0:
            raise ValueError("the reward model gives all replies one reward; expected it to tell them apart")
        return replace(self, shift=float(worth.mean()), scale=float(worth.std()))
