"""Whether a critic predicts returns: figures by hand, readings across cuts, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import token_rows
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.critics.figures import ENOUGH, Turns, verdict
from turnwise.evaluation.measures.critics.scores import Score
from turnwise.evaluation.measures.critics.tokens import measure_critic, returns_of, values_of
from turnwise.models.lm.critics import Estimand, TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.parts import trunk_of
from turnwise.rollout.agent import Acting, Agent

CONTEXT = 200


def agent_of(tokenizer: Any, kind: type[Any], **acting: Any) -> Agent:
    """A small model with a critic whose heads say something everywhere, in float64."""
    torch.manual_seed(2)
    lm, other = (
        llama(len(tokenizer), width=32, layers=2, heads=2, context=CONTEXT, eos=0, pad=1).double().eval()
        for _ in range(2)
    )
    heads = (32, lm.config.vocab_size) if kind is TokenCritic else (32,)
    critic = kind(trunk_of(other), *heads).double()
    with torch.no_grad():
        for head in (*critic.q, critic.v):
            head.out.weight.normal_()
    return Agent(lm, tokenizer, critic, Acting(**acting))


def score(f: list[float], g: list[float], constant: float = 0.0, **options: Any) -> dict[str, Any]:
    one_each = np.arange(len(f))
    counts = np.ones((1, len(f)), int)
    return Score(np.array(f), np.array(g), options.get("of", one_each), constant, counts).summary()


def test_r2_is_against_the_mean_of_training_and_not_of_the_held_out() -> None:
    """Returns 1, 2, 3, 4, all predicted as 3: errors 4 + 1 + 0 + 1 = 6. Those of the constant 2 are
    1 + 0 + 1 + 4 = 6, so that R² is 0; those of the constant 0 are 1 + 4 + 9 + 16 = 30: 1 - 6/30 = .8."""
    for constant, r2 in ((2.0, 0.0), (0.0, 0.8)):
        assert score([3.0] * 4, [1.0, 2.0, 3.0, 4.0], constant)["r2"]["value"] == pytest.approx(r2)


def test_a_level_a_scale_and_a_bend_are_forgiven_after_calibration_and_an_order_is_not() -> None:
    """G of 0 to 19 in five parts, each told from the four others, whose means are 10, 9.75, 9.5, 9.25 and 9:
    the squared errors of the constants are 150 + 131.25 + 125 + 131.25 + 150 = 687.5. Values 10 G + 100 give
    G back, but for 0 and 19, which lie beyond the other parts and are told as 1 and 18: 1 - 2 / 687.5. So
    does nearly any rising function of G. A function that may not fall makes of -G the mean."""
    g = [float(x) for x in range(20)]
    off = score([10 * x + 100 for x in g], g, 9.5)
    assert off["r2"]["value"] < -100
    assert off["calibrated_r2"]["value"] == pytest.approx(1 - 2 / 687.5)
    bent = score([1.1**x for x in g], g, 9.5)
    assert bent["calibrated_r2"]["value"] > 0.99 > bent["r2"]["value"]
    assert off["slope"]["value"] == pytest.approx(0.1) and off["intercept"]["value"] == pytest.approx(-10)
    assert off["spearman"]["value"] == pytest.approx(1)
    wrong = score([-x for x in g], g, 9.5)
    assert wrong["calibrated_r2"]["value"] == pytest.approx(0)
    assert wrong["spearman"]["value"] == pytest.approx(-1)


def test_rank_correlation_by_hand() -> None:
    """Ranks 1 2 3 4 and 2 1 3 4: 1 - 6 (1 + 1) / (4 * 15) = .8."""
    assert score([1.0, 2.0, 7.0, 9.0], [0.5, 0.0, 0.6, 0.7])["spearman"]["value"] == pytest.approx(0.8)


def test_intervals_are_over_conversations_and_never_over_turns() -> None:
    """Ten conversations whose hundred turns repeat each other have the interval of ten turns."""
    rng = np.random.default_rng(0)
    f, g = rng.normal(size=10), rng.normal(size=10)
    counts = rng.multinomial(10, np.full(10, 0.1), size=400)
    few = Score(f, g, np.arange(10), 0.0, counts).summary()
    many = Score(f.repeat(100), g.repeat(100), np.arange(10).repeat(100), 0.0, counts).summary()
    for name in ("r2", "calibrated_r2", "spearman", "slope", "intercept"):
        assert many[name] == pytest.approx(few[name], abs=1e-9), name


def test_where_returns_or_values_do_not_vary_nothing_is_divided_by_zero() -> None:
    same = score([1.0] * 4, [2.0] * 4, 2.0)
    assert same["r2"] is None and same["calibrated_r2"] is None
    assert same["spearman"]["value"] == 0 and same["slope"]["value"] == 0


def test_returns_across_a_cut_by_hand(row: Callable[..., Tokens]) -> None:
    """[7|1 2 9|5 5|3 9], rewards 1 and 2, gamma .5 a turn and .9 a token: the second turn's last token is
    worth 2 and its state .9 * 2; the first's last token 1 + .5 * 1.8 = 1.9, its state .81 * 1.9. The same in
    two rows, of which the second begins with what it does not learn from."""
    e = Estimand(0.5, 0.9)
    whole = row("7|1 2 9|5 5|3 9", [1.0, 2.0])
    before, after = returns_of([whole], e)
    np.testing.assert_allclose(before, [0.81 * 1.9, 1.8])
    np.testing.assert_allclose(after, [1.9, 2.0])
    first = whole.window(0, 6)
    second = Tokens(**{**vars(whole.window(2, 8)), "learn_from": 3})
    cut = returns_of([Tokens(**{**vars(first), "continues": True}), second], e)
    np.testing.assert_allclose(cut[0], before)
    np.testing.assert_allclose(cut[1], after)


@pytest.mark.parametrize("kind", [TokenCritic, TurnCritic])
def test_values_are_read_once_a_turn_also_where_a_conversation_is_cut_into_rows(
    kind: type[Any], tokenizers: Any
) -> None:
    """V before the first token and Q after the last, of every turn, in order. The first two turns, which the
    whole conversation and its first row both read from the beginning, have the same values."""
    agent = agent_of(tokenizers["own"], kind)
    talk = tuple(Message(role, "Test the screen.") for _ in range(6) for role in ("user", "assistant"))
    (length,) = [len(t) for t in token_rows([Dialogue(talk)], agent.chat, 1000)]
    (whole,) = token_rows([Dialogue(talk)], agent.chat, length)
    parts = list(token_rows([Dialogue(talk)], agent.chat, length // 2))
    assert len(parts) > 1 and length <= CONTEXT
    v, q = values_of(agent, [whole])
    cut_v, cut_q = values_of(agent, parts)
    assert v.shape == q.shape == cut_v.shape == cut_q.shape == (6,)
    np.testing.assert_allclose(cut_v[:2], v[:2], atol=1e-9)
    np.testing.assert_allclose(cut_q[:2], q[:2], atol=1e-9)
    assert len(set(q.round(9))) == 6


def figures(own: tuple[float, float, float], words: tuple[float, float, float]) -> dict[str, Any]:
    def entry(x: tuple[float, float, float]) -> dict[str, Any]:
        return {"r2": dict(zip(("value", "low", "high"), x, strict=True))}

    return {"heldout": 80, "judged_by": "r2", "q": {"all": {"critic": entry(own), "words": entry(words)}}}


def test_a_critic_that_does_not_beat_a_constant_is_told_so() -> None:
    found = verdict(figures((0.01, -0.02, 0.04), (0.3, 0.2, 0.4)))
    assert found["knows"] is False
    assert "does not beat a constant on 80 conversations that it has not seen" in found["sentence"]
    assert "its colours say nothing yet. A regression on words does (0.30)" in found["sentence"]
    assert "Nor does a regression" in verdict(figures((0.0, -0.1, 0.1), (0.0, -0.1, 0.1)))["sentence"]


def test_a_critic_that_exaggerates_what_it_knows_is_told_so() -> None:
    found = figures((0.01, -0.02, 0.04), (0.3, 0.2, 0.4))
    found["q"]["all"]["critic"]["calibrated_r2"] = {"value": 0.2, "low": 0.14, "high": 0.25}
    said = verdict(found)
    assert said["knows"] is False
    assert said["sentence"].endswith("(R² after calibration 0.20, 0.14 to 0.25): it exaggerates.")


@pytest.mark.parametrize(
    ("gain", "beside", "says"),
    [
        ((0.1, 0.05, 0.2), "better", "beats a regression on words"),
        ((0.0, -0.1, 0.1), "equal", "does as well as a regression on words"),
        ((-0.2, -0.3, -0.1), "worse", "does worse than a regression on words"),
    ],
)
def test_a_critic_that_knows_something_stands_beside_the_words(
    gain: tuple[float, float, float], beside: str, says: str
) -> None:
    over = dict(zip(("value", "low", "high"), gain, strict=True))
    for q_over_v, doubt in (({"low": 0.1}, False), ({"low": -0.1}, True)):
        found = verdict(
            figures((0.4, 0.3, 0.5), (0.4, 0.3, 0.5)) | {"gain": {"over_words": over, "q_over_v": q_over_v}}
        )
        assert found["knows"] is True and found["beside_words"] == beside and says in found["sentence"]
        assert ("single replies is in doubt" in found["sentence"]) == doubt


def test_too_few_held_out_conversations_say_nothing(tokenizers: Any) -> None:
    """Of 29 that came to an end and one that was cut nothing is measured."""
    said = (Message("user", "Hi"), Message("assistant", "Yes", reward=1.0))
    talks = [Dialogue(said, terminated=i > 0) for i in range(ENOUGH)]
    agent = agent_of(tokenizers["own"], TurnCritic, return_std=2.0)
    rows = token_rows(talks, agent.chat, CONTEXT)
    found = measure_critic(agent, Estimand(), (talks, rows), (talks, rows))
    assert found["knows"] is None and found["heldout"] == 29 and found["cut"] == 1 and "q" not in found
    assert "there are only 29 of them" in found["sentence"]
    assert found["returns"]["std"] == 2.0


def test_turns_are_counted_from_each_conversations_beginning() -> None:
    """Conversations of 1, 3 and 2 turns: the second turns are at 2 and 5, the only third one is at 3."""
    turns = Turns(np.array([0, 1, 1, 1, 2, 2]), {}, {})
    assert [turns.at(p).tolist() for p in ("first", "last", "2", "3", "4")] == [
        [0, 1, 4],
        [0, 3, 5],
        [2, 5],
        [3],
        [],
    ]
    assert turns.positions() == ()  # two conversations are not enough


def test_a_position_has_figures_if_enough_conversations_come_so_far() -> None:
    """Thirty of forty conversations have a second turn, and nine a third one."""
    lengths = [1] * 10 + [2] * 21 + [3] * 9
    assert Turns(np.repeat(np.arange(40), lengths), {}, {}).positions() == ("2",)
