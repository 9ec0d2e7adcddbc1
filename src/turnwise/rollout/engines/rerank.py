"""Acting by choosing among several samples of a policy: propose n utterances, say one that a critic likes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding
from turnwise.rollout.engines.protocol import Utterance
from turnwise.rollout.engines.sampler import Policy, Sampler


class WithReader:
    """A policy whose lanes are also read by another trunk (a critic's), which has no say in the logits."""

    def __init__(self, policy: Policy, reader: nn.Module):
        self.policy, self.trunks = policy, (*policy.trunks, reader)

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """The policy's own logits."""
        return self.policy.logits(features[:-1])


def value_of_utterance(critic: TokenCritic | TurnCritic) -> Callable[[Tensor, Tensor], Tensor]:
    """What a critic says of a whole utterance, as `Reranker` asks it.

        turn critic     min_i Q_i(s, u), read behind the stop token
        token critic    min_i Q_i(s', a), a its last token and s' all that was said before it

    Within a turn nothing is earned and nobody else speaks, so that (at `gamma_within_turn` 1) Q of the last
    token is what it is worth to have said them all.
    """
    if isinstance(critic, TokenCritic):
        return critic.q_min_of
    return lambda features, last: critic.q_min(features)


class Reranker:
    """A `LaneModel` that samples `proposals` utterances a turn and says one, ~ softmax(beta Q).

    Each lane is a group of lanes of an inner sampler; the group goes on from the memory of the proposal that
    was said. Proposals that the context cuts off are out; if it cuts off all, the first one is said.
    `score` maps the reader's features [n, D] and the last token of each utterance [n] to Q [n]. The features
    are those behind its stop token, or, unless `read_stop`, those from which its last token was chosen.
    `beta` is in nats per unit of Q. The recorded log-probabilities are the proposal's own, not those of
    having been chosen.
    """

    def __init__(
        self,
        policy: Policy,
        reader: nn.Module,
        score: Callable[[Tensor, Tensor], Tensor],
        *,
        lanes: int,
        proposals: int,
        beta: float,
        context: int,
        stop: int,
        decoding: Decoding = POLICYS_OWN,
        max_new_tokens: int = 64,
        read_stop: bool = True,
    ):
        self.score, self.proposals, self.beta = score, proposals, beta
        self.shifts: dict[int, float] = {}
        """by lane: log(n p) of the last utterance, said with probability p out of n proposals, in nats"""
        self.inner = Sampler(
            WithReader(policy, reader),
            lanes=lanes * proposals,
            context=context,
            stop=stop,
            decoding=decoding,
            max_new_tokens=max_new_tokens,
            read_stop=read_stop,
        )
        self._heard: dict[int, list[Utterance]] = {}
        self._rng: dict[int, np.random.Generator] = {}

    def reset(self, lane: int, seed: int) -> None:
        """Forget the lane and seed its randomness."""
        seeds = np.random.SeedSequence(seed).generate_state(self.proposals + 1, np.uint64)
        for member, own in zip(self._group(lane), seeds, strict=False):
            self.inner.reset(member, int(own))
        self._rng[lane] = np.random.default_rng(int(seeds[-1]))

    def submit(self, lane: int, ids: Sequence[int]) -> None:
        """Let all members of the group read `ids` and propose."""
        self._heard[lane] = []
        for member in self._group(lane):
            self.inner.submit(member, ids)

    def collect(self) -> list[Utterance]:
        """Wait for whole groups; one utterance each."""
        said: list[Utterance] = []
        while self._heard and not said:
            for u in self.inner.collect():
                self._heard[u.lane // self.proposals].append(u)
            whole = [lane for lane, heard in self._heard.items() if len(heard) == self.proposals]
            said += [self._choose(lane) for lane in whole]
        return said

    def _group(self, lane: int) -> range:
        return range(lane * self.proposals, (lane + 1) * self.proposals)

    @torch.inference_mode()
    def _choose(self, lane: int) -> Utterance:
        members = sorted(self._heard.pop(lane), key=lambda u: u.lane)
        heard = [u for u in members if not u.out_of_context]
        if not heard:
            return replace(members[0], lane=lane)
        features = self.inner.features[-1]
        assert features is not None
        last = torch.as_tensor([u.ids[-1] for u in heard], device=features.device)
        q = self.score(features[[u.lane for u in heard]], last).double().cpu().numpy()
        logits = self.beta * (q - q.max())
        p = np.exp(logits) / np.exp(logits).sum()
        k = self._rng[lane].choice(len(heard), p=p)
        chosen, self.shifts[lane] = heard[k], float(np.log(len(heard) * p[k]))
        self.inner.copy_lane(chosen.lane, self._group(lane))
        return replace(chosen, lane=lane)
