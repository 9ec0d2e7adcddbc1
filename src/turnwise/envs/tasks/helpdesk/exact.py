"""The value of HelpDesk: for an agent that plays it perfectly, and for the whimsical desk of its logs.

Backward induction over a sufficient statistic. Given fault j, an answer about part k is "broken" with
probability r if k = j and 1 - r otherwise, so the posterior after any conversation is

    P(fault = j | answers) proportional to (r / (1 - r))^net[j],   net[j] = #broken - #fine answers on j.

The pair (net, turn) is therefore enough to act on. As parts differ in name only, so is net up to order and up
to a common shift: that makes the table small. Wordings carry no information and drop out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.logs import behavior_probabilities
from turnwise.envs.tasks.helpdesk.rules import ACTS, HORIZON, PARTS, RELIABILITY, TEST_COST, Act
from turnwise.envs.tasks.helpdesk.words import read_answer

Net = tuple[int, ...]
Policy = Callable[[Net, int | None, int], Sequence[float]]  # (net, part tested last, turn) -> P of ACTS
_START: Net = (0,) * len(PARTS)
_TESTS = len(PARTS)  # ACTS holds the tests first, then the fixes


@dataclass(frozen=True)
class Game:
    """The rules with their numbers, which may be others than the task's.

    `discount` is per agent turn; the first turn's reward counts whole. ValueError for impossible numbers.
    """

    discount: float = 1.0
    horizon: int = HORIZON
    reliability: float = RELIABILITY
    test_cost: float = TEST_COST

    def __post_init__(self) -> None:
        if not 0.5 <= self.reliability < 1:
            raise ValueError(f"reliability is {self.reliability}; expected at least 0.5 and below 1")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount is {self.discount}; expected a number from 0 to 1")
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}; expected at least 1 turn")

    def posterior(self, net: Sequence[int]) -> list[float]:
        """P(fault = j | answers) for each part j. The largest exponent is taken out: none overflows."""
        odds = self.reliability / (1 - self.reliability)
        weights = [odds ** (n - max(net)) for n in net]
        return [w / math.fsum(weights) for w in weights]

    def answers(self, net: Net, part: int) -> list[tuple[float, Net]]:
        """(probability, net after it) of the answers "broken" and "fine" to a test of the part."""
        p, r = self.posterior(net)[part], self.reliability
        broken = p * r + (1 - p) * (1 - r)
        up, down = list(net), list(net)
        up[part] += 1
        down[part] -= 1
        return [(broken, tuple(up)), (1 - broken, tuple(down))]


@dataclass(frozen=True)
class OptimalDesk:
    """The agent that maximises the expected sum of `discount`^turn times reward. Ties go to the first act.

    The numbers default to the task's. A turn that the customer cannot read costs as much as a test and brings
    no news, so it is never better than a test and is left out.
    """

    discount: float = 1.0
    horizon: int = HORIZON
    reliability: float = RELIABILITY
    test_cost: float = TEST_COST
    _game: Game = field(init=False, repr=False, compare=False)
    _values: dict[tuple[int, Net], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        game = Game(self.discount, self.horizon, self.reliability, self.test_cost)
        object.__setattr__(self, "_game", game)

    def value(self, net: Sequence[int] = _START, turn: int = 0) -> float:
        """Expected return from agent turn `turn` (from 0) on: V = max over acts, 0 at the horizon."""
        if turn >= self.horizon:
            return 0.0
        key = (turn, tuple(sorted(n - min(net) for n in net)))  # up to order and a common shift
        if key not in self._values:
            self._values[key] = max(self.action_values(key[1], turn))
        return self._values[key]

    def action_values(self, net: Sequence[int], turn: int) -> list[float]:
        """Q of each of `ACTS`.

        Q(test k) = -cost + discount * sum_answer P(answer) V(net', turn + 1);  Q(fix k) = 2 P(k) - 1.
        """
        tests = [
            -self.test_cost
            + self.discount
            * sum(p * self.value(after, turn + 1) for p, after in self._game.answers(tuple(net), k))
            for k in range(_TESTS)
        ]
        return tests + [2 * p - 1 for p in self._game.posterior(net)]

    def act(self, history: Sequence[Message]) -> Act:
        """The best act after a conversation so far (all its messages, text and nothing else)."""
        turn = sum(m.role == "assistant" for m in history)
        values = self.action_values(net_answers(history), turn)
        return ACTS[max(range(len(ACTS)), key=values.__getitem__)]


def net_answers(history: Sequence[Message]) -> Net:
    """For each part, the number of answers "broken" less the number of answers "fine" in a conversation."""
    net = list(_START)
    for message in history:
        if message.role == "user" and (heard := read_answer(message.content)) is not None:
            net[heard[0]] += 1 if heard[1] else -1
    return tuple(net)


def optimal_value(
    discount: float = 1.0,
    horizon: int = HORIZON,
    reliability: float = RELIABILITY,
    test_cost: float = TEST_COST,
) -> float:
    """Expected return of the best agent from the first turn, discounted once per agent turn."""
    return OptimalDesk(discount, horizon, reliability, test_cost).value()


def behavior_value(
    discount: float = 1.0,
    horizon: int = HORIZON,
    reliability: float = RELIABILITY,
    test_cost: float = TEST_COST,
) -> float:
    """Expected return of the whimsical desk, discounted once per agent turn."""
    return PolicyValues(Game(discount, horizon, reliability, test_cost), behavior_acts).value()


def policy_value(policy: Policy) -> float:
    """Expected return of a policy that treats the parts alike, undiscounted."""
    return PolicyValues(Game(), policy).value()


def filtered_value(by_turn: int = HORIZON) -> float:
    """Expected return of a perfect clone of those logs whose right fix came within `by_turn` agent turns.

    The limit of infinitely many logs and a clone that reads the whole history h, at discount 1:

        pi(a | h) proportional to behavior(a | h) * P(right fix by then | h, a).

    `by_turn` 8 keeps every success; 2 keeps the best tenth by return (10.7% of the logs).
    """
    if not 1 <= by_turn <= HORIZON:
        raise ValueError(f"by_turn is {by_turn}; expected 1 to {HORIZON}")
    chance = PolicyValues(Game(horizon=by_turn, test_cost=0.0), behavior_acts, wrong=0.0)

    def filtered(net: Net, last: int | None, turn: int) -> list[float]:
        success = chance.action_values(net, last, turn)
        joint = [b * s for b, s in zip(behavior_acts(net, last, turn), success, strict=True)]
        return [j / math.fsum(joint) for j in joint]

    return PolicyValues(Game(), filtered).value()


def improved_value(discount: float = 1.0) -> float:
    """Expected return of one greedy step on the whimsical desk's own exact Q, ties to the first act.

    This is as far as a perfect Monte-Carlo critic leads. To get further takes backups through better
    continuations.
    """
    game = Game(discount)
    whims = PolicyValues(game, behavior_acts)

    def greedy(net: Net, last: int | None, turn: int) -> list[float]:
        values = whims.action_values(net, last, turn)
        best = max(range(len(ACTS)), key=values.__getitem__)
        return [float(i == best) for i in range(len(ACTS))]

    return PolicyValues(game, greedy).value()


def behavior_acts(net: Net, last: int | None, turn: int) -> list[float]:
    """The whimsical desk as a `Policy`. It does not look at the clock."""
    return behavior_probabilities(net, last)


class PolicyValues:
    """Exact values of a policy that looks at (net, part tested last, turn) and treats the parts alike.

    The policy is asked at one naming of the parts only: the part tested last is 0, the others are in order of
    their net, and the least net is 0.

    `wrong` is the reward of a wrong fix. If it is 0, tests cost nothing and the discount is 1, the value is
    P(right fix).
    """

    def __init__(self, game: Game, policy: Policy, wrong: float = -1.0) -> None:
        self._game = game
        self._policy = policy
        self._wrong = wrong
        self._values: dict[tuple[Net, int | None, int], float] = {}

    def value(self, net: Net = _START, last: int | None = None, turn: int = 0) -> float:
        """Expected return from `turn` on."""
        if turn >= self._game.horizon:
            return 0.0
        # Parts differ in name only: the part tested last comes first, the others in order.
        if last is not None:
            net, last = (net[last], *sorted(net[:last] + net[last + 1 :])), 0
        key = (tuple(n - min(net) for n in net), last, turn)
        if key not in self._values:
            net = key[0]
            values = self.action_values(net, last, turn)
            self._values[key] = sum(p * q for p, q in zip(self._policy(net, last, turn), values, strict=True))
        return self._values[key]

    def action_values(self, net: Net, last: int | None, turn: int) -> list[float]:
        """Q of each of `ACTS` when the policy goes on from there."""
        game = self._game
        tests = [
            -game.test_cost
            + game.discount * sum(p * self.value(a, k, turn + 1) for p, a in game.answers(net, k))
            for k in range(_TESTS)
        ]
        return tests + [p + (1 - p) * self._wrong for p in game.posterior(net)]
