"""Replies sampled in shards, maybe on other machines, by the policy's weights as they are now."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from turnwise.data.chat.format import ChatFormat
from turnwise.data.feedback import Prompt
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.served import version_of
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.engines.protocol import Span
from turnwise.rollout.replies import Reply, sample_replies

P = TypeVar("P")
R = TypeVar("R")


class Workers(Protocol):
    """What does the shards (`turnwise.run.shards.here.Workers`)."""

    def each(self, do: Callable[[Any, P], R], shared: Any, parts: Sequence[P], /) -> list[R]:
        """`do(shared, part)` of each part, in their order."""
        ...


@dataclass(frozen=True)
class Spread:
    """Workers that sample, and how many shards the prompts of a step are divided into."""

    workers: Workers
    shards: int

    def sample(
        self,
        policy: LmPolicy,
        chat: ChatFormat,
        prompts: Sequence[Prompt],
        *,
        group: int,
        seed: int,
        max_new_tokens: int,
        decoding: Decoding,
        columns: Sequence[Mapping[str, Any]] | None,
        places: Sequence[int],
    ) -> list[Reply]:
        """What `sample_replies` gives of the same arguments, but for rounding, each with who spoke it.

        `spans` name the version of the weights, which all workers have: they are sent with the work.
        """
        shared = _Shared(on_cpu(policy), chat, group, seed, max_new_tokens, decoding)
        mine = [range(i, len(prompts), self.shards) for i in range(min(self.shards, len(prompts)))]
        parts = [
            _Part(
                [prompts[k] for k in ks],
                [places[k] for k in ks],
                None if columns is None else [columns[k] for k in ks],
            )
            for ks in mine
        ]
        version, said = version_of(policy.lm), self.workers.each(_sampled, shared, parts)
        replies: list[Any] = [None] * (len(prompts) * group)
        for ks, found in zip(mine, said, strict=True):
            for i, reply in enumerate(found):
                span = Span(version, 0, reply.length)
                replies[ks[i // group] * group + i % group] = replace(reply, spans=(span,))
        return replies


def on_cpu(policy: LmPolicy) -> LmPolicy:
    """The policy itself, or a copy of it where its device is none that other machines have."""
    return policy if next(policy.parameters()).device.type == "cpu" else copy.deepcopy(policy).cpu()


@dataclass(frozen=True)
class _Shared:
    """What all shards of a step share."""

    policy: LmPolicy
    chat: ChatFormat
    group: int
    seed: int
    max_new_tokens: int
    decoding: Decoding


@dataclass(frozen=True)
class _Part:
    """The prompts of a shard, and their places among all of the step."""

    prompts: Sequence[Prompt]
    places: Sequence[int]
    columns: Sequence[Mapping[str, Any]] | None


def _sampled(shared: _Shared, part: _Part) -> list[Reply]:
    return sample_replies(
        shared.policy,
        shared.chat,
        part.prompts,
        group=shared.group,
        seed=shared.seed,
        max_new_tokens=shared.max_new_tokens,
        decoding=shared.decoding,
        columns=part.columns,
        places=part.places,
    )
