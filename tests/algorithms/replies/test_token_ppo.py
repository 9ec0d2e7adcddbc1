"""Token-level PPO beside a slow twin: one reply at a time, one token at a time, in plain numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.algorithms.replies.token_ppo import ActorAndCritic, Config, experience, loss
from turnwise.data.tokens import TokenWriter
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.rollout.one_turn import Judged
from turnwise.rollout.replies import Reply

CPU = torch.device("cpu")
SAID = [([5, 6], [7, 8, 0]), ([9], [10, 0]), ([5, 11, 12], [13, 14, 15, 16, 0]), ([9, 9], [0])]
C = Config(prompts_per_step=4, minibatches=2, lam=0.8, clip=0.2, value_clip=0.05, value_weight=0.7, beta=0.3)


def moved(model: torch.nn.Module, by: float) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p += by * torch.randn_like(p)


@pytest.fixture
def agent() -> ActorAndCritic:
    torch.manual_seed(0)
    lm = llama(20, width=16, layers=1, heads=2, context=16, eos=0, pad=1)
    agent = ActorAndCritic(LmPolicy(lm)).double()
    moved(agent.critic.v, 0.3)
    return agent


def number(x: Tensor) -> float:
    return float(x.detach())


def last_logp(lm: Any, ids: list[int]) -> Tensor:
    """[V], after a prefix that is read from its beginning."""
    return lm(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def value(agent: ActorAndCritic, ids: list[int]) -> Tensor:
    inputs = torch.tensor([ids])
    return agent.critic.v(agent.critic.trunk(input_ids=inputs, use_cache=False).last_hidden_state[0, -1])[0]


def slow_advantages(agent: ActorAndCritic, ref: Any, rewards: np.ndarray) -> list[list[tuple[float, ...]]]:
    """Of each token: log pi_old, V, advantage, return, by delta_k + lambda (delta_{k+1} + ...)."""
    found = []
    for (prompt, said), reward in zip(SAID, rewards, strict=True):
        old, v, r = [], [], []
        for k, token in enumerate(said):
            prefix = prompt + said[:k]
            old.append(number(last_logp(agent.policy.lm, prefix)[token]))
            r.append(-C.beta * (old[-1] - number(last_logp(ref.lm, prefix)[token])))
            v.append(number(value(agent, prefix)))
        r[-1] += reward
        row, after = [], 0.0
        for k in range(len(said) - 1, -1, -1):
            next_v = v[k + 1] if k + 1 < len(said) else 0.0
            after = r[k] + next_v - v[k] + C.lam * after
            row.append((old[k], v[k], after, after + v[k]))
        found.append(row[::-1])
    raw = [token[2] for row in found for token in row]
    mean = sum(raw) / len(raw)
    spread = math.sqrt(sum((x - mean) ** 2 for x in raw) / len(raw))
    return [[(o, v, (a - mean) / spread, g) for o, v, a, g in row] for row in found]


def slow_loss(
    agent: ActorAndCritic, known: list[list[tuple[float, ...]]], rows: range, clip: tuple[float, float]
) -> tuple[Tensor, set[str]]:
    """The three terms token by token, summed; and which cases occurred."""
    total, seen = torch.zeros((), dtype=torch.float64), set[str]()
    for i in rows:
        prompt, said = SAID[i]
        for k, token in enumerate(said):
            old, old_v, advantage, target = known[i][k]
            rho = (last_logp(agent.policy.lm, prompt + said[:k])[token] - old).exp()
            if advantage > 0:
                surrogate = -advantage * (rho if rho < 1 + clip[0] else torch.tensor(1 + clip[0]))
            else:
                surrogate = -advantage * (rho if rho > 1 - clip[0] else torch.tensor(1 - clip[0]))
            seen.add("clipped" if not surrogate.requires_grad else "not clipped")
            v = value(agent, prompt + said[:k])
            near = (
                v
                if abs(number(v) - old_v) <= clip[1]
                else torch.tensor(old_v + math.copysign(clip[1], number(v) - old_v), dtype=torch.float64)
            )
            errors = [(v - target) ** 2, (near - target) ** 2]
            seen.add("V clipped" if errors[1] > errors[0] else "V not clipped")
            total = total + surrogate + C.value_weight * max(errors, key=number)
    return total, seen


def test_a_slow_twin(agent: ActorAndCritic) -> None:
    """Advantages, returns, loss and gradient by every parameter, replies of unlike lengths and prompts."""
    reference = Reference(agent.policy.lm)
    moved(agent.policy.lm, 0.1)
    rewards = np.array([1.0, -2.0, 0.5, 3.0])
    known = slow_advantages(agent, reference, rewards)
    replies = []
    for (prompt, said), row in zip(SAID, known, strict=True):
        writer = TokenWriter()
        writer.read(prompt)
        writer.act(said, 0.0, None, [token[0] for token in row])
        replies.append(Reply((), "", writer.tokens(terminated=True, next_known=True, id=""), True))
    parts = experience(agent, reference, Judged(replies, rewards, None), C, C.beta, CPU)
    assert len(parts) == 2
    for n, part in enumerate(parts):
        for b in range(2):
            row = torch.tensor(known[2 * n + b])
            kept = part.batch.mask[b]
            assert int(kept.sum()) == len(row)
            for name, column in (("old_values", 1), ("advantages", 2), ("returns", 3)):
                assert_close(getattr(part, name)[b, kept].double(), row[:, column], rtol=1e-5, atol=1e-5)

    moved(agent, 0.03)
    cases = set[str]()
    for n, part in enumerate(parts):
        slow, seen = slow_loss(agent, known, range(2 * n, 2 * n + 2), (C.clip, C.value_clip))
        fast, _ = loss(agent, part, 7.0, C)
        cases |= seen
        assert_close(fast.double(), slow / 7, rtol=1e-5, atol=1e-5)
        parameters = list(agent.parameters())
        mine, twin = (
            torch.cat([g.flatten() for g in torch.autograd.grad(x, parameters, materialize_grads=True)])
            for x in (fast, slow / 7)
        )
        assert (mine - twin).norm() < 1e-5 * twin.norm()
    assert cases == {"clipped", "not clipped", "V clipped", "V not clipped"}
