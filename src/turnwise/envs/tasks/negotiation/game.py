"""Deal or No Deal (Lewis et al. 2017): the table at which two sides divide books, hats and balls by talking.

Each side has private values. Whoever says `<selection>` closes the talk, and its words so far decide who gets
what: a *reading* turns them into a division.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation.scenarios import (
    ITEMS,
    Draw,
    Scenario,
    Triple,
    draw_scenario,
    pareto_optimal,
    points,
    remainder,
    triple,
)
from turnwise.envs.tasks.table import Side, other

SELECTION = "<selection>"  # said in place of an utterance: the talk is over, the deal is closed
MAX_UTTERANCES = 20  # ten a side, as in the reference's games; a talk that long ends without a deal

Who = Literal["me", "them"]
Turn = tuple[Who, str]
"""an utterance as one side has it"""


def system_message(counts: Triple, values: Triple) -> str:
    """What a side knows at first: how many of each item there are and what one is worth to it."""
    return " ".join(f"{item} {c} x {v}" for item, c, v in zip(ITEMS, counts, values, strict=True))


_SYSTEM = re.compile(" ".join(rf"{item} (\d+) x (\d+)" for item in ITEMS))


def read_system_message(text: str) -> tuple[Triple, Triple]:
    """Counts and values, as `system_message` wrote them. ValueError for any other text."""
    match = _SYSTEM.fullmatch(text)
    if match is None:
        raise ValueError(
            f"expected counts and values, as in {system_message((1, 4, 1), (0, 2, 2))!r}; found {text!r}"
        )
    numbers = [int(n) for n in match.groups()]
    return triple(numbers[::2]), triple(numbers[1::2])


Read = Callable[[Triple, Sequence[Turn]], Triple | None]
"""what "me" takes, from counts and turns; None for no agreement"""


def note(counts: Triple, values: Triple, turns: Sequence[Turn], read: Read) -> str:
    """The points that closing the talk now would bring this side, in words. It could work them out itself."""
    share = read(counts, [*turns, ("me", SELECTION)])
    return noted(values, share)


def noted(values: Triple, share: Triple | None) -> str:
    """The note for a share."""
    return "nothing agreed" if share is None else f"worth {points(values, share)}"


@dataclass(frozen=True)
class Outcome:
    """How a negotiation ended, seen from one side.

    `share` is what this side takes, None without an agreement (then nobody has points). `pareto`: there is an
    agreement, and it is Pareto-optimal. `closed`: somebody closed the talk. If not, the talk reached the
    limit on utterances, which is a true end as well.
    """

    my_points: int
    partner_points: int
    agreed: bool
    pareto: bool
    closed: bool
    share: Triple | None

    @property
    def reward(self) -> float:
        """This side's points."""
        return float(self.my_points)

    @property
    def info(self) -> Mapping[str, Any]:
        """Points of both sides, whether they agreed (the success of a negotiation), and how well."""
        return {
            "success": self.agreed,
            "my_points": self.my_points,
            "partner_points": self.partner_points,
            "agreed": self.agreed,
            "pareto": self.pareto,
        }


@dataclass
class _Game:
    scenario: Scenario
    first: Side
    said: list[tuple[Side, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # one for each utterance, for the side that heard it
    share_a: Triple | None = None
    over: bool = False
    closed: bool = False


class NegotiationTable:
    """The rules of the game, as a `Table`.

    `read` takes counts and turns and answers what "me" takes, or None for no agreement. Whoever says
    `SELECTION` closes the talk; it is an utterance of its own, so words beside it are not heard. After
    `max_utterances` without it the talk ends without an agreement: 0 points for both, a termination. With
    `notes` each side reads, after whatever the other said, what closing the talk there would bring it. `draw`
    gives a new game its scenario; by default the published rules do.
    """

    def __init__(
        self,
        read: Read,
        max_utterances: int = MAX_UTTERANCES,
        *,
        notes: bool = False,
        draw: Draw = draw_scenario,
    ) -> None:
        self._read = read
        self._max_utterances = max_utterances
        self._notes = notes
        self._draw = draw
        self._games: dict[int, _Game] = {}

    def open(self, lane: int, rng: np.random.Generator) -> None:
        """Begin anew in a lane: a scenario is drawn, then who has the first word, a or b with even odds."""
        scenario = self._draw(rng)
        self.begin(lane, scenario, first="a" if rng.random() < 0.5 else "b")

    def begin(self, lane: int, scenario: Scenario, first: Side) -> None:
        """Begin anew in a lane with this scenario; `first` has the first word."""
        self._games[lane] = _Game(scenario, first)

    def whose_turn(self, lane: int) -> Side | None:
        """The side that speaks next; sides alternate. None when the talk is over."""
        game = self._games[lane]
        if game.over:
            return None
        return game.first if len(game.said) % 2 == 0 else other(game.first)

    def seen_by(self, lane: int, side: Side) -> tuple[Message, ...]:
        """The conversation as this side has it: its own values, itself the assistant, the other the user."""
        game = self._games[lane]
        values = game.scenario.values_a if side == "a" else game.scenario.values_b
        messages = [Message("system", system_message(game.scenario.counts, values))]
        for i, (who, text) in enumerate(game.said):
            messages.append(Message("assistant" if who == side else "user", text))
            if who != side and i < len(game.notes):
                messages.append(Message("tool", game.notes[i]))
        return tuple(messages)

    def say(self, lane: int, side: Side, text: str) -> bool:
        """The side speaks; True if that ended the talk. ValueError out of turn."""
        if self.whose_turn(lane) != side:
            raise ValueError(f"lane {lane}: not the turn of side {side!r}")
        game = self._games[lane]
        game.closed = SELECTION in text
        game.said.append((side, SELECTION if game.closed else text.strip()))
        game.over = game.closed or len(game.said) >= self._max_utterances
        if game.closed:
            game.share_a = self._read(game.scenario.counts, self._turns(game, "a"))
        elif self._notes:
            hearer, s = other(side), game.scenario
            values = s.values_a if hearer == "a" else s.values_b
            game.notes.append(note(s.counts, values, self._turns(game, hearer), self._read))
        return game.over

    def _turns(self, game: _Game, side: Side) -> list[Turn]:
        return [("me" if who == side else "them", words) for who, words in game.said]

    def outcome(self, lane: int, side: Side) -> Outcome | None:
        """How it ended for this side; None while the talk goes on."""
        game, s = self._games[lane], self._games[lane].scenario
        if not game.over:
            return None
        if game.share_a is None:
            return Outcome(0, 0, agreed=False, pareto=False, closed=game.closed, share=None)
        share_b = remainder(s.counts, game.share_a)
        a, b = points(s.values_a, game.share_a), points(s.values_b, share_b)
        pareto = pareto_optimal(s.counts, s.values_a, s.values_b, a, b)
        if side == "a":
            return Outcome(a, b, agreed=True, pareto=pareto, closed=True, share=game.share_a)
        return Outcome(b, a, agreed=True, pareto=pareto, closed=True, share=share_b)

    def hidden(self, lane: int, side: Side) -> Mapping[str, Any]:
        """What the items are worth to the other side, and the counts beside it."""
        s = self._games[lane].scenario
        values = s.values_b if side == "a" else s.values_a
        return {"partner_values": list(values), "counts": list(s.counts)}
