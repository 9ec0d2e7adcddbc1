"""Rows in parts: the same losses, gradients and steps as all at once; what is cut, and where."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from turnwise.algorithms.feedback import dpo, kto, orpo, reward, simpo
from turnwise.algorithms.logs import bc, ilql, mc, turn_iql
from turnwise.algorithms.replies import best_of_n, grpo, online_dpo, reply_reinforce, rloo, token_ppo
from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.comparisons import Comparison, JudgedReply
from turnwise.data.feedback import Like, Pair
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.reward_model import RewardModel
from turnwise.models.target import slow_copy
from turnwise.rollout.one_turn import Judged
from turnwise.rollout.replies import Reply
from turnwise.run.control import AdaptiveWeight
from turnwise.run.distributed import World
from turnwise.run.learner import Learner
from turnwise.run.passes import Passes
from turnwise.run.settings import AdamW

f64 = torch.float64
VOCAB, RATE = 13, AdamW(1e-2)


def lm(lora: int = 0) -> Any:
    torch.manual_seed(0)
    made = llama(VOCAB, width=8, layers=2, heads=2, context=64, eos=1, pad=0)
    return (with_lora(made, lora) if lora else made).double()


def spoken(n: int = 5) -> list[Tokens]:
    """Conversations of different lengths."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        writer = TokenWriter()
        for _ in range(1 + i % 3):
            writer.read(rng.integers(2, VOCAB, 2 + i).tolist())
            writer.act([*rng.integers(2, VOCAB, 1 + i % 2).tolist(), 1], float(rng.normal()), None)
        rows.append(writer.tokens(terminated=True, next_known=True, id=str(i)))
    return rows


def replies(group: int, prompts: int = 3) -> list[Tokens]:
    """`group` replies to each of a few prompts, of different lengths, with log-probabilities of sampling."""
    rng = np.random.default_rng(1)
    rows = []
    for p in range(prompts):
        prompt = rng.integers(2, VOCAB, 3 + p).tolist()
        for g in range(group):
            writer, words = TokenWriter(), [*rng.integers(2, VOCAB, 1 + (p + g) % 4).tolist(), 1]
            writer.read(prompt)
            writer.act(words, 0.0, None)
            row = writer.tokens(terminated=True, next_known=True, id=f"{p}-{g}")
            logp = np.where(row.action, rng.uniform(-3, -1, len(row)), np.nan)
            rows.append(Tokens(**{**vars(row), "token_logp": logp}))
    return rows


def judged(group: int) -> Judged:
    rows = replies(group)
    made = [Reply((), "", t, True) for t in rows]
    return Judged(made, np.random.default_rng(2).normal(size=len(rows)), None)


def pairs() -> list[Comparison]:
    rows = replies(2, 5)
    return [Comparison(Pair((), "", "", tie=i == 2), (rows[2 * i], rows[2 * i + 1])) for i in range(5)]


def critic(kind: type[Any]) -> Any:
    """Heads of another seed whose last layers are not zero."""
    trunk = trunk_of(lm())
    made = kind(trunk, 8, VOCAB) if kind is TokenCritic else kind(trunk, 8)
    for p in made.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    return made.double()


def stepped(name: str, passes: Passes, lora: int) -> tuple[torch.nn.Module, dict[str, torch.Tensor], float]:
    """What learnt after one step, its sums, and the length of its gradient."""
    world = World()
    if name in ("bc", "mc", "ilql", "turn_iql"):
        rows = spoken()
        parts = passes.parts(rows, max(map(len, rows)), world)
        module: Any = bc.Objective(LmPolicy(lm(lora))) if name == "bc" else None
        module = module or critic(TurnCritic if name == "turn_iql" else TokenCritic)
        target = slow_copy(module) if "iql" in name or name == "ilql" else None
        learner = Learner(module, RATE, target, None, world, passes)
        pack = pack_turns if name == "turn_iql" else pack_tokens
        batches = [pack(part, gamma=0.9, dtype=f64) for part in parts]
        if name == "bc":
            sums = bc.update(learner, batches, 7.0, bc.Config(partner_weight=0.3), 1e-2)
        elif name == "mc":
            sums = mc.update(learner, batches, 7.0, mc.Config(), 1e-2)
        else:
            update: Any = ilql if name == "ilql" else turn_iql
            sums = update.update(learner, batches, 7.0, update.Config(), 1e-2, 0.5)
        return module, sums, learner.grad_norms[0]
    policy = LmPolicy(lm(lora))
    reference = Reference(copy.deepcopy(policy.lm) if not lora else policy.lm)
    with torch.no_grad():  # away from the reference
        for i, p in enumerate(p for p in policy.parameters() if p.requires_grad):
            p.add_(0.05 * torch.randn(p.shape, dtype=f64, generator=torch.Generator().manual_seed(i)))
    module = policy
    if name == "reward":
        torch.manual_seed(1)
        module = RewardModel(trunk_of(policy.lm), 8, ensemble=2).double()
    elif name == "token_ppo":
        torch.manual_seed(1)
        module = token_ppo.ActorAndCritic(policy).double()
    learner = Learner(module, RATE, None, None, world, passes)
    if name in ("dpo", "simpo", "orpo", "reward"):
        parts = passes.parts(pairs(), 9, world)
        if name == "dpo":
            sums = dpo.update(policy, learner, reference, parts, dpo.Config(), 1e-2)
        elif name == "reward":
            sums = reward.update(module, learner, parts, reward.Config(), 1e-2)
        else:
            how: Any = simpo if name == "simpo" else orpo
            sums = how.update(policy, learner, parts, how.Config(), 1e-2)
    elif name == "kto":
        items = [JudgedReply(Like((), "", liked=i % 2 == 0), row) for i, row in enumerate(replies(1, 5))]
        sums = kto.update(policy, learner, reference, passes.parts(items, 9, world), kto.Config(), 1e-2)
    elif name == "rloo":
        c = rloo.Config(group=2, entropy_weight=0.1)
        batches = rloo.experience(reference, judged(2), c, 0.1, world.device)
        sums = rloo.update(policy, learner, batches, c, 1e-2)
    elif name == "grpo":
        c = grpo.Config(group=2, length="reply", beta=0.1)
        batches = grpo.experience(reference, judged(2), c, world.device)
        sums = grpo.update(policy, learner, batches, c, 0.1, 1e-2)
    elif name == "token_ppo":
        c = token_ppo.Config(epochs=1, minibatches=1)
        batches = token_ppo.experience(module, reference, judged(1), c, 0.1, world.device)
        sums = token_ppo.update(module, learner, batches, c, 1e-2)
    elif name == "reply_reinforce":
        past = reply_reinforce.StepState(AdaptiveWeight(0.1, None))
        c = reply_reinforce.Config(entropy_weight=0.1)
        sums = reply_reinforce.update(policy, learner, reference, judged(2), c, past, 1e-2)
    else:
        which: Any = {"online_dpo": online_dpo, "best_of_n": best_of_n}[name]
        sums = which.update(policy, learner, reference, judged(2), which.Config(group=2), 1e-2)
    return module, sums, learner.grad_norms[0]


LOGS = ["bc", "mc", "ilql", "turn_iql"]
REPLIES = ["rloo", "grpo", "token_ppo", "reply_reinforce", "online_dpo", "best_of_n"]
FEEDBACK = ["dpo", "kto", "simpo", "orpo", "reward"]


@pytest.mark.parametrize("name", [*LOGS, *FEEDBACK, *REPLIES])
def test_a_step_in_parts_is_the_step_on_all_rows(name: str) -> None:
    """Sums, gradient norm and weights after a step of AdamW: parts of 1 and 2 rows against all, to 1e-10 of
    gradients and sums."""
    whole, sums, norm = stepped(name, Passes(), 0)
    for rows in (1, 2):
        parted, found, length = stepped(name, Passes(rows=rows), 0)
        assert length == pytest.approx(norm, rel=1e-10)
        assert found.keys() == sums.keys()
        for key in sums:
            assert_close(found[key].double(), sums[key].double(), rtol=1e-6, atol=1e-6, msg=key)
        for a, b in zip(parted.parameters(), whole.parameters(), strict=True):
            assert_close(a, b, rtol=0, atol=1e-7)


def test_parts_of_a_share() -> None:
    """7 rows, 3 at a time, on 2 processes: 4 and 3 rows, two parts each; fewer rows than processes leave one
    that teaches nothing."""
    rows = spoken(7)
    shares = [Passes(rows=3).parts(rows, 20, World(rank, 2)) for rank in (0, 1)]
    assert [[t.id for t in part] for part in shares[0]] == [["0", "2"], ["4", "6"]]
    assert [[t.id for t in part] for part in shares[1]] == [["1", "3"], ["5"]]
    few = [Passes(rows=1).parts(rows[:3], 20, World(rank, 2)) for rank in (0, 1)]
    assert [len(part) for part in few] == [2, 2]
    idle = few[1][1][0]
    assert not pack_tokens([idle], gamma=1.0).loss_mask.any()


@pytest.mark.parametrize(
    ("passes", "cut"),
    [
        (Passes(), [3, 3, 1]),
        (Passes(rows=2), [2, 2, 2, 1]),
        (Passes(positions=8), [2, 1, 1, 1, 2]),  # 4 + 4, then 9 alone although it is more than 8
        (Passes(positions=1), [1] * 7),
    ],
)
def test_rows_in_their_order_at_most_so_many(passes: Passes, cut: list[int]) -> None:
    lengths = [4, 3, 9, 5, 5, 4, 2]
    found = list(passes.chunks("abcdefg", lengths, 3))
    assert "".join(map("".join, found)) == "abcdefg" and [len(x) for x in found] == cut


def test_products_below_an_autocast_are_rounded_and_values_are_not() -> None:
    """The trunk reads in bfloat16; heads, log-probabilities and losses are float32 or wider."""
    torch.manual_seed(0)
    trunk = trunk_of(llama(VOCAB, width=8, layers=2, heads=2, context=64, eos=1, pad=0))
    made = TokenCritic(trunk, 8, VOCAB)
    batch = pack_tokens(spoken(2), gamma=1.0)
    with Passes(torch.bfloat16).precision(torch.device("cpu")):
        found = made(batch.inputs, batch.decisions, batch.actions, batch.mask)
        assert trunk(input_ids=batch.inputs).last_hidden_state.dtype in (torch.bfloat16, torch.float32)
        assert trunk.layers[0].self_attn.q_proj(torch.ones(1, 8)).dtype == torch.bfloat16
    assert {x.dtype for x in found} == {torch.float32}


@pytest.mark.parametrize("lora", [0, 2])
def test_a_reference_reads_each_row_once(lora: int) -> None:
    """What is asked afterwards costs no pass and is the same number, in whatever company a row comes."""
    policy = LmPolicy(lm(lora))
    reference, rows = Reference(policy.lm), replies(2, 3)
    batches = [pack_tokens(part, gamma=1.0, dtype=f64) for part in (rows, rows[2:4])]
    expected = reference.logp(batches[0]).sum(1)
    passes: list[int] = []
    trunk_of(reference.lm).register_forward_pre_hook(lambda *_: passes.append(1))
    reference.remember([rows], group=2)
    assert_close(reference.of_replies(rows, batches[0]), expected)
    assert_close(reference.of_replies(rows[2:4], batches[1]), expected[2:4])
    assert len(passes) == 2  # of the prompts, and of the replies
