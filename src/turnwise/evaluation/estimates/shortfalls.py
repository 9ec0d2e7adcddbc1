"""What keeps logs from vouching for an estimate, one piece of evidence after the other, in words.

The thresholds come from an experiment in which true values are known: conversations of HelpDesk, targets
behaviour x exp(beta Q*) for beta 1 to 16, and the best plan. 5,000 conversations are worth 29%, 9%, 4% and 3%
of their number at beta 2, 4, 8 and 16, and .3% for the plan. "vouch" is to be said at beta 2 and 4, and never
at beta 16 or of the plan, though their intervals look narrow in one set of logs or another. A logged agent
that is near-optimal and hardly ever errs is the other case: of a policy that errs often, its logs
hold only the conversations in which it does not, with even weights, in like situations. These weights do not
average 1. No theorem gives these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.evaluation.estimates.foretelling.gains import Gain
from turnwise.evaluation.estimates.support import Coverage, Evidence, Unseen

MIN_EFFECTIVE = 200.0
"""conversations of its own that the logs must be worth to a policy (effective sample size)"""
MIN_SHARE = 0.06
"""of all logs, that these must be: a small share is the beginning of a long tail of weights, of which the
heaviest are not logged yet, and then the effective sample size overstates itself"""
EVEN_SHARE, MIN_CONVERSATIONS = 0.5, 30
"""this share of all logs is enough, if there are so many: with nearly even weights a few conversations do"""
MAX_SHARE = 0.05
"""of all weight, that one conversation (or cluster) may hold"""
AWAY = 3.3
"""standard errors that the mean weight may be from 1: by chance it is farther off once in a thousand logs"""
MIN_MEAN = 0.9
"""the mean weight that is asked for besides: what is missing of 1 is the share of the policy's conversations
that these logs do not hold, and few logs have errors so large that they show nothing"""
MIN_COVERAGE = 0.8
"""share of what the policy does that the logs must hold in like situations, over the same share of what the
logged agent did"""
MIN_TURN_COVERAGE = 0.6
"""the same at each decision that at least `COUNTED` of the policy's conversations reach"""
COUNTED = 0.05
"""see `MIN_TURN_COVERAGE`"""
MIN_OF_LOGGED = 0.4
"""of what the logged agent did, that the logs must hold in like situations for coverage to say anything"""
MAX_WIDTH = 0.15
"""width of the 95% interval over the range of logged returns"""
MAX_NOWHERE = 0.02
"""share of what the policy does that the logs may hold nowhere at all; neither they nor a model learnt from
them know what follows"""
MATERIAL = 0.02
"""of the range of logged returns: a model that is off by less is not called wrong"""


TOLD = 0.005
"""nats of what follows each message, that its words (or, beyond a model, what was exchanged) must tell to be
called a fault. In conversations whose sentences repeat what was said before, and mean no more than their act,
the network that knows what was exchanged leaves .002 to .003 of it to the words; acts that mix two parts of
HelpDesk leave .03"""


@dataclass(frozen=True)
class Shortfall:
    """What keeps the logs from vouching: a sentence, and what would help."""

    reason: str
    need: str = ""
    """a sentence of its own"""
    times: float = 0.0
    """or so many times the conversations"""
    final: bool = False
    """no model helps either"""


def shortfalls(evidence: Evidence, acts: Sequence[str] | None = None) -> list[Shortfall]:
    """What keeps the logs from vouching, in the order in which it is said."""
    bottom, top = evidence.returns
    if evidence.conversations < 2:
        alone = f"There is but one {evidence.unit}: nothing says what chance did."
        return [Shortfall(alone, f"More {evidence.unit}s.", final=True)]
    if not top > bottom:
        return [
            Shortfall(
                f"All conversations ended alike (return {top:g}): they cannot tell better from worse.",
                "Conversations with different outcomes, or outcomes measured more finely.",
                final=True,
            )
        ]
    found = (
        _ambiguous(evidence),
        _unaveraged(evidence),
        _uneven(evidence),
        _heavy(evidence),
        *_uncovered(evidence.coverage, acts),
        _wide(evidence),
    )
    return [shortfall for shortfall in found if shortfall]


def _ambiguous(evidence: Evidence) -> Shortfall | None:
    """Weights of acts are right if it does not matter how an act is worded."""
    words = evidence.words
    if words is None or not words.above(TOLD):
        return None
    return Shortfall(
        f"Acts have more than one meaning: the words of messages tell {nats(words)} of what follows each, "
        "beyond all that was exchanged as acts. The policy would not choose its words as the logged agent "
        "did, and estimates per act may be wrong by that.",
        "Acts that tell such messages apart; or an estimate per turn, which weighs the messages themselves.",
        final=True,
    )


def _uneven(evidence: Evidence) -> Shortfall | None:
    n, effective = evidence.conversations, evidence.evenness.effective
    if n >= MIN_CONVERSATIONS and effective >= EVEN_SHARE * n:
        return None
    if effective == 0:
        return Shortfall(f"In none of {evidence.logs} did the agent act as this policy would.", _OTHER_LOGS)
    worth = f"For this policy {evidence.logs} tell as much as {effective:,.0f} of its own would"
    if effective < MIN_SHARE * n:
        return Shortfall(
            f"{worth}, {percent(effective / n)} of them; {MIN_SHARE:.0%} is asked for, whatever their "
            "number: it mostly does what the logged agent seldom did.",
            _OTHER_LOGS,
        )
    if effective < MIN_EFFECTIVE:
        return Shortfall(
            f"{worth}; at least {MIN_EFFECTIVE:.0f} are asked for.", times=MIN_EFFECTIVE / effective
        )
    return None


def _unaveraged(evidence: Evidence) -> Shortfall | None:
    """Of a policy that does what the behaviour hardly ever does, the huge weights are not there."""
    mean, error = evidence.evenness.mean, evidence.evenness.mean_error
    if evidence.evenness.effective == 0:
        return None  # that is said in other words
    if abs(mean - 1) <= max(AWAY * error, MATERIAL) and mean >= MIN_MEAN:
        return None
    return Shortfall(
        f"Weights average {mean:.3f} (standard error {error:.3f}), and would average 1 if these logs held "
        "all that the policy does, and if the probabilities were those of the agent that acted.",
        _OTHER_LOGS,
    )


def _heavy(evidence: Evidence) -> Shortfall | None:
    share = evidence.evenness.largest_share
    # Of 10 conversations with even weights each has a tenth: that is few conversations, not a heavy one.
    if not share > max(MAX_SHARE, 2 / evidence.conversations):
        return None
    return Shortfall(
        f"One {evidence.unit} makes {share:.0%} of the estimate; at most {MAX_SHARE:.0%} is allowed.",
        times=share / MAX_SHARE,
    )


def _uncovered(coverage: Coverage | None, acts: Sequence[str] | None) -> list[Shortfall]:
    if coverage is None:
        return [
            Shortfall(
                "It was not measured how much of what the policy does the logs hold.",
                "Acts: with them it can be counted.",
            )
        ]
    if coverage.nowhere - coverage.of_logged_nowhere > MAX_NOWHERE:
        new = ([u for u in coverage.unseen if not u.elsewhere] or coverage.unseen)[:3]
        return [
            Shortfall(
                f"Of what the policy does {part(coverage.nowhere)} was never logged at all: no model can "
                f"have learnt what follows. It is {_listed(new, acts)}.",
                "Conversations in which the agent does this, with its probabilities logged.",
                final=True,
            )
        ]
    if not coverage.of_logged >= MIN_OF_LOGGED:
        return [
            Shortfall(
                "Situations are told apart so finely, or logs are so few, that they hold but "
                f"{percent(coverage.of_logged)} of what the logged agent itself did in like situations.",
                "Coarser kinds of situations, or more conversations.",
            )
        ]
    counted = coverage.running >= COUNTED
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = coverage.per_decision / coverage.of_logged_per_decision
    ratios = np.where(counted & np.isfinite(ratios), ratios, 1.0)
    least = int(ratios.argmin())
    named = [u for u in coverage.unseen if counted[u.decision]][:3]
    if not coverage.overall >= MIN_COVERAGE * coverage.of_logged:
        where, share, logged, asked = "The", coverage.overall, coverage.of_logged, MIN_COVERAGE
    elif not ratios[least] >= MIN_TURN_COVERAGE:
        share, logged = coverage.per_decision[least], coverage.of_logged_per_decision[least]
        where, asked = f"At turn {least + 1} the", MIN_TURN_COVERAGE
    else:
        return []
    return [
        Shortfall(
            f"{where} logs hold {part(share)} of what the policy does in like situations, and "
            f"{part(logged)} of what the logged agent did; {percent(asked * logged)} is asked for. "
            f"Missing are above all: {_listed(named, acts)}.",
            f"Conversations in which the agent does this: {_listed(named, acts)}.",
        )
    ]


def _wide(evidence: Evidence) -> Shortfall | None:
    (low, high), (bottom, top) = evidence.interval, evidence.returns
    width = (high - low) / (top - bottom)
    if width <= MAX_WIDTH:
        return None
    if not math.isfinite(width):
        return Shortfall("The logs put no bound on the value.", _OTHER_LOGS)
    return Shortfall(
        f"The 95% interval spans {width:.0%} of the range of logged returns; "
        f"at most {MAX_WIDTH:.0%} is allowed.",
        times=(width / MAX_WIDTH) ** 2,
    )


_OTHER_LOGS = (
    "Conversations in which the agent tries what the policy does, some of the time, with its probabilities "
    "logged; or talk with the policy itself."
)
_TOO_MANY = 100
"""times as many conversations of the same kind: nobody waits for those"""


def needs_of(missing: Sequence[Shortfall], evidence: Evidence) -> tuple[str, ...]:
    """What would help. More of the same is named only if it is enough."""
    said = [m.need for m in missing if m.need]
    times = max(m.times for m in missing)
    if times > _TOO_MANY:
        said.append(_OTHER_LOGS)
    elif times > 1 and _OTHER_LOGS not in said:
        # Two digits, rounded up: the estimate is no better than that.
        wanted = evidence.conversations * times
        unit = 10 ** max(math.floor(math.log10(wanted)) - 1, 0)
        count = math.ceil(wanted / unit) * unit
        said.append(f"About {count:,} {evidence.unit}s like these, in place of {evidence.conversations:,}.")
    return tuple(dict.fromkeys(said))


def _listed(unseen: Sequence[Unseen], acts: Sequence[str] | None) -> str:
    return "; ".join(
        f"{acts[u.act] if acts is not None else f'act {u.act}'} at turn {u.decision + 1} "
        f"(in {percent(u.mass)} of the policy's conversations)"
        for u in unseen
    )


def nats(gain: Gain) -> str:
    """What is told, with its interval."""
    low, high = gain.interval
    return f"{gain.mean:.3f} nats ({low:.3f} to {high:.3f}, 95%)"


def part(share: float) -> str:
    """A share in words."""
    return "all" if share >= 1 else percent(share)


def percent(share: float) -> str:
    """Neither 0% of something nor 100% of less than all."""
    if 0 < share < 0.01:
        return "less than 1%"
    return "more than 99%" if 0.99 < share < 1 else f"{share:.0%}"
