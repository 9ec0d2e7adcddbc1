"""Replies in groups, and what judges them."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.replies import log_ratios
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.one_turn import OneTurn
from turnwise.rollout.replies import Reply, sample_replies
from turnwise.rollout.rewards import (
    ClippedReward,
    FunctionReward,
    LengthReward,
    ModelReward,
    Patient,
    RewardFailed,
    UnfinishedPenalty,
    WeightedSum,
)
from turnwise.run.errors import InputError

PROMPTS = [(Message("user", x),) for x in ("hello", "it works now, my friend", "there")]


@pytest.fixture(scope="module")
def chat(tokenizers: dict[str, Any]) -> ChatFormat:
    return ChatFormat(tokenizers["own"])


@pytest.fixture(scope="module")
def policy(chat: ChatFormat) -> LmPolicy:
    torch.manual_seed(0)
    size = len(chat.tokenizer)
    lm = llama(size, width=16, layers=1, heads=2, context=64, eos=chat.stop, pad=chat.tokenizer.pad_token_id)
    return LmPolicy(lm.double())


@pytest.fixture(scope="module")
def replies(policy: LmPolicy, chat: ChatFormat) -> list[Reply]:
    return sample_replies(policy, chat, PROMPTS, group=3, seed=1, max_new_tokens=6)


def test_a_group_says_what_its_members_say_alone(
    policy: LmPolicy, chat: ChatFormat, replies: list[Reply]
) -> None:
    """Reading the prompt once changes no token: each lane has a seed of its own."""
    alone = sample_replies(
        policy, chat, [p for p in PROMPTS for _ in range(3)], group=1, seed=1, max_new_tokens=6
    )
    assert [r.tokens.ids.tolist() for r in alone] == [r.tokens.ids.tolist() for r in replies]
    assert [r.prompt for r in replies] == [p for p in PROMPTS for _ in range(3)]
    assert len({r.text for r in replies}) > 3


def test_recorded_log_probabilities_are_the_policys(policy: LmPolicy, replies: list[Reply]) -> None:
    b = pack_tokens([r.tokens for r in replies], gamma=1.0, dtype=torch.float64)
    assert b.behavior_logp is not None
    out = score_replies(policy.lm, b, group=3)
    torch.testing.assert_close(out.logp, b.behavior_logp, rtol=0, atol=1e-6)


def test_a_cut_reply_is_read_as_if_it_had_stopped(chat: ChatFormat, replies: list[Reply]) -> None:
    """The stop token is read and was not chosen; the reward stands after the last token chosen."""
    cut = next(r for r in replies if not r.stopped)
    assert cut.length == 6 and cut.tokens.ids[-1] == chat.stop and not cut.tokens.action[-1]
    row = cut.rewarded(2.5)
    b = pack_tokens([row], gamma=1.0)
    assert b.rewards.tolist() == [[0, 0, 0, 0, 0, 2.5]] and b.discounts[0, -1] == 0
    assert int(b.decisions[0, -1]) == len(row) - 1


def test_greedy_replies_of_a_group_are_alike(policy: LmPolicy, chat: ChatFormat) -> None:
    same = sample_replies(
        policy, chat, PROMPTS, group=2, seed=3, max_new_tokens=4, decoding=Decoding(temperature=0.0)
    )
    assert all(a.text == b.text for a, b in zip(same[::2], same[1::2], strict=True))


def test_a_prompt_that_leaves_no_room_is_refused(policy: LmPolicy, chat: ChatFormat) -> None:
    with pytest.raises(InputError, match="do not fit the context of 64"):
        sample_replies(policy, chat, PROMPTS, group=1, seed=0, max_new_tokens=63)


def test_prompts_come_once_each_before_any_comes_again(chat: ChatFormat) -> None:
    talk = OneTurn(chat, PROMPTS * 2, LengthReward(1.0))
    steps = [talk.chosen(step, 2, seed=5) for step in range(6)]
    first, second = (sorted(i for step in part for i in step) for part in (steps[:3], steps[3:]))
    assert first == second == list(range(6))
    assert steps[:3] != steps[3:] and talk.chosen(4, 2, seed=5) == steps[4]


def scored(prompts: Any, completions: Any, answer: Any, **_: Any) -> list[float | None]:
    """A reward function in TRL's signature: nothing to say where no answer is known."""
    assert prompts[0][-1]["role"] == "user"
    return [
        None if a is None else float(len(c[0]["content"]) > a)
        for c, a in zip(completions, answer, strict=True)
    ]


def test_functions_of_trls_kind_are_rewards(policy: LmPolicy, chat: ChatFormat) -> None:
    some = sample_replies(
        policy, chat, PROMPTS, seed=0, max_new_tokens=4, columns=[{"answer": 0}, {"answer": None}, {}]
    )
    found = FunctionReward(scored)(some)
    assert found[0] == float(len(some[0].text) > 0) and np.isnan(found[1:]).all()


def test_text_for_text(policy: LmPolicy, chat: ChatFormat) -> None:
    """As TRL has it: a function made for plain text measures the text and not a list of one message."""
    some = sample_replies(policy, chat, PROMPTS, seed=0, max_new_tokens=4)
    length = FunctionReward(
        lambda prompts, completions, **_: [len(p + c) for p, c in zip(prompts, completions, strict=True)],
        text=True,
    )
    assert length(some).tolist() == [len(r.prompt[-1].content + r.text) for r in some]


async def asynchronous(**_: Any) -> list[float]:
    return [1.0] * 3


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda **_: [1.0], "expected 3 rewards"),
        (lambda **_: 7, "expected a list of finite numbers"),
        (lambda **_: ["1"] * 3, "expected a list of finite numbers"),
        (lambda **_: [float("inf")] * 3, "expected a list of finite numbers"),
        (
            lambda answers, **_: [1.0] * 3,
            "missing 1 required .*answers.*was given prompts, completions, comp",
        ),
        (lambda **_: {}["x"], r"KeyError: 'x' \(test_replies.py:"),
        (asynchronous, "found an async one"),
    ],
)
def test_functions_that_return_no_rewards_are_refused(
    replies: list[Reply], function: Any, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        FunctionReward(function)(replies[:3])


def test_rewards_compose(replies: list[Reply]) -> None:
    """By hand: 2 x length, clipped at 7, less 1 where the reply was cut; no opinion counts nothing."""
    lengths = np.array([r.length for r in replies])
    cut = np.array([not r.stopped for r in replies])
    nothing = FunctionReward(lambda completions, **_: [None] * len(completions))
    whole = WeightedSum(
        (ClippedReward(LengthReward(2.0), 0.0, 7.0), UnfinishedPenalty(1.0), nothing), (1.0, 1.0, 5.0)
    )
    assert whole(replies).tolist() == (np.minimum(2 * lengths, 7) - cut).tolist()
    assert LengthReward(-0.5, free=4)(replies).tolist() == (-0.5 * np.maximum(lengths - 4, 0)).tolist()
    assert np.isnan(WeightedSum((nothing,), (1.0,))(replies)).all()
    assert np.isnan(WeightedSum((nothing,), (1.0,), (LengthReward(1.0),))(replies)).all(), (
        "a length is no opinion"
    )
    both = WeightedSum((LengthReward(2.0),), (1.0,), (UnfinishedPenalty(1.0),))
    assert both(replies).tolist() == (2 * lengths - cut).tolist()


def test_a_models_reward_holds_back_where_members_disagree(replies: list[Reply]) -> None:
    """Members 1 and 3 apart from their mean by 1: mean 2 less doubt."""
    score = lambda rows: np.stack([np.full(len(rows), 1.0), np.full(len(rows), 3.0)])  # noqa: E731
    assert ModelReward(score)(replies[:1]).tolist() == [2.0]
    assert ModelReward(score, doubt=0.5)(replies[:1]).tolist() == [1.5]
    with pytest.raises(ValueError, match="tell them apart"):
        ModelReward(score).standardised_on(replies)
    own = ModelReward(lambda rows: np.array([[len(r) for r in rows]], float)).standardised_on(replies)
    assert abs(own(replies).mean()) < 1e-12 and abs(own(replies).std() - 1) < 1e-12


def test_a_prompt_is_left_out_if_the_reward_is_silent_on_one_of_its_replies(
    policy: LmPolicy, chat: ChatFormat
) -> None:
    """Two replies to each of three prompts, rewards 0 .. 5; of number 3, in the second group, it is silent.

    All replies of that group are left out, since they would be compared with the missing one.
    """
    silent = FunctionReward(lambda completions, **_: [None if i == 3 else i for i in range(len(completions))])
    everything = OneTurn(chat, PROMPTS[:3], silent, LengthReward(1.0), max_new_tokens=4)
    judged = everything.sample(policy, 0, 3, 2, seed=0)
    assert judged.rewards.tolist() == [0, 1, 4, 5] and judged.left_out == 1
    said = replace(everything, reward=LengthReward(1.0)).sample(policy, 0, 3, 2, seed=0).replies
    assert [r.text for r in judged.replies] == [said[i].text for i in (0, 1, 4, 5)]
    assert judged.gold is not None and len(judged.gold) == 4
    mute = replace(everything, reward=FunctionReward(lambda completions, **_: [None] * len(completions)))
    nothing = mute.sample(policy, 0, 3, 2, seed=0)
    assert nothing.replies == [] and nothing.left_out == 3


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "nan"), (float("-inf"), "-inf")])
def test_a_reward_that_is_no_number_names_its_reply_and_prompt(
    replies: list[Reply], value: float, word: str
) -> None:
    function = FunctionReward(lambda **_: [1.0, None, value])
    what = f"found {word} for the reply {replies[2].text!r} to the prompt {replies[2].prompt[-1].content!r}"
    with pytest.raises(InputError, match=re.escape(what)):
        function(replies[:3])
    model = ModelReward(lambda rows: np.array([[1.0, 2.0, value]]))
    with pytest.raises(InputError, match=re.escape(what)):
        model(replies[:3])


def test_a_reward_that_fails_once_is_asked_again(
    replies: list[Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits .5 s and then 1 s; the third try is the last. A function that is wrong is asked once."""
    waited: list[float] = []
    told: list[str] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    raised: list[Exception] = [TimeoutError("the judge"), ConnectionError(), TimeoutError("again")]

    def judge(completions: list[Any], **_: Any) -> list[float]:
        if raised:
            raise raised.pop(0)
        return [1.0] * len(completions)

    patient = Patient(FunctionReward(judge), 2, 0.5, told.append)
    with pytest.raises(RewardFailed, match="judge failed with TimeoutError: again"):
        patient(replies[:2])
    assert waited == [0.5, 1.0]
    assert "TimeoutError: the judge" in told[0] and told[0].endswith("again in 0.5 s (1 of 2 times)")
    raised[:] = [TimeoutError()]
    assert patient(replies[:2]).tolist() == [1.0, 1.0]
    raised[:] = [TypeError("unexpected keyword")]
    waited.clear()
    with pytest.raises(RewardFailed, match="TypeError"):
        patient(replies[:2])
    assert not waited


def test_minibatches_are_of_whole_groups_and_hold_all_replies(policy: LmPolicy, chat: ChatFormat) -> None:
    """Three prompts with two replies each in at most two: groups 0 and 1, then group 2; rewards 0 .. 5
    last."""
    count = FunctionReward(lambda completions, **_: [float(i) for i in range(len(completions))])
    judged = OneTurn(chat, PROMPTS[:3], count, max_new_tokens=4).sample(policy, 0, 3, 2, seed=0)
    first, second = judged.minibatches(2, 2, torch.device("cpu"))
    assert first.rewards.sum(1).tolist() == [0.0, 1.0, 2.0, 3.0] and second.rewards.sum(1).tolist() == [
        4.0,
        5.0,
    ]
    for batch in (first, second):
        last = batch.mask.sum(1, keepdim=True) - 1
        assert torch.equal(batch.rewards.gather(1, last).squeeze(1), batch.rewards.sum(1))
    assert len(judged.minibatches(5, 2, torch.device("cpu"))) == 3  # a group is not split


def test_a_reply_that_fills_the_context_is_scored(chat: ChatFormat) -> None:
    """GPT-2, 40 positions: with the stop token after a reply cut short all are taken; one more is refused."""
    torch.manual_seed(0)
    size = {"n_positions": 40, "n_embd": 16, "n_layer": 1, "n_head": 2}
    lm = LmPolicy(GPT2LMHeadModel(GPT2Config(vocab_size=len(chat.tokenizer), **size)).double())
    room = 40 - len(chat.opening(PROMPTS[0])) - 1
    some = sample_replies(lm, chat, PROMPTS[:1], group=2, seed=0, max_new_tokens=room)
    assert max(len(r.tokens) for r in some) == 40
    assert log_ratios(lm.lm, Reference(lm.lm), some)[0] == pytest.approx([0.0, 0.0], abs=1e-9)
    with pytest.raises(InputError, match="do not fit the context of 40"):
        sample_replies(lm, chat, PROMPTS[:1], seed=0, max_new_tokens=room + 1)
