"""Reward models: losses by plain arithmetic, gradients by hand, the numbers that feedback pulls them to."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from turnwise.algorithms.feedback import reward
from turnwise.data.chat.format import ChatFormat
from turnwise.data.comparisons import FeedbackRows, feedback_rows
from turnwise.data.feedback import Feedback, Like, Pair, Ranking, Score
from turnwise.envs.dialogue import Message
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.reward_model import AnyRewardModel, RewardEnsemble, RewardModel
from turnwise.rollout.reward_scorer import scorer
from turnwise.run.errors import InputError, Interrupted
from turnwise.run.learner import Learner
from turnwise.run.metrics import COMMON
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

ONE, TWO = (Message("user", "hello there"),), (Message("user", "it works"),)
THREE = Ranking(TWO, ("my", "friend", "works now"), (2, 3, 1))
FIT = reward.Config(epochs=70.0, batch_size=12, optimizer=AdamW(lr=3e-2, warmup=0.07), centring=0.0)


@pytest.fixture(scope="module")
def chat(tokenizers: dict[str, Any]) -> ChatFormat:
    return ChatFormat(tokenizers["own"])


def made(chat: ChatFormat, ensemble: int = 1, seed: int = 0) -> RewardModel:
    torch.manual_seed(seed)
    lm = llama(len(chat.tokenizer), width=16, layers=1, heads=2, context=32, eos=chat.stop, pad=1)
    model = RewardModel(trunk_of(lm), 16, ensemble=ensemble)
    with torch.no_grad():
        model.heads.weight.normal_(std=0.5)
    return model


def rewards(model: AnyRewardModel, chat: ChatFormat, prompt: Any, *texts: str) -> np.ndarray:
    """[E, n]"""
    return scorer(model)([chat.reply(prompt, t) for t in texts])


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def rows_of(items: Sequence[Feedback], chat: ChatFormat) -> list[FeedbackRows]:
    """One by one: pairs and rankings may share a batch, though not a file."""
    return [row for item in items for row in feedback_rows([item], chat, 32)]


def told(model: AnyRewardModel, items: Sequence[Feedback], chat: ChatFormat, c: reward.Config) -> Any:
    return reward.loss(model, rows_of(items, chat), c)


def test_pairs_ties_and_rankings_by_hand(chat: ChatFormat) -> None:
    """A margin, a pair without, a tie, a ranking of three and one of two, in one batch and for two members.

    -log sigmoid(r_w - r_l - m) + 0.1 (r_w + r_l)^2; half of each direction for the tie; for three replies
    first the best of three, then the better of two, without centring. Mean over five items, sum over members.
    """
    model = made(chat, 2)
    items = [
        Pair(ONE, "friend", "now", margin=0.7),
        Pair(TWO, "friend", "works"),
        Pair(ONE, "hello", "my friend", tie=True),
        THREE,
        Ranking(ONE, ("there", "hello"), (2, 1)),
    ]
    expected, right, disagreements = [], [], []
    for item in items:
        replies = [item.replies[i] for i in item.order] if isinstance(item, Ranking) else item.replies
        r = rewards(model, chat, item.prompt, *replies)
        d = r[:, 0] - r[:, -1]
        if len(replies) == 3:
            e = np.exp(r)
            each = -np.log(e[:, 0] / e.sum(1)) - np.log(e[:, 1] / e[:, 1:].sum(1))
        elif isinstance(item, Pair) and item.tie:
            each = -(np.log(sigmoid(d)) + np.log(sigmoid(-d))) / 2 + 0.1 * r.sum(1) ** 2
        else:
            margin = (item.margin or 0.0) if isinstance(item, Pair) else 0.0
            each = -np.log(sigmoid(d - margin)) + 0.1 * r.sum(1) ** 2
        expected.append(each)
        right.append(0.5 if isinstance(item, Pair) and item.tie else float(d.mean() > 0))
        disagreements.append(d.std())
    value, sums = told(model, items, chat, reward.Config(centring=0.1))
    assert value.item() == pytest.approx(np.sum(expected) / 5, abs=1e-5)
    assert float(sums["decisions"]) == 5
    assert float(sums["loss"]) == pytest.approx(np.mean(expected, 1).sum(), abs=1e-5)
    assert float(sums["accuracy"]) == sum(right)
    assert float(sums["disagreement"]) == pytest.approx(sum(disagreements), abs=1e-5)


def test_likes_and_scores_by_hand(chat: ChatFormat) -> None:
    model = made(chat)
    (a, b), c = rewards(model, chat, ONE, "friend", "now")[0], reward.Config()
    value, sums = told(model, [Like(ONE, "friend", True), Like(ONE, "now", False)], chat, c)
    assert value.item() == pytest.approx(-(math.log(sigmoid(a)) + math.log(sigmoid(-b))) / 2, abs=1e-5)
    assert float(sums["accuracy"]) == (a > 0) + (b <= 0)
    value, sums = told(model, [Score(ONE, "friend", 0.5), Score(ONE, "now", -1.0)], chat, c)
    assert value.item() == pytest.approx(((a - 0.5) ** 2 + (b + 1) ** 2) / 2, abs=1e-5)
    assert float(sums["reward_mean"]) == pytest.approx(a + b, abs=1e-5)
    assert "disagreement" not in sums, "one alone does not disagree"


def test_the_gradient_of_a_pair(chat: ChatFormat) -> None:
    """By the head: -(1 - sigmoid(r_w - r_l)) (phi_w - phi_l), phi the features at the stop tokens."""
    model = made(chat)
    phi = []
    for text in ("friend", "now"):
        ids = torch.as_tensor(chat.reply(ONE, text).ids)[None]
        phi.append(model.trunk(input_ids=ids).last_hidden_state[0, -1].detach())
    w, l = rewards(model, chat, ONE, "friend", "now")[0]
    value, _ = told(model, [Pair(ONE, "friend", "now")], chat, reward.Config(centring=0.0))
    (found,) = torch.autograd.grad(value, [model.heads.weight])
    assert_close(found[0], -(1 - float(sigmoid(w - l))) * (phi[0] - phi[1]), rtol=1e-4, atol=1e-6)


def test_members_learn_as_if_each_were_alone(chat: ChatFormat) -> None:
    """The gradient of each trunk and head is that of its own loss: the sum over members mixes nothing."""
    models = [made(chat, seed=0), made(chat, seed=1)]
    items = [Pair(ONE, "friend", "now", margin=0.2), THREE]
    value, _ = told(RewardEnsemble(models), items, chat, reward.Config())
    together = [torch.autograd.grad(value, list(m.parameters()), retain_graph=True) for m in models]
    for model, theirs in zip(models, together, strict=True):
        alone, _ = told(model, items, chat, reward.Config())
        for a, b in zip(torch.autograd.grad(alone, list(model.parameters())), theirs, strict=True):
            assert_close(a, b, rtol=1e-4, atol=1e-6)


def fitted(items: Sequence[Feedback], chat: ChatFormat, folder: Path, c: reward.Config = FIT) -> RewardModel:
    model = made(chat)
    reward.train(c, feedback_rows(items, chat, 32), [], model, TrainingRun(folder, quiet=True), 0)
    return model


def test_three_of_four_are_log_3(chat: ChatFormat, tmp_path: Path) -> None:
    """Who wins 3 of 4 pairs is worth log 3 more; centring puts the two at +-log(3) / 2."""
    a, b = "friend", "now"
    items = [Pair(ONE, a, b)] * 3 + [Pair(ONE, b, a)]
    c = replace(FIT, centring=0.05)
    w, l = rewards(fitted(items, chat, tmp_path, c), chat, ONE, a, b)[0]
    assert (w, l) == pytest.approx((math.log(3) / 2, -math.log(3) / 2), abs=0.03)


def test_a_tie_and_a_win_are_log_3_too(chat: ChatFormat, tmp_path: Path) -> None:
    """A tie is half of a win and half of a loss: with one win beside it, 3 of 4."""
    items = [Pair(ONE, "friend", "now"), Pair(ONE, "friend", "now", tie=True)]
    w, l = rewards(fitted(items, chat, tmp_path), chat, ONE, "friend", "now")[0]
    assert w - l == pytest.approx(math.log(3), abs=0.03)


def test_the_log_odds_of_a_like(chat: ChatFormat, tmp_path: Path) -> None:
    """Liked by 1 of 4 and by 3 of 4: -log 3 and log 3."""
    items = [Like(ONE, "friend", i == 0) for i in range(4)] + [Like(TWO, "now", i > 0) for i in range(4)]
    model = fitted(items, chat, tmp_path)
    found = [rewards(model, chat, ONE, "friend")[0, 0], rewards(model, chat, TWO, "now")[0, 0]]
    assert found == pytest.approx([-math.log(3), math.log(3)], abs=0.03)


def test_the_mean_of_scores(chat: ChatFormat, tmp_path: Path) -> None:
    items = [Score(ONE, "friend", x) for x in (0.0, 1.0, 2.0)] + [Score(ONE, "now", -0.5)]
    c = replace(FIT, epochs=150.0, optimizer=replace(FIT.optimizer, lr=2e-2))
    found = rewards(fitted(items, chat, tmp_path, c), chat, ONE, "friend", "now")[0]
    assert found == pytest.approx([1.0, -0.5], abs=0.05)


def test_rankings_give_the_shares_of_first_places(chat: ChatFormat, tmp_path: Path) -> None:
    """Each of six orders as often as worths of 2 : 1 : 1 say (in twelfths): differences log 2 and 0."""
    replies, worth = ("friend", "now", "my"), np.array([2.0, 1.0, 1.0])
    items = []
    for i in range(3):
        for j in range(3):
            if i != j:
                k = 3 - i - j
                share = worth[i] / 4 * worth[j] / (4 - worth[i])
                ranks = tuple(1 + (i, j, k).index(x) for x in range(3))
                items += [Ranking(ONE, replies, ranks)] * round(12 * share)
    assert len(items) == 12
    r = rewards(fitted(items, chat, tmp_path), chat, ONE, *replies)[0]
    assert -np.diff(r) == pytest.approx([math.log(2), 0.0], abs=0.03)


def test_a_rule_is_found_and_measured_where_it_was_not_learnt(chat: ChatFormat, tmp_path: Path) -> None:
    """The reply with "friend" wins: 60 pairs of 5 words; at least 16 of 20 new ones are right (seed 0)."""
    rng = np.random.default_rng(0)

    def pair(i: int) -> Pair:
        said = [" ".join(rng.choice(["hello", "there", "my", "it", "works", "now"], 4)) for _ in range(2)]
        return Pair((Message("user", f"hello {i}"),), said[0] + " friend", said[1] + " my")

    rows = feedback_rows([pair(i) for i in range(80)], chat, 32)
    c = reward.Config(epochs=8.0, batch_size=10, optimizer=AdamW(lr=1e-2, warmup=0.1, weight_decay=0.01))
    model = made(chat, 2)
    reward.train(c, rows[:60], rows[60:], model, TrainingRun(tmp_path, quiet=True), 0)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {k.removeprefix("heldout/") for k in last} == reward.METRICS.keys() | COMMON.keys()
    assert last["heldout/accuracy"] > 0.8 and last["heldout/margin"] > 1
    assert 0 < last["heldout/disagreement"] < last["heldout/margin"]


def test_stopping_and_resuming_changes_no_bit(
    chat: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [Pair(ONE, "friend", "now"), Pair(TWO, "my", "now", tie=True), THREE] * 3
    rows = rows_of(items, chat)
    c = reward.Config(epochs=4.0, batch_size=3, optimizer=AdamW(lr=1e-2, warmup=0.4, weight_decay=0.01))
    start = RewardEnsemble([made(chat, 2, seed=0), made(chat, seed=1)])
    whole, halved, resumed = (copy.deepcopy(start) for _ in range(3))
    reward.train(c, rows, rows, whole, TrainingRun(tmp_path / "whole", quiet=True), 0)
    run = TrainingRun(tmp_path / "halved", quiet=True, checkpoint_every=5)
    seen = run.steps

    def until_six(total: int, learner: Learner) -> Any:
        for step in seen(total, learner):
            if step == 6:
                raise Interrupted("stopped")
            yield step

    monkeypatch.setattr(run, "steps", until_six)
    with pytest.raises(Interrupted):
        reward.train(c, rows, rows, halved, run, 0)
    reward.train(c, rows, rows, resumed, TrainingRun(tmp_path / "halved", quiet=True), 0)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    logs = [
        [json.loads(x) | {"seconds": 0} for x in (tmp_path / f / "metrics.jsonl").read_text().splitlines()]
        for f in ("whole", "halved")
    ]
    assert logs[0] == logs[1]


def test_feedback_that_cannot_be_learnt_from_is_refused(chat: ChatFormat) -> None:
    with pytest.raises(InputError, match=r"several kinds \(likes, pairs\); expected one"):
        feedback_rows([Pair(ONE, "friend", "now"), Like(ONE, "now", True)], chat, 32)
    with pytest.raises(InputError, match=r"none of 1 items fits the context of 8 .*'x', has 16"):
        feedback_rows([Pair(ONE, "friend " * 9, "now", id="x")], chat, 8)


def test_a_ranking_without_an_order_teaches_none(chat: ChatFormat) -> None:
    """Three replies with one rank: fair coins between each two of them, whatever their order."""
    model = made(chat)
    texts = ("friend", "now", "works")
    r = rewards(model, chat, ONE, *texts)[0]
    coins = [np.log1p(np.exp(a - b)) + np.log1p(np.exp(b - a)) for a, b in combinations(r, 2)]
    for order in permutations(texts):
        value, _ = told(model, [Ranking(ONE, order, (1, 1, 1))], chat, reward.Config())
        assert value.item() == pytest.approx(2 * np.mean(coins) / 2, abs=1e-5)
