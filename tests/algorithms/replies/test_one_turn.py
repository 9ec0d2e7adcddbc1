"""Policies from replies and from preferences: gradients by hand, improvement, and resumption to the bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from turnwise.algorithms.feedback import dpo, kto, orpo, simpo
from turnwise.algorithms.replies import best_of_n, grpo, online_dpo, reply_reinforce, rloo, token_ppo
from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.comparisons import comparison_rows, mismatched, reply_rows
from turnwise.data.feedback import Like, Pair, Ranking
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.replies import log_ratios
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.one_turn import Judged, OneTurn
from turnwise.rollout.replies import Reply
from turnwise.rollout.rewards import RewardFailed
from turnwise.run.distributed import World
from turnwise.run.errors import Interrupted
from turnwise.run.learner import Learner
from turnwise.run.metrics import COMMON
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

CPU = torch.device("cpu")
PROMPTS = [(Message("user", x),) for x in ("hello", "friend", "it works", "now")]
ONLINE: dict[str, tuple[Any, Any]] = {
    "rloo": (
        rloo,
        rloo.Config(
            steps=12, prompts_per_step=4, group=8, optimizer=AdamW(lr=3e-2, warmup=0.4), kl_target=3.0
        ),
    ),
    "grpo": (
        grpo,
        grpo.Config(
            steps=12,
            prompts_per_step=4,
            group=8,
            optimizer=AdamW(lr=3e-2, warmup=0.4),
            epochs=2,
            minibatches=2,
        ),
    ),
    "token-ppo": (
        token_ppo,
        token_ppo.Config(steps=12, prompts_per_step=32, optimizer=AdamW(lr=3e-2, warmup=0.4)),
    ),
    "reply-reinforce": (
        reply_reinforce,
        reply_reinforce.Config(
            steps=12, prompts_per_step=32, optimizer=AdamW(lr=3e-2, warmup=0.4), baseline="running"
        ),
    ),
    "online-dpo": (
        online_dpo,
        online_dpo.Config(
            steps=12, prompts_per_step=4, group=8, optimizer=AdamW(lr=6e-2, warmup=0.4), beta=0.02
        ),
    ),
    "best-of-n": (
        best_of_n,
        best_of_n.Config(steps=12, prompts_per_step=4, group=8, optimizer=AdamW(lr=3e-2, warmup=0.4)),
    ),
}


@pytest.fixture(scope="module")
def chat(tokenizers: dict[str, Any]) -> ChatFormat:
    return ChatFormat(tokenizers["own"])


@pytest.fixture
def policy(chat: ChatFormat) -> LmPolicy:
    torch.manual_seed(0)
    size = len(chat.tokenizer)
    return LmPolicy(
        llama(size, width=16, layers=1, heads=2, context=32, eos=chat.stop, pad=chat.tokenizer.pad_token_id)
    )


def even_ids(replies: Sequence[Reply]) -> np.ndarray:
    """The share of even ids among those chosen."""
    return np.array([float((r.tokens.ids[r.tokens.action] % 2 == 0).mean()) for r in replies])


def talk(chat: ChatFormat) -> OneTurn:
    return OneTurn(chat, PROMPTS, even_ids, gold=even_ids, max_new_tokens=4)


def judged(policy: LmPolicy, chat: ChatFormat, group: int) -> Judged:
    return talk(chat).sample(policy, 0, 4, group, seed=0)


def gradient(policy: LmPolicy, of: torch.Tensor) -> torch.Tensor:
    policy.zero_grad()
    of.backward()
    return torch.cat([p.grad.flatten().clone() for p in policy.parameters() if p.grad is not None])


def test_grpo_without_its_biases_is_rloo_but_for_a_factor(policy: LmPolicy, chat: ChatFormat) -> None:
    """(G-1)/G, at the policy that sampled and without KL: by the whole algorithm, not by its formula."""
    j = judged(policy, chat, 4)
    r, g = (
        rloo.Config(prompts_per_step=4, group=4, beta=0.0),
        grpo.Config(prompts_per_step=4, group=4, beta=0.0),
    )
    (part,) = rloo.experience(Reference(policy.lm), j, r, 0.0, CPU)
    one = gradient(policy, rloo.loss(policy, part, 1.0, r)[0])
    (other,) = grpo.experience(None, j, g, CPU)
    two = gradient(policy, grpo.loss(policy, other, 1.0, g, 0.0)[0])
    torch.testing.assert_close(two, one * 3 / 4, rtol=1e-4, atol=1e-5)
    assert one.abs().max() > 0.01


def test_rloo_by_hand(policy: LmPolicy, chat: ChatFormat) -> None:
    """The reply as one action: -sum_i A_i sum_k log pi, with the KL of the reply taken off its reward."""
    j = judged(policy, chat, 4)
    c = rloo.Config(prompts_per_step=4, group=4)
    reference = Reference(policy.lm)
    with torch.no_grad():
        for p in reference.lm.parameters():
            p.mul_(0.9)
    (part,) = rloo.experience(reference, j, c, 0.3, CPU)
    b = part.batch
    kl = (b.behavior_logp - part.ref_logp).masked_fill(~b.mask, 0).sum(1).double().numpy()
    worth = (j.rewards - 0.3 * kl).reshape(4, 4)
    expected = [[x - np.delete(row, i).mean() for i, x in enumerate(row)] for row in worth]
    np.testing.assert_allclose(part.advantages.view(4, 4).numpy(), expected, atol=1e-5)
    logp = score_replies(policy.lm, b).logp.sum(1)
    by_hand = gradient(policy, -(part.advantages * logp).sum())
    torch.testing.assert_close(
        gradient(policy, rloo.loss(policy, part, 1.0, c)[0]), by_hand, rtol=1e-4, atol=1e-4
    )


def test_ppo_places_kl_on_tokens_and_the_reward_last(policy: LmPolicy, chat: ChatFormat) -> None:
    """Slow twin of rewards and GAE(lambda), one token at a time."""
    j = judged(policy, chat, 4)
    c = token_ppo.Config(prompts_per_step=16, minibatches=2, lam=0.7)
    agent = token_ppo.ActorAndCritic(policy)
    with torch.no_grad():
        agent.critic.v.out.weight.normal_()
    reference = Reference(policy.lm)
    with torch.no_grad():
        for p in reference.lm.parameters():
            p.mul_(0.9)
    parts = token_ppo.experience(agent, reference, j, c, 0.3, CPU)
    advantages = []
    at = 0
    for part in parts:
        b = part.batch
        values = agent.critic(b.inputs, b.decisions).detach()
        for i in range(len(b.mask)):
            n, after = int(b.mask[i].sum()), 0.0
            rewards = -0.3 * (b.behavior_logp - part.ref_logp)[i, :n]
            rewards[-1] += j.rewards[at + i]
            found = []
            for k in reversed(range(n)):
                follows = values[i, k + 1] if k + 1 < n else 0.0
                after = float(rewards[k] + follows - values[i, k]) + 0.7 * after
                found.insert(0, after)
                assert float(part.returns[i, k]) == pytest.approx(after + float(values[i, k]), abs=1e-4)
            advantages += found
        at += len(b.mask)
    alike = torch.cat([p.advantages[p.batch.mask] for p in parts]).numpy()
    a = np.array(advantages)
    np.testing.assert_allclose(alike, (a - a.mean()) / a.std(), atol=1e-3)


def test_the_dpo_gradient_where_policy_and_reference_agree(policy: LmPolicy, chat: ChatFormat) -> None:
    """h = 0: the loss is log 2, and the gradient -beta / 2 of (log pi(w) - log pi(l))."""
    items = comparison_rows([Pair(PROMPTS[0], "my friend", "there now")], chat, 32)
    c = dpo.Config(beta=0.4)
    value, sums = dpo.loss(policy, Reference(policy.lm), items, c)
    assert value.item() == pytest.approx(np.log(2), abs=1e-6) and float(sums["rewards/margins"]) == 0
    found = gradient(policy, value)
    b = pack_tokens(items[0].rows, gamma=1.0)
    logp = score_replies(policy.lm, b).logp.sum(1)
    torch.testing.assert_close(found, gradient(policy, -0.2 * (logp[0] - logp[1])), rtol=1e-4, atol=1e-6)


def test_a_tie_pulls_neither_way(policy: LmPolicy, chat: ChatFormat) -> None:
    items = comparison_rows([Pair(PROMPTS[0], "my friend", "there now", tie=True)], chat, 32)
    value, _ = dpo.loss(policy, Reference(policy.lm), items, dpo.Config())
    assert gradient(policy, value).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["best-of-n", "online-dpo", "token-ppo"])
def test_the_kl_that_is_logged_is_of_all_replies(
    name: str, policy: LmPolicy, chat: ChatFormat, tmp_path: Path
) -> None:
    """Before the first update nothing has moved: 0, however the replies that are learnt from were picked.
    Later it is near what fresh replies of the trained policy say.
    """
    algorithm, c = ONLINE[name]
    before = Reference(policy.lm)
    algorithm.train(c, talk(chat), policy, TrainingRun(tmp_path, log_every=1, quiet=True), 0)
    logged = [json.loads(x)["kl"] for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged[0] == pytest.approx(0, abs=1e-5)
    replies = talk(chat).sample(policy, 0, 16, 16, seed=5).replies
    found = float(log_ratios(policy.lm, before, replies)[0].mean())
    assert found > 0.1 and 0.5 * found < logged[-1] < 1.5 * found


@pytest.mark.parametrize("name", ONLINE)
def test_the_reference_is_where_the_policy_is(name: str, policy: LmPolicy, chat: ChatFormat) -> None:
    """Where the policy is moved to another device (one without numbers), its copy is moved there too."""
    algorithm, c = ONLINE[name]
    places: list[str] = []

    def noted(lm: Any, *how: Any) -> Reference:
        found = Reference(lm, *how)
        places.append(next(found.lm.parameters()).device.type)
        return found

    run = TrainingRun(Path("nowhere"), World(device=torch.device("meta")), quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(algorithm, "Reference", noted)
        patch.setattr(run, "steps", lambda total, learner: iter(()))
        algorithm.train(c, talk(chat), policy, run, 0)
    assert places == ["meta"] and not Path("nowhere").exists()


def test_a_ranking_of_ties_pulls_nowhere(policy: LmPolicy, chat: ChatFormat) -> None:
    """Of three equal replies none is better, the middle one neither; and pairs' formulas read no third."""
    items = comparison_rows([Ranking(PROMPTS[0], ("my", "friend", "there"), (1, 1, 1))], chat, 32)
    reference = Reference(policy.lm)
    value, _ = dpo.loss(policy, reference, items, dpo.Config(formula="ranking"))
    assert gradient(policy, value).abs().max() < 1e-6
    with pytest.raises(ValueError, match="dpo of 3 replies; expected pairs, or the formula ranking"):
        dpo.loss(policy, reference, items, dpo.Config())


def test_rankings_of_any_length_share_a_batch(policy: LmPolicy, chat: ChatFormat) -> None:
    """A ranking of two is a pair; three and two in one batch are their mean."""
    three = Ranking(PROMPTS[0], ("my", "friend", "there"), (2, 1, 3))
    two = Ranking(PROMPTS[1], ("hello", "now"), (1, 2))
    c, reference = dpo.Config(formula="ranking", beta=1.0), Reference(policy.lm)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05 * torch.randn_like(p))
    one_by_one = [
        dpo.loss(policy, reference, comparison_rows([r], chat, 32), c)[0].item() for r in (three, two)
    ]
    both = dpo.loss(policy, reference, comparison_rows([three, two], chat, 32), c)[0].item()
    assert both == pytest.approx(np.mean(one_by_one), abs=1e-5)
    pair = comparison_rows([Pair(PROMPTS[1], "hello", "now")], chat, 32)
    plain = dpo.loss(policy, reference, pair, dpo.Config(beta=1.0))[0].item()
    assert plain == pytest.approx(one_by_one[1], abs=1e-5)


def test_mismatched_rows_are_prompts_with_their_neighbours_replies(chat: ChatFormat) -> None:
    rows = [chat.reply(p, t) for p, t in zip(PROMPTS[:2], ("my friend", "now"), strict=True)]
    swapped = mismatched(rows, 32)
    expected = [chat.reply(p, t) for p, t in zip(PROMPTS[:2], ("now", "my friend"), strict=True)]
    assert [r.ids.tolist() for r in swapped] == [r.ids.tolist() for r in expected]
    assert [r.action.tolist() for r in swapped] == [r.action.tolist() for r in expected]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ONLINE)
def test_replies_get_better(name: str, policy: LmPolicy, chat: ChatFormat, tmp_path: Path) -> None:
    """The share of even ids, .51 of a fresh policy, rises by at least .06 in 12 steps (seed 0).

    That is 4 standard errors of the 256 replies; measured: .08 to .3. The log has what METRICS says, all of
    it and nothing else.
    """
    before = even_ids(judged(policy, chat, 64).replies).mean()
    algorithm, c = ONLINE[name]
    run = TrainingRun(tmp_path, quiet=True, log_every=1)
    algorithm.train(c, talk(chat), policy, run, 0)
    assert even_ids(judged(policy, chat, 64).replies).mean() > before + 0.06
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # The reward has an opinion of every reply, so that nothing is left out; and no server speaks.
    silent = {"left_out", "skipped", "engine/logp_error_max", "engine/logp_error_mean"}
    assert {key for line in lines for key in line} == (algorithm.METRICS.keys() | COMMON.keys()) - silent


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ONLINE)
def test_a_judge_that_is_silent_and_then_fails_costs_no_work(
    name: str, policy: LmPolicy, chat: ChatFormat, tmp_path: Path
) -> None:
    """It never judges replies to one prompt of four, and nothing at all in its third step; in the fourth it
    fails. The run goes on from there, to the bits of a run with a judge that does not fail.

    Five steps of four prompts: one of them is left out in each, and in the third all four, 4 + 4 = 8.
    """
    algorithm, c = ONLINE[name]
    c = replace(c, steps=5, **({"group": 3} if "group" in vars(c) else {"prompts_per_step": 4}))

    def go(p: LmPolicy, folder: Path, first: int, fails: int | None) -> None:
        step = first

        def judge(replies: Sequence[Reply]) -> np.ndarray:
            nonlocal step
            step += 1
            if step == fails:
                raise RewardFailed("the judge failed with TimeoutError")
            nothing = np.array([step == 3 or r.prompt == PROMPTS[1] for r in replies])
            return np.where(nothing, np.nan, even_ids(replies))

        torch.manual_seed(3)
        with TrainingRun(folder, log_every=1, quiet=True) as run:
            algorithm.train(c, replace(talk(chat), reward=judge), p, run, 0)

    whole, parts = copy.deepcopy(policy), copy.deepcopy(policy)
    go(whole, tmp_path / "whole", 0, None)
    lines = [json.loads(x) for x in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [x["left_out"] for x in lines] == [1, 2, 6, 7, 8]
    assert [x.get("skipped") for x in lines] == [None, None, 1, 1, 1]
    assert lines[2].keys() == {"step", "seconds", "left_out", "skipped"}  # no reward, no gradient
    with pytest.raises(RewardFailed, match="step 4 of 5: the judge failed with TimeoutError") as found:
        go(parts, tmp_path / "parts", 0, 4)
    assert "checkpoint of step 3" in found.value.__notes__[0]
    resumed = copy.deepcopy(policy)
    go(resumed, tmp_path / "parts", 3, None)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    again = [json.loads(x) for x in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [x | {"seconds": 0} for x in again] == [x | {"seconds": 0} for x in lines]


OFFLINE: dict[str, tuple[Any, Any]] = {
    "dpo": (dpo, dpo.Config(epochs=12.0, batch_size=2, optimizer=AdamW(lr=5e-3, warmup=0.1))),
    "ipo": (dpo, dpo.Config(epochs=12.0, batch_size=2, optimizer=AdamW(lr=5e-3, warmup=0.1), formula="ipo")),
    "robust": (
        dpo,
        dpo.Config(epochs=12.0, batch_size=2, optimizer=AdamW(lr=5e-3, warmup=0.1), formula="robust"),
    ),
    "conservative": (
        dpo,
        dpo.Config(epochs=12.0, batch_size=2, optimizer=AdamW(lr=5e-3, warmup=0.1), formula="conservative"),
    ),
    "simpo": (simpo, simpo.Config(epochs=12.0, batch_size=2, optimizer=AdamW(lr=5e-3, warmup=0.1))),
    "orpo": (orpo, orpo.Config(epochs=12.0, batch_size=2, optimizer=AdamW(lr=5e-3, warmup=0.1))),
    "kto": (kto, kto.Config(epochs=12.0, batch_size=4, optimizer=AdamW(lr=5e-3, warmup=0.1))),
}
PAIRS = [Pair(p, "my friend", "there now", id=str(i)) for i, p in enumerate(PROMPTS)]


def items(name: str, chat: ChatFormat) -> list[Any]:
    if name == "kto":
        likes = [Like(p.prompt, t, liked=k == 0) for p in PAIRS for k, t in enumerate(p.replies)]
        return list(reply_rows(likes, chat, 32))
    return list(comparison_rows(PAIRS, chat, 32))


def preference(policy: LmPolicy, chat: ChatFormat) -> torch.Tensor:
    """log pi(chosen) - log pi(rejected) of each pair."""
    b = pack_tokens([r for x in comparison_rows(PAIRS, chat, 32) for r in x.rows], gamma=1.0)
    with torch.no_grad():
        logp = score_replies(policy.lm, b).logp.sum(1).view(-1, 2)
    return logp[:, 0] - logp[:, 1]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", OFFLINE)
def test_what_was_preferred_becomes_likelier(
    name: str, policy: LmPolicy, chat: ChatFormat, tmp_path: Path
) -> None:
    """By at least 2 nats in each pair, beside what is not (measured: 4 to 30).

    The log has what METRICS says, all of it and nothing else.
    """
    before = preference(policy, chat)
    algorithm, c = OFFLINE[name]
    rows = items(name, chat)
    algorithm.train(c, rows, rows, policy, TrainingRun(tmp_path, quiet=True), 0)
    assert ((preference(policy, chat) - before) > 2).all()
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = {key.removeprefix("heldout/") for line in lines for key in line}
    assert logged == algorithm.METRICS.keys() | COMMON.keys()
    assert '"heldout/rewards/accuracies": 1.0' in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [*ONLINE, "dpo", "kto"])
def test_stopping_and_resuming_changes_no_bit(
    name: str, policy: LmPolicy, chat: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference of the resumed run is where the policy began, and not where it was stopped."""
    algorithm, c = (ONLINE | OFFLINE)[name]
    if name in ONLINE:
        c = replace(c, steps=6)
    learn: Callable[..., Any] = algorithm.train

    def go(p: LmPolicy, run: TrainingRun) -> None:
        torch.manual_seed(3)
        if name in ONLINE:
            learn(c, talk(chat), p, run, 0)
        else:
            learn(c, items(name, chat), [], p, run, 0)

    whole, halved = copy.deepcopy(policy), copy.deepcopy(policy)
    go(whole, TrainingRun(tmp_path / "whole", quiet=True))
    run = TrainingRun(tmp_path / "halved", quiet=True, checkpoint_every=2)
    seen = run.steps

    def until_three(total: int, learner: Learner) -> Any:
        for step in seen(total, learner):
            if step == 3:
                raise Interrupted("stopped")
            yield step

    monkeypatch.setattr(run, "steps", until_three)
    with pytest.raises(Interrupted):
        go(halved, run)
    resumed = copy.deepcopy(policy)
    go(resumed, TrainingRun(tmp_path / "halved", quiet=True))
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rewards_of_each_side_are_means_over_it() -> None:
    """Three of four are liked: sums of 6 and -1 over four are means of 2 and -1. No dislike: nothing."""
    mixed = {"rewards/liked": 6 / 4, "rewards/disliked": -1 / 4, "liked": 3 / 4, "loss": 0.5}
    assert kto.means_of_sides(mixed) == mixed | {"rewards/liked": 2.0, "rewards/disliked": -1.0}
    held = {"heldout/rewards/liked": 0.3, "heldout/rewards/disliked": 0.0, "heldout/liked": 1.0}
    assert kto.means_of_sides(held) == {"heldout/rewards/liked": 0.3, "heldout/liked": 1.0}


def test_dropout_is_off_where_replies_are_learnt_from(chat: ChatFormat, tmp_path: Path) -> None:
    """GPT-2 with much dropout: the first update's policy is the one that spoke, at no distance."""
    torch.manual_seed(0)
    size = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    odds = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.5)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=len(chat.tokenizer), **size, **odds)).train()
    c = replace(ONLINE["grpo"][1], steps=1, epochs=1, minibatches=1)
    grpo.train(c, talk(chat), LmPolicy(lm), TrainingRun(tmp_path, quiet=True), 0)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert abs(json.loads(line)["kl"]) < 1e-4 and json.loads(line)["clip_ratio"] == 0


def test_orpo_of_certain_replies_has_a_finite_gradient(policy: LmPolicy, chat: ChatFormat) -> None:
    """Where the chosen reply's probability rounds to 1, what a tie would have cost must not be NaN."""
    rows = comparison_rows([Pair(PROMPTS[0], "friend", "now")], chat, 32)
    logp = torch.tensor([0.0, -2.0], requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orpo, "mean_logp", lambda lm, rows, group: logp)
        orpo.loss(policy, rows, orpo.Config())[0].backward()
    assert logp.grad is not None and torch.isfinite(logp.grad).all()
