"""Verdicts: what each threshold does, what the sentences say, and how they fare where the truth is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from turnwise.evaluation.estimates import importance
from turnwise.evaluation.estimates.foretelling.gains import Gain
from turnwise.evaluation.estimates.intervals import jointly, studentised_intervals
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.shortfalls import MAX_WIDTH, MIN_EFFECTIVE, MIN_SHARE
from turnwise.evaluation.estimates.step_curve import ModelCheck
from turnwise.evaluation.estimates.support import Coverage, Evenness, Evidence, Unseen, coverage, evenness
from turnwise.evaluation.estimates.verdict import judge, vouches

COVERED = Coverage(
    overall=0.97,
    per_decision=np.array([0.99, 0.95]),
    running=np.array([1.0, 0.6]),
    of_logged=0.99,
    of_logged_per_decision=np.array([0.99, 0.98]),
    nowhere=0.0,
    unseen=(Unseen(1, 2, 0.12, 0), Unseen(0, 1, 0.002, 4)),
)
FINE = Evidence(1000, Evenness(400.0, 0.01), COVERED, (0.2, 0.3), (-1.0, 1.0))
CHECK = ModelCheck(
    promised=np.array([-0.3, 0.1, 0.5]),
    measured=np.array([-0.3, 0.1, 0.2]),
    low=np.array([-0.35, 0.0, 0.0]),
    high=np.array([-0.2, 0.2, 0.3]),
    vouched=np.array([True, True, False]),
    distances=np.array([0.0, 0.5, 2.0]),
    distance=4.0,
)


def without(**changes: Any) -> Evidence:
    return replace(FINE, **changes)


def test_logs_that_vouch():
    verdict = judge(FINE)
    assert (verdict.word, verdict.needs) == ("vouch", ())
    assert verdict.reasons == (
        "For this policy the 1,000 logged conversations tell as much as 400 of its own would, and the "
        "heaviest makes 1% of the estimate.",
        "They hold 97% of what it does in like situations, and 99% of what the logged agent did.",
        "The 95% interval spans 5% of the range of logged returns.",
    )
    assert vouches(FINE)


def test_each_threshold_stops_it():
    """Each piece of evidence alone, just below what is asked for, and the number of the sentence about it."""
    cases = {
        "tell as much as 100 of its own would; at least 200": without(evenness=Evenness(100.0, 0.01)),
        "of them; 6% is asked for": without(conversations=10_000, evenness=Evenness(500.0, 0.01)),
        "Weights average 0.700": without(evenness=Evenness(400.0, 0.01, 0.7, 0.2)),
        "Weights average 0.950": without(evenness=Evenness(400.0, 0.01, 0.95, 0.01)),
        "Weights average 1.100": without(evenness=Evenness(400.0, 0.01, 1.1, 0.02)),
        "One conversation makes 20%": without(evenness=Evenness(400.0, 0.2)),
        "hold 60% of what the policy does": without(coverage=replace(COVERED, overall=0.6)),
        "At turn 2 the logs hold 40%": without(coverage=replace(COVERED, per_decision=np.array([0.99, 0.4]))),
        "hold but 30% of what the logged agent": without(coverage=replace(COVERED, of_logged=0.3)),
        "It was not measured": without(coverage=None),
        "5% was never logged at all: no model can have learnt what follows. It is act 2 at turn 2": without(
            coverage=replace(COVERED, nowhere=0.05)
        ),
        "spans 30% of the range": without(interval=(0.0, 0.6)),
        "no bound": without(interval=(-math.inf, math.inf)),
        "In none of the 1,000 logged customers": without(evenness=Evenness(0.0, math.nan), unit="customer"),
        "one customer": without(conversations=1, unit="customer"),
        "ended alike (return 1)": without(returns=(1.0, 1.0)),
    }
    for words, evidence in cases.items():
        verdict = judge(evidence)
        assert verdict.word == "cannot tell", words
        assert words in " ".join(verdict.reasons), verdict.reasons
        assert verdict.needs, words
        assert not vouches(evidence), words


def test_what_is_rarely_reached_does_not_count():
    """Turn 2 is not covered, but 4% of the policy's conversations come there."""
    rare = replace(COVERED, per_decision=np.array([0.99, 0.1]), running=np.array([1.0, 0.04]))
    assert vouches(without(coverage=rare))


def test_even_weights_need_few_conversations():
    """60 conversations of the behaviour itself are 60: there are few, and nothing is wrong with them."""
    few = without(conversations=60, evenness=Evenness(60.0, 1 / 60))
    assert MIN_EFFECTIVE > 60
    assert vouches(few)
    assert not vouches(without(conversations=60, evenness=Evenness(25.0, 1 / 60)))


def test_what_would_help():
    """100 of 1,000 are worth 100 of 200 wanted: twice as many. A width twice too large wants four times."""
    assert judge(without(evenness=Evenness(100.0, 0.01))).needs == (
        "About 2,000 conversations like these, in place of 1,000.",
    )
    wide = without(evenness=Evenness(100.0, 0.01), interval=(0.0, 4 * MAX_WIDTH))
    assert judge(wide).needs == ("About 4,000 conversations like these, in place of 1,000.",)
    # Of a policy that does something else, more of the same would not help: no number is named.
    far = without(evenness=Evenness(0.5 * MIN_SHARE * 1000, 0.1), interval=(0.0, 1.0))
    (need,) = judge(far).needs
    assert "tries what the policy does" in need
    acts = ("test", "fix", "offer a refund")
    (need,) = judge(without(coverage=replace(COVERED, overall=0.5)), acts=acts).needs
    assert need == (
        "Conversations in which the agent does this: offer a refund at turn 2 (in 12% of the policy's "
        "conversations); fix at turn 1 (in less than 1% of the policy's conversations)."
    )


def test_a_model_is_believed_where_it_was_right():
    """The logs stop at .5 of 4 nats; up to there the model agrees. What it says beyond is not looked at."""
    far = without(evenness=Evenness(10.0, 0.3))
    verdict = judge(far, CHECK)
    assert verdict.word == "model only"
    assert "12% of the way" in verdict.reasons[-1]
    assert "by at most 0, which chance explains" in verdict.reasons[-1]
    assert judge(far).word == "cannot tell"  # no model
    unchecked = judge(far, replace(CHECK, vouched=np.array([True, False, False])))
    assert unchecked.word == "cannot tell"
    assert "0% of the way" in unchecked.reasons[-1]
    new = without(evenness=Evenness(10.0, 0.3), coverage=replace(COVERED, nowhere=0.2))
    assert judge(new, CHECK).word == "cannot tell"
    assert "20% was never logged at all" in " ".join(judge(new, CHECK).reasons)
    assert judge(without(conversations=1), CHECK).word == "cannot tell"


def test_a_model_is_called_wrong_where_it_was():
    """At .5 nats the logs say .1 (0 to .2): .25 is too high, unless the model's own spread is .12.

    sqrt(.1^2 + .12^2) = .156 is more than the .15 between them. Of a range of 2, .04 is what matters.
    """
    wrong = replace(CHECK, promised=np.array([-0.3, 0.25, 0.5]))
    assert wrong.off(0.04) == (1, pytest.approx(0.15))
    assert replace(wrong, spread=np.full(3, 0.12)).off(0.04) is None
    assert replace(wrong, low=wrong.measured, high=wrong.measured).off(0.2) is None
    far = judge(without(evenness=Evenness(10.0, 0.3)), wrong)
    assert far.word == "cannot tell"
    assert "it promises 0.25, and the logs say 0.1 (0 to 0.2). It is too high" in far.reasons[-1]
    # Where logs vouch they need no model, and say that it is wrong.
    near = judge(FINE, wrong)
    assert near.word == "vouch"
    assert "it is the model that is wrong" in near.reasons[-1]
    # If nobody knows how probable the logged acts were, the clone's part has been taken off.
    guessed = replace(wrong, clone=-0.08)
    far = judge(without(evenness=Evenness(10.0, 0.3)), guessed)
    assert "promises 0.25 (less its part of the -0.08 by which it is off for a clone" in far.reasons[-1]


def test_acts_that_mean_several_things():
    """.03 nats with an error of .01 are three errors above 0; with .02 it may be chance; .004 is little."""
    mixed = without(words=Gain(0.03, 0.01, 900))
    verdict = judge(mixed, CHECK)
    assert (verdict.word, vouches(mixed)) == ("cannot tell", False)
    assert "Acts have more than one meaning: the words of messages tell 0.030 nats" in verdict.reasons[0]
    assert "an estimate per turn" in verdict.needs[0]
    assert vouches(without(words=Gain(0.03, 0.02, 900))) and vouches(without(words=Gain(0.004, 0.0001, 900)))


def test_a_model_that_the_history_knows_better():
    """Steps agree with the logs, and yet what was exchanged, or how it was worded, tells more of answers."""
    far = without(evenness=Evenness(10.0, 0.3))
    gain = Gain(0.02, 0.004, 900)
    history, words = judge(far, replace(CHECK, history=gain)), judge(far, replace(CHECK, words=gain))
    assert history.word == words.word == "cannot tell"
    assert "what was exchanged before tells 0.020 nats (0.012 to 0.028, 95%)" in history.reasons[-1]
    assert "the words of a message tell 0.020 nats" in words.reasons[-1]
    assert judge(far, replace(CHECK, history=Gain(0.02, 0.01, 900))).word == "model only"
    near = judge(FINE, replace(CHECK, history=gain))
    assert near.word == "vouch" and "model is wrong about what is answered" in near.reasons[-1]


def test_a_check_that_could_not_fail_is_none():
    """At .5 nats the model promises a gain of .4, and may be off by .1 unnoticed: a third would be .133.

    If the logs say .1 with .05 more on one side, it may be off by .15. If no gain is promised, .04 must be
    noticed, 2% of the range.
    """
    assert CHECK.sharpest(1 / 3, 0.04) == (1, pytest.approx(0.1), pytest.approx(0.4 / 3))
    blunt = replace(CHECK, high=np.array([-0.2, 0.25, 0.3]))
    verdict = judge(without(evenness=Evenness(10.0, 0.3)), blunt)
    assert verdict.word == "cannot tell"
    assert (
        "12% of the way from the behaviour it may be off by 0.15 unnoticed, and 0.13" in verdict.reasons[-1]
    )
    still = replace(CHECK, promised=np.full(3, 0.1))
    assert still.sharpest(1 / 3, 0.04)[2] == pytest.approx(0.04)


def logs_of(rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    """Two turns, four acts each, drawn evenly; the return is 1 or 0, by how good they are."""
    acts = rng.integers(0, 4, (size, 2))
    quality = np.array([-1.0, -0.5, 0.0, 1.5])
    won = rng.random(size) < expit(quality[acts].sum(1))
    rewards = np.stack([np.zeros(size), won], axis=1)
    return acts, rewards, quality


def target(beta: float, quality: np.ndarray) -> np.ndarray:
    p = np.exp(beta * quality)
    return p / p.sum()


def test_where_the_truth_is_known():
    """40 sets of 600 conversations; targets exp(beta quality). The value is a sum over 16 pairs of acts.

    Near (beta .5: some 400 effective) is vouched for, in all sets but at most one; far (beta 8, all but the
    best act given up: 600 / 16 = 38) in none. No vouched interval is off by more than half its width.
    """
    rng = np.random.default_rng(0)
    words: dict[float, list[str]] = {0.5: [], 8.0: []}
    for _ in range(40):
        acts, rewards, quality = logs_of(rng, 600)
        mask = np.ones(acts.shape, dtype=bool)
        for beta, said in words.items():
            p = target(beta, quality)
            truth = float(p @ expit(quality[:, None] + quality) @ p)
            logged = Logged(rewards, mask, 1.0, np.log(p)[acts], np.full(acts.shape, math.log(0.25)))
            found = studentised_intervals(
                jointly([importance.weighted(logged)]), 600, within=(0, 1), resamples=200, rng=rng
            )
            held = coverage(
                np.broadcast_to(p, (600, 2, 4)),
                acts,
                np.tile([0, 1], (600, 1)),
                mask,
                log_ratios=logged.log_ratios,
            )
            low, high = float(found.low[0]), float(found.high[0])
            verdict = judge(Evidence(600, evenness(logged.log_weights), held, (low, high), (0.0, 1.0)))
            said.append(verdict.word)
            half = (high - low) / 2
            assert verdict.word != "vouch" or low - half <= truth <= high + half
    assert words[0.5].count("vouch") >= 39
    assert "vouch" not in words[8.0]
