"""The value of the travel desk: for an agent that plays it perfectly, and for the whimsical desk of its logs.

Given all that was said, place, pace and mood are independent: each question is answered by one of the first
two, and only the mood decides who grumbles and leaves. With r the reliability, and net the answers for one
value less those for the other, P(value) = 1 / (1 + (r / (1 - r))^-net). What is known of the mood is the
probability p of a hurry, which takes a continuum of values; but for given nets and turn the best value is

    V(net, p, t) = max over plans of (1 - p) a + p b,

convex in p and piecewise linear: a handful of pairs (a, b), what a plan is worth to a guest at ease and to
one in a hurry. They are found backwards in time, exactly as in value iteration of POMDPs (Sondik 1971).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.travel import rules
from turnwise.envs.tasks.travel.guest import GUEST, OPENING
from turnwise.envs.tasks.travel.logs import behavior_probabilities
from turnwise.envs.tasks.travel.reading import read_act
from turnwise.envs.tasks.travel.rules import ACTS, ANSWERS, HORIZON, LEFT, OFFERS, PAYOFFS, Act

Net = tuple[int, int]
Line = tuple[float, float]
"""what a plan is worth if the guest is at ease, and if it is in a hurry"""
_MOODS = (0, 1)
_ASKED = ((1.0 - rules.WEARS, rules.WEARS), (0.0, 1.0))  # P(mood after | mood) of a question
_SOOTHED = ((1.0, 0.0), (rules.SOOTHES, 1.0 - rules.SOOTHES))
_TURNS = (*ACTS[:3], rules.NONE)  # all that does not end the talk; what is not understood is one of them


@dataclass(frozen=True)
class OptimalDesk:
    """The agent that maximises the expected return. Ties go to the first act."""

    horizon: int = HORIZON
    reliability: float = rules.RELIABILITY
    _lines: dict[tuple[Net, int], list[Line]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not 0.5 <= self.reliability < 1:
            raise ValueError(f"reliability is {self.reliability}; expected at least 0.5 and below 1")
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}; expected at least 1 turn")

    def value(self, net: Net = (0, 0), hurried: float = rules.HURRIED, turn: int = 0) -> float:
        """Expected return from agent turn `turn` (from 0) on, if the guest is in a hurry with that chance."""
        return _at(self.plans(net, turn), hurried)

    def plans(self, net: Net, turn: int) -> list[Line]:
        """The pairs whose maximum is V. Values that differ in name only have the same."""
        if turn == self.horizon:
            return [(LEFT, LEFT)]
        key = (abs(net[0]), abs(net[1])), turn
        if key not in self._lines:
            turns = [line for act in _TURNS for line in self._after(act, key[0], turn)]
            best = max(self.offers(key[0]))
            self._lines[key] = _upper([*turns, (best, best)])
        return self._lines[key]

    def action_values(self, net: Net, hurried: float, turn: int) -> list[float]:
        """Q of each of `ACTS`."""
        asks = [_at(self._after(act, net, turn), hurried) for act in ACTS[:3]]
        return [*asks, *self.offers(net)]

    def offers(self, net: Net) -> list[float]:
        """What each of `OFFERS` is expected to earn: sum over how many of place and pace are right."""
        sea, quiet = (self._first(n) for n in net)
        worths = []
        for offer in OFFERS:
            p, q = (sea, 1 - sea)[offer.place], (quiet, 1 - quiet)[offer.pace]
            none, one, both = (1 - p) * (1 - q), p * (1 - q) + (1 - p) * q, p * q
            worths.append(none * PAYOFFS[0] + one * PAYOFFS[1] + both * PAYOFFS[2])
        return worths

    def act(self, history: Sequence[Message]) -> Act:
        """The best act after a conversation so far (all its messages, text and nothing else)."""
        belief = follow(history)
        values = self.action_values(belief.net, belief.hurried, belief.turn)
        return ACTS[max(range(len(ACTS)), key=values.__getitem__)]

    def _first(self, net: int) -> float:
        """P(sea), or P(quiet)."""
        odds = (self.reliability / (1 - self.reliability)) ** -abs(net)  # does not overflow
        return 1 / (1 + odds) if net >= 0 else odds / (1 + odds)

    def _after(self, act: Act, net: Net, turn: int) -> list[Line]:
        """Q of a turn without an offer, as pairs: the best plan is chosen after each answer."""
        leaves = rules.LEAVES_SOOTHED if act.kind == "soothe" else rules.LEAVES
        total: list[Line] = [(leaves[0] * LEFT, leaves[1] * LEFT)]
        for weights, after in self._answers(act, net):
            plans = self.plans(after, turn + 1)
            (aa, ah), (ha, hh) = weights
            parts = [(aa * a + ah * h, ha * a + hh * h) for a, h in plans]
            total = _upper([(a + c, h + d) for a, h in total for c, d in parts])
        return total

    def _answers(self, act: Act, net: Net) -> list[tuple[list[list[float]], Net]]:
        """For each answer P(it, mood after | mood) and the nets after it."""
        if act.kind in ("soothe", "none"):
            heard = ("calm", "grumble") if act.kind == "soothe" else ("confused",)
            return [(joint(act, meant), net) for meant in heard]
        k = 0 if act.kind == "ask place" else 1
        first = self._first(net[k])
        up = first * self.reliability + (1 - first) * (1 - self.reliability)
        content = joint(act, ANSWERS[2 * k])
        found = [(joint(act, "grumble"), net)]
        for chance, step in ((up, 1), (1 - up, -1)):
            after = (net[0] + step, net[1]) if k == 0 else (net[0], net[1] + step)
            found.append(([[chance * w for w in row] for row in content], after))
        return found


@cache
def joint(act: Act, meant: str) -> list[list[float]]:
    """[mood, mood after]: P(the guest stays, answers so and has that mood after it | mood).

    Whether an answer about place or pace is right is left out: it does not depend on the mood.
    """
    if act.kind == "soothe":
        calm = [rules.SOUNDS_CALM[m] if meant == "calm" else 1 - rules.SOUNDS_CALM[m] for m in _MOODS]
        says = [c if meant in ("calm", "grumble") else 0.0 for c in calm]
        return [[(1 - rules.LEAVES_SOOTHED[m]) * _SOOTHED[m][n] * says[n] for n in _MOODS] for m in _MOODS]
    rows = []
    for m in _MOODS:
        if act.kind == "none":
            says_it = float(meant == "confused")
        elif meant == "grumble":
            says_it = rules.GRUMBLES[m]
        else:
            says_it = (1 - rules.GRUMBLES[m]) * (meant in ANSWERS[:4])
        rows.append([(1 - rules.LEAVES[m]) * says_it * _ASKED[m][n] for n in _MOODS])
    return rows


@dataclass(frozen=True)
class Belief:
    """What is known in a conversation: nets of the answers, P(in a hurry), and the agent's turns so far."""

    net: Net
    hurried: float
    turn: int


def follow(history: Sequence[Message]) -> Belief:
    """The belief after a conversation under way, by Bayes' rule on what its texts mean."""
    net, p, turn = [0, 0], rules.HURRIED, 0
    act = rules.NONE
    for i, message in enumerate(history):
        if message.role == "assistant":
            act, turn = read_act(message.content), turn + 1
        elif i == 0:
            sounds = OPENING.read(message.content) == "in a hurry"
            likely = [s if sounds else 1 - s for s in rules.SOUNDS_HURRIED]
            p = p * likely[1] / ((1 - p) * likely[0] + p * likely[1])
        elif (meant := GUEST.read(message.content)) in ANSWERS:
            weights = joint(act, meant)
            calm, hurried = ((1 - p) * weights[0][n] + p * weights[1][n] for n in _MOODS)
            p = hurried / (calm + hurried) if calm + hurried else p
            if (heard := ANSWERS.index(meant)) < 4:
                net[heard // 2] += 1 if heard % 2 == 0 else -1
    return Belief((net[0], net[1]), p, turn)


@cache
def optimal_value(horizon: int = HORIZON, reliability: float = rules.RELIABILITY) -> float:
    """Expected return of the best agent, who hears the guest's first words before its first turn."""
    desk = OptimalDesk(horizon, reliability)
    total = 0.0
    for sounds in (True, False):
        likely = [s if sounds else 1 - s for s in rules.SOUNDS_HURRIED]
        calm, hurried = (1 - rules.HURRIED) * likely[0], rules.HURRIED * likely[1]
        total += (calm + hurried) * desk.value(hurried=hurried / (calm + hurried))
    return total


@cache
def behavior_value(horizon: int = HORIZON) -> float:
    """Expected return of the whimsical desk: over the hidden state, forwards through its acts."""

    @cache
    def value(net: Net, last: int | None, hurried: int, turn: int) -> float:
        """For a guest who wants the sea and quiet; the other three differ in name only."""
        if turn == horizon:
            return LEFT
        probabilities = behavior_probabilities(net, last)
        total = 0.0
        for act, p in zip(ACTS, probabilities, strict=True):
            if act.kind == "offer":
                total += p * PAYOFFS[(act.place == 0) + (act.pace == 0)]
                continue
            leaves = rules.LEAVES_SOOTHED if act.kind == "soothe" else rules.LEAVES
            total += p * leaves[hurried] * LEFT
            for meant in ANSWERS:
                for chance, after in _true_answers(act, meant, net):
                    asked = last if act.kind == "soothe" else ACTS.index(act)
                    for n, w in enumerate(joint(act, meant)[hurried]):
                        if w * chance:
                            total += p * w * chance * value(after, asked, n, turn + 1)
        return total

    return (1 - rules.HURRIED) * value((0, 0), None, 0, 0) + rules.HURRIED * value((0, 0), None, 1, 0)


def _true_answers(act: Act, meant: str, net: Net) -> list[tuple[float, Net]]:
    """(chance, nets after) of an answer, if the sea and quiet are what is wanted."""
    if act.kind not in ("ask place", "ask pace") or meant == "grumble":
        return [(1.0, net)]
    k, heard = ACTS.index(act), ANSWERS.index(meant)
    if heard // 2 != k:
        return []
    step = 1 if heard % 2 == 0 else -1
    chance = rules.RELIABILITY if step > 0 else 1 - rules.RELIABILITY
    return [(chance, (net[0] + step, net[1]) if k == 0 else (net[0], net[1] + step))]


def guess_value() -> float:
    """Expected return of an offer before any question: each of place and pace is right half of the time."""
    return sum(p * x for p, x in zip((0.25, 0.5, 0.25), PAYOFFS, strict=True))


def _at(lines: Sequence[Line], p: float) -> float:
    return max((1 - p) * a + p * b for a, b in lines)


def _upper(lines: Sequence[Line]) -> list[Line]:
    """The lines that are the highest somewhere between p = 0 and p = 1, from 0 on."""
    hull: list[Line] = []
    best = float("-inf")
    for a, b in sorted(set(lines), reverse=True):  # the value at 0 falls, so the value at 1 has to rise
        if b <= best:
            continue
        best = b
        while len(hull) >= 2 and _crossing(hull[-2], (a, b)) <= _crossing(hull[-2], hull[-1]):
            hull.pop()
        hull.append((a, b))
    return hull


def _crossing(one: Line, other: Line) -> float:
    """The p at which the second line, lower at 0 and higher at 1, overtakes the first."""
    gap, rise = one[0] - other[0], other[1] - one[1]
    return gap / (gap + rise)
