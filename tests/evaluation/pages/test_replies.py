"""What the page of a policy on replies says that training came to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from turnwise.evaluation.measures.replies import paired_gains
from turnwise.evaluation.pages.replies import answer_of_feedback, answer_of_replies
from turnwise.evaluation.pages.reward_models import answer_of_reward


def interval(mean: float, spread: float = 0.1) -> dict[str, float]:
    return {"mean": mean, "low": mean - spread, "high": mean + spread}


RULE = {"rule": "longer", "rules": {"longer": 0.675, "shorter": 0.325}}


def measured(**differences: float) -> dict[str, Any]:
    before = {key: interval(0.0, 1.0) for key in differences}
    after = {key: interval(x, 1.0) for key, x in differences.items()}
    return {
        "before": {**before, "kl": interval(0.0, 0.0)},
        "after": {**after, "kl": interval(7.22, 0.5)},
        "gained": {key: interval(x) for key, x in differences.items()},
    }


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ({"reward": 1.3, "gold": -2.5}, "The reward rises and the truth falls"),
        ({"reward": 1.3, "gold": 0.5}, "Replies got better in truth."),
        ({"reward": -1.3, "gold": -0.5}, "Replies got worse in truth."),
        ({"reward": 1.3, "gold": 0.05}, "these replies do not settle whether they got better"),
        ({"reward": 1.3}, "By the reward that it was trained on, replies got better."),
        ({"reward": 0.0}, "these replies do not settle whether the reward changed"),
        ({"gold": 0.5}, "Replies got better in truth."),
    ],
)
def test_the_verdict_is_of_the_difference(differences: dict[str, float], verdict: str) -> None:
    """The two intervals overlap in every case here; that of the difference decides."""
    found = answer_of_replies("GRPO", measured(**differences))
    assert found is not None and verdict in " ".join(found["notes"])
    assert "7.2 (6.7 to 7.7) nats per reply" in found["sentence"] and ("reward" in found["sentence"]) == (
        "reward" in differences
    )
    cannot = "That reward cannot say whether they got better in truth." in found["notes"]
    assert cannot == ("gold" not in differences)


def test_a_difference_is_of_the_same_prompts() -> None:
    """Prompts worth 0, 10, 20, ...: each gains 1 or 2. The interval is that of the gains."""
    base = 10.0 * np.arange(30)
    gain = 1.0 + np.arange(30) % 2
    found = paired_gains({"by_prompt": {"gold": base}}, {"by_prompt": {"gold": base + gain, "reward": gain}})
    assert set(found) == {"gold"}
    assert found["gold"]["mean"] == pytest.approx(1.5)
    low, high = found["gold"]["low"], found["gold"]["high"]
    assert low is not None and high is not None and 1.25 < low < 1.4 and 1.6 < high < 1.75


def test_what_tells_nothing_is_said_to() -> None:
    """One prompt has no interval; where the reward is the same for all there was nothing to learn."""
    alone = measured(reward=0.2)
    alone["gained"]["reward"] |= {"low": None, "high": None}
    found = answer_of_replies("GRPO", alone)
    assert found is not None and found["notes"] == ["A single prompt says nothing of the spread."]
    same = measured(reward=0.0)
    for when in ("before", "after"):
        same[when]["reward"] = interval(1.0, 0.0)
    same["gained"]["reward"] = interval(0.0, 0.0)
    found = answer_of_replies("GRPO", same)
    assert found is not None and "there was nothing to learn" in found["notes"][0]


def test_agreement_with_feedback_stands_beside_length() -> None:
    """Ties are in no pair of these; of rankings all pairs of their replies count."""
    quality = {"accuracy": 0.698, "low": 0.62, "high": 0.77, "items": 162, "ties": 3, "compared": 159}
    pairs = {**quality, **RULE, "gain": interval(0.023, 0.01)}
    found = answer_of_feedback("DPO", [], {**pairs, "criterion": "implicit reward"})
    assert (
        found is not None
        and "<b>69.8% of the 159 held-out pairs</b> (95% interval 62.0% to 77.0%)" in found["sentence"]
    )
    assert found["notes"][0].startswith("That is more than without a model: choosing the longer reply")
    assert found["notes"][1] == "DPO is taken to prefer the reply with the higher implicit reward."
    ranked = answer_of_feedback("DPO", [], {**pairs, "tau": 0.3})
    assert ranked is not None and "of the 159 pairs in held-out rankings" in ranked["sentence"]
    by = {"criterion": "log-probability per token", "before": 0.484}
    alone = answer_of_feedback("SimPO", [], pairs | by)
    assert alone is not None and alone["notes"][1:] == [
        "SimPO is taken to prefer the reply with the higher log-probability per token.",
        "Before training, the same comparison was right in 48.4%.",
    ]
    unsaid = answer_of_feedback("SimPO", [], pairs)
    assert unsaid is not None and len(unsaid["notes"]) == 1
    likes = answer_of_feedback("KTO", [], {"auc": {"mean": 0.6, "low": 0.55, "high": 0.65}})
    assert (
        likes is not None
        and "<b>60.0% of the pairs of a liked and a disliked reply that were held out</b> (95% interval 55.0%"
        in likes["sentence"]
    )


def test_a_run_without_a_measurement_tells_what_was_logged_last() -> None:
    metrics = [{"heldout/rewards/accuracies": 0.5}, {"heldout/rewards/accuracies": 0.698}, {"loss": 1.0}]
    found = answer_of_feedback("DPO", metrics, {})
    assert found is not None and "agreed with <b>69.8%</b>" in found["sentence"]
    assert answer_of_feedback("DPO", [{"loss": 1.0}], {}) is None


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        (
            {**RULE, "gain": interval(0.035)},
            "these items do not settle whether the model does better",
        ),
        (
            {**RULE, "gain": interval(0.035, 0.02)},
            "more than without a model: choosing the longer reply, which was preferred more often in what "
            "was learnt from, is right in 67.5%. The 95% interval of the difference, item by item, is +1.5 "
            "to +5.5 percentage points.",
        ),
        ({**RULE, "gain": interval(-0.025, 0.02)}, "less than without a model"),
        ({**RULE, "rule": "shorter", "gain": interval(-0.2)}, "choosing the shorter reply"),
    ],
)
def test_a_reward_model_stands_beside_what_needs_none(quality: dict[str, Any], said: str) -> None:
    """The interval of the difference decides, not those of the two shares."""
    found = answer_of_reward({"accuracy": 0.635, "low": 0.58, "high": 0.69, **quality})
    assert found is not None and said in found["notes"][0]
    assert answer_of_reward({}) is None


def test_scores_stand_beside_their_mean() -> None:
    """R^2 of .2 (.1 to .3) is a squared error of 80% (70% to 90%) of the mean's."""
    off = {"rmse": 0.5, "low": 0.4, "high": 0.6, "r2": 0.2, "gain": interval(0.2)}
    found = answer_of_reward(off)
    assert found is not None and "<b>0.500</b> (95% interval 0.400 to 0.600)" in found["sentence"]
    assert found["notes"] == [
        "Its squared error is 80% of the error of always giving their mean (95% interval 70% to 90%)."
    ]
    unsure = answer_of_reward({**off, "r2": 0.05, "gain": interval(0.05)})
    assert unsure is not None and "do not settle whether it does better" in unsure["notes"][0]
    same = answer_of_reward({"rmse": 0.5, "r2": None})
    assert same is not None and same["notes"] == ["All held-out scores are the same, so there is no R²."]
