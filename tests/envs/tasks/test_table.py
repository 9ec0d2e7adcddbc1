"""One side of a table of two as a task: who speaks when, what is heard, how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.table import Against, Side, Speaker, other


@dataclass(frozen=True)
class Score:
    """What a side has at the end."""

    reward: float
    info: Mapping[str, Any] = field(default_factory=dict)


class Counting:
    """Side a says a word, then b says two utterances in a row; whoever says "stop" ends the game.

    A side is paid the number of utterances of the other one. The first word is drawn.
    """

    def __init__(self) -> None:
        self.said: dict[int, list[tuple[Side, str]]] = {}
        self.first: dict[int, int] = {}

    def open(self, lane: int, rng: np.random.Generator) -> None:
        self.said[lane], self.first[lane] = [], int(rng.integers(3))

    def whose_turn(self, lane: int) -> Side | None:
        said = self.said[lane]
        if said and said[-1][1] == "stop":
            return None
        order: tuple[Side, ...] = ("a", "b", "b")
        return order[(self.first[lane] + len(said)) % 3]

    def seen_by(self, lane: int, side: Side) -> tuple[Message, ...]:
        own = [Message("assistant" if who == side else "user", text) for who, text in self.said[lane]]
        return (Message("system", f"you are {side}"), *own)

    def say(self, lane: int, side: Side, text: str) -> bool:
        assert self.whose_turn(lane) == side
        self.said[lane].append((side, text))
        return text == "stop"

    def outcome(self, lane: int, side: Side) -> Score | None:
        if self.whose_turn(lane) is not None:
            return None
        return Score(float(sum(who == other(side) for who, _ in self.said[lane])))

    def hidden(self, lane: int, side: Side) -> Mapping[str, Any]:
        return {"first": self.first[lane]}


class Parrot:
    """Says how much it has heard; stops, or cannot go on, after so many messages."""

    def __init__(self, stop_at: int = 99, stuck_at: int = 99) -> None:
        self.stop_at, self.stuck_at = stop_at, stuck_at
        self.seeds: dict[int, int] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        self.seeds |= dict(zip(lanes, seeds, strict=True))

    def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
        ns = [len(messages) for messages in seen]
        return [None if n >= self.stuck_at else "stop" if n >= self.stop_at else f"heard {n}" for n in ns]


def begun(partner: Speaker, first: int, side: Side = "a") -> tuple[Against, tuple[Message, ...]]:
    """A task in lane 0 whose first word is the `first` of the order a, b, b."""
    task = Against(Counting(), partner, side)
    for seed in range(100):
        opening = task.reset([0], [seed])[0]
        if task.hidden(0)["first"] == first:
            return task, opening
    raise AssertionError("no seed begins there")


def test_the_partner_speaks_until_it_is_the_agents_turn() -> None:
    """The order a, b, b begins at its second place: b speaks twice, then a, then b twice again."""
    task, opening = begun(Parrot(), first=1)
    assert [(m.role, m.content) for m in opening] == [
        ("system", "you are a"),
        ("user", "heard 1"),
        ("user", "heard 2"),
    ]
    (response,) = task.step([0], ["hello"])
    assert [(m.role, m.content) for m in response.messages] == [("user", "heard 4"), ("user", "heard 5")]
    assert response.reward == 0 and not response.terminated and not response.truncated


def test_either_side_may_end_it_and_the_agents_side_is_paid() -> None:
    """The agent as a stops after two words of b: 2. As b, against an a that stops with its second word: b has
    heard two words of a at the end."""
    task, _ = begun(Parrot(), first=1)
    (response,) = task.step([0], ["stop"])
    assert response.terminated and response.reward == 2 and response.messages == ()
    task, opening = begun(Parrot(stop_at=4), first=0, side="b")
    assert [m.content for m in opening] == ["you are b", "heard 1"]
    (first,) = task.step([0], ["one"])
    assert first.messages == () and not first.terminated  # b's own second word comes next
    (second,) = task.step([0], ["two"])
    assert [m.content for m in second.messages] == ["stop"]
    assert second.terminated and second.reward == 2


def test_a_game_that_the_partner_ends_before_the_agent_speaks_is_over_at_the_agents_first_turn() -> None:
    """The partner stops at once. Whatever the agent says is not heard; it is paid the one word of b."""
    task, opening = begun(Parrot(stop_at=1), first=2)
    assert [m.content for m in opening] == ["you are a", "stop"]
    (response,) = task.step([0], ["hello"])
    assert response.terminated and response.reward == 1 and response.messages == ()


def test_a_partner_that_cannot_go_on_truncates_its_own_lane_only() -> None:
    task = Against(Counting(), Parrot(stuck_at=5))
    task.reset([0, 1], [0, 1])
    for lane, first in ((0, 0), (1, 1)):
        seed = next(s for s in range(100) if np.random.default_rng(s).integers(3) == first)
        task.reset([lane], [seed])
    short, long = task.step(
        [0, 1], ["x", "x"]
    )  # b sees 2, then 3 messages in lane 0, and 4, then 5 in lane 1
    assert not short.truncated and long.truncated and not long.terminated and long.reward == 0
    task.reset([1], [0])
    assert not task.step([1], ["x"])[0].truncated


def test_a_conversation_depends_on_its_seed_and_on_nothing_else() -> None:
    one, many = Parrot(), Parrot()
    Against(Counting(), one).reset([0], [5])
    Against(Counting(), many).reset([7, 0, 3], [6, 5, 4])
    assert one.seeds[0] == many.seeds[0] != many.seeds[7]
