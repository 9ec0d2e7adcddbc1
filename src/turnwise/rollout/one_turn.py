"""One turn of experience: prompts in a fixed random order, replies to them, what the replies are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.feedback import Prompt
from turnwise.data.order import chunks
from turnwise.data.tokens import Tokens
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.rollout.conversations import episode_seed
from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding
from turnwise.rollout.engines.servers.engine import Engine
from turnwise.rollout.engines.servers.handshake import own_logp
from turnwise.rollout.replies import Reply, sample_replies
from turnwise.rollout.rewards import Reward, judged_groups
from turnwise.rollout.spread import Spread

T = TypeVar("T")

ROWS = 256
"""replies read at a time"""


class Processes(Protocol):
    """What the loop needs of the processes of a run: their shares, and what they found."""

    @property
    def rank(self) -> int:
        """Of this process."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def own(self, items: Sequence[T], /) -> tuple[list[T], bool]:
        """This process's items, and whether they count."""
        ...

    def gather(self, do: Callable[[], T], /) -> list[T]:
        """What `do` gives on every process."""
        ...

    def total(self, x: Tensor, /) -> Tensor:
        """Sum over all of them."""
        ...


@dataclass(frozen=True)
class _Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def own(self, items: Sequence[T], /) -> tuple[list[T], bool]:
        return list(items), True

    def gather(self, do: Callable[[], T], /) -> list[T]:
        return [do()]

    def total(self, x: Tensor, /) -> Tensor:
        return x.double()


class Run(Protocol):
    """What the loop needs of a training run: its steps, and where counts and metrics go."""

    @property
    def world(self) -> Processes:
        """The processes that it has."""
        ...

    def steps(self, total: int, learner: Any, /) -> Iterator[int]:
        """Numbers of the steps still to do."""
        ...

    def count(self, **found: int) -> None:
        """Add to what is counted over the whole run."""
        ...

    def due(self, step: int, /) -> bool:
        """Whether metrics of this step are logged."""
        ...

    def log(self, step: int, metrics: Mapping[str, Any], /) -> None:
        """Write metrics of a step."""
        ...


@dataclass(frozen=True)
class OneTurn:
    """Prompts, and the reward that judges the replies to them.

    `gold`, the true reward if it is known, is only recorded: nothing is learnt from it. `engine`: servers
    that speak for the policy; without it the policy speaks itself, here or, with `spread`, on workers that
    are given its weights at each step.
    """

    chat: ChatFormat
    prompts: Sequence[Prompt]
    reward: Reward
    gold: Reward | None = None
    columns: Sequence[Mapping[str, Any]] | None = None
    max_new_tokens: int = 64
    decoding: Decoding = POLICYS_OWN
    engine: Engine | None = None
    spread: Spread | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("no prompts; expected at least one")

    def steps(
        self,
        learner: Any,
        run: Run,
        total: int,
        *,
        prompts: int,
        group: int,
        seed: int,
        least: int = 1,
    ) -> Iterator[tuple[int, Judged]]:
        """(step, replies of it) of the steps still to do that have something to learn from.

        Prompts of which the reward has no opinion are left out. A step in which fewer than `least` of them
        remain is skipped. Both are counted.
        """
        for step in run.steps(total, learner):
            judged = self.sample(learner.acting(), step, prompts, group, seed, run.world)
            enough = len(judged.replies) >= least * group
            run.count(left_out=judged.left_out, skipped=int(not enough))
            if enough:
                yield step, judged
            elif run.due(step):
                run.log(step, {})

    def sample(
        self,
        policy: LmPolicy,
        step: int,
        prompts: int,
        group: int,
        seed: int,
        world: Processes = _Alone(),
    ) -> Judged:
        """`group` replies to each of the next `prompts` prompts: a function of the policy, seed and step.

        A prompt is left out if the reward has no opinion of one of the replies to it. Each process samples
        and judges its share of the prompts. What was said is a few numbers, and all of them then have it all.
        """
        chosen = self.chosen(step, prompts, seed)
        turns, count = world.own(range(len(chosen)))

        def mine() -> tuple[list[Reply], np.ndarray, np.ndarray]:
            if not count:
                return [], np.zeros(0), np.zeros(0, bool)
            asked = [self.prompts[chosen[k]] for k in turns]
            sample = (
                partial(sample_replies, engine=self.engine) if self.spread is None else self.spread.sample
            )
            replies = sample(
                policy,
                self.chat,
                asked,
                group=group,
                seed=episode_seed(seed, step, 2),
                max_new_tokens=self.max_new_tokens,
                decoding=self.decoding,
                columns=None if self.columns is None else [self.columns[chosen[k]] for k in turns],
                places=turns,
            )
            return replies, *judged_groups(self.reward, replies, group)

        found = world.gather(mine)
        # Prompt k is the (k // size)-th of process k % size.
        at = [divmod(k, world.size) for k in range(len(chosen))]
        replies = [found[r][0][i * group + g] for i, r in at for g in range(group)]
        rewards = np.array([found[r][1][i * group + g] for i, r in at for g in range(group)])
        known = np.array([found[r][2][i] for i, r in at], bool)
        spoken = self._beside(policy, replies, group)
        places = np.flatnonzero(known.repeat(group))
        replies, rewards = [replies[i] for i in places], rewards[places]
        gold = self.gold(replies) if self.gold is not None and replies else None
        return Judged(replies, rewards, gold, int((~known).sum()), spoken, world)

    def _beside(self, policy: LmPolicy, replies: Sequence[Reply], group: int) -> dict[str, float]:
        """The engine's log-probabilities beside the policy's own at the version that spoke, as metrics.

        The engine's are those of the policy that acted, and what importance ratios are made of.
        """
        if self.engine is None or self.decoding != POLICYS_OWN:
            return {}
        rows = [r.tokens for r in replies]
        return self.engine.compared([t.token_logp[t.action] for t in rows], own_logp(policy, rows, group))

    def chosen(self, step: int, prompts: int, seed: int) -> list[int]:
        """Prompts of a step: all of them in a random order, then all again in another."""
        found, n = [], len(self.prompts)
        for k in range(step * prompts, (step + 1) * prompts):
            epoch, place = divmod(k, n)
            rng = np.random.default_rng(np.random.SeedSequence((seed, 11, epoch)))
            found.append(int(rng.permutation(n)[place]))
        return found


@dataclass(frozen=True)
class Judged:
    """Replies, those of a prompt together, and what they are worth."""

    replies: list[Reply]
    rewards: np.ndarray
    """[n]"""
    gold: np.ndarray | None
    """[n], never learnt from"""
    left_out: int = 0
    """prompts whose replies are not here, since the reward had no opinion of one of them"""
    engine: Mapping[str, float] = field(default_factory=dict)
    """metrics of the engine that spoke; empty if the policy itself did"""
    world: Processes = _Alone()
    """the processes that learn from them: each from its share of every batch"""

    @property
    def tokens(self) -> int:
        """Tokens that were chosen, in all replies."""
        return sum(r.length for r in self.replies)

    def rows(self) -> list[Tokens]:
        """Token rows without a reward: what a reply is worth is the algorithm's to place."""
        return [r.tokens for r in self.replies]

    def minibatches(
        self, count: int, group: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> list[Batch]:
        """All replies in at most `count` batches of whole groups; each one's reward is after its last token.

        The reward of a reply is then `batch.rewards.sum(1)` [B], and per token `batch.rewards` [B, A]. On
        several processes they are this one's groups of each batch.
        """
        rows = [reply.rewarded(float(r)) for reply, r in zip(self.replies, self.rewards, strict=True)]
        parts = self.parts(count, group)
        own = (self.own(rows[part], group) for part in parts)
        return [pack_tokens(part, gamma=1.0, dtype=dtype).to(device) for part in own]

    def parts(self, count: int, group: int) -> list[slice]:
        """Which replies the batches of `minibatches` hold, those of all processes together."""
        groups = len(self.replies) // group
        size = -(-groups // count) * group  # rounded up
        return [slice(i, i + size) for i in range(0, len(self.replies), size)]

    def own(self, rows: Sequence[Tokens], group: int) -> list[Tokens]:
        """This process's groups among `rows`; if it has none, one of which nothing is learnt."""
        groups, count = self.world.own([rows[i : i + group] for i in range(0, len(rows), group)])
        return [row if count else row.idle() for part in groups for row in part]

    def together(self, own: Tensor) -> Tensor:
        """[n], numbers of all replies from those of this process's own, when rows are shared one by one."""
        mine = own.detach().cpu()[: len(range(self.world.rank, len(self.replies), self.world.size))]
        found, every = mine.new_zeros(len(self.replies)), self.world.gather(lambda: mine)
        for rank, part in enumerate(every):
            found[rank :: self.world.size] = part
        return found.to(own.device)

    @torch.inference_mode()
    def kl_to(self, reference: Reference, device: torch.device, group: int) -> float:
        """KL(policy || reference) in nats a reply, by the policy's log-probabilities when it spoke: unbiased,
        of all replies, whichever are learnt from.
        """
        kl, rows = 0.0, self.rows()
        for part in chunks(rows, group * max(1, ROWS // group)):
            b = pack_tokens(self.own(part, group), gamma=1.0).to(device)
            assert b.behavior_logp is not None
            ref_logp = reference.logp(b, group=group)
            kl += float(self.world.total((b.behavior_logp - ref_logp)[b.loss_mask].sum()))
        return kl / len(rows)

    def metrics(self) -> dict[str, float]:
        """What is logged about the replies; `turnwise.run.metrics.REPLIES` says what each number is."""
        lengths = [r.length for r in self.replies]
        found = {
            "reward": float(self.rewards.mean()),
            "reward_std": float(self.rewards.std()),
            "completions/mean_length": float(np.mean(lengths)),
            "completions/clipped_ratio": float(np.mean([not r.stopped for r in self.replies])),
        }
        found |= self.engine
        return found if self.gold is None else found | {"gold": float(self.gold.mean())}
