"""A language model talks with a task while it learns: whole conversations, as the ids that were sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.data.chat.format import ChatFormat
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import DialogueTask
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.conversations import Conversation, converse
from turnwise.rollout.engines.sampler import Sampler
from turnwise.run.errors import InputError

LANES = 256
"""conversations at a time"""


@dataclass(frozen=True)
class Held:
    """Conversations that were held, in groups with one partner each; failed ones are not among them."""

    conversations: list[Conversation]
    context: int
    """what the policy can read: what a partner said beyond it is left out"""
    left_out: int = 0
    """conversations whose partner failed, and those of the same group"""

    @property
    def rows(self) -> list[Tokens]:
        """What was said, as it was sampled."""
        return [c.tokens.window(0, min(len(c.tokens), self.context)) for c in self.conversations if c.tokens]

    @property
    def returns(self) -> np.ndarray:
        """[n], undiscounted."""
        return np.array([float(row.rewards.sum()) for row in self.rows])

    def metrics(self) -> dict[str, float]:
        """What is logged about them; `turnwise.run.metrics.TALKS` says what each number is."""
        turns = [len(c.dialogue.turns) for c in self.conversations]
        return {
            "episode_return": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "episode_length": float(np.mean(turns)),
            "tokens": float(np.mean([row.action.sum() for row in self.rows])),
            "truncated": float(np.mean([not c.dialogue.terminated for c in self.conversations])),
        }


@dataclass(frozen=True)
class LiveTalk:
    """Who answers, and how the policy speaks."""

    task: DialogueTask
    chat: ChatFormat
    max_new_tokens: int = 64

    def hold(self, policy: LmPolicy, count: int, seed: Sequence[int], group: int = 1) -> Held:
        """`count` conversations with `count` / `group` partners: a function of the policy and the seed.

        Members of a group meet the same partner: the same seed of it, so that they differ by what the policy
        draws alone. A group with a partner that failed is left out whole, as what remains of it was not
        chosen by chance. InputError if nothing is left.
        """
        lanes = min(LANES, count)
        model = Sampler(
            policy,
            lanes=lanes,
            context=policy.context,
            stop=self.chat.stop,
            max_new_tokens=self.max_new_tokens,
        )
        own = int(np.random.SeedSequence(tuple(seed)).generate_state(1, np.uint64)[0] >> 2)
        held = converse(
            model, self.task, self.chat, episodes=range(count), seed=own, lanes=lanes, group=group
        )
        groups = [held[i : i + group] for i in range(0, count, group)]
        kept = [c for g in groups if not any(c.failed or c.tokens is None for c in g) for c in g]
        if not kept:
            raise InputError(f"the partner failed in all of {len(groups):,} conversations or groups of them")
        return Held(kept, policy.context, count - len(kept))
