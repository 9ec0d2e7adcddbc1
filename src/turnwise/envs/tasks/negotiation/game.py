"""Deal or No Deal: two sides with private values divide books, hats and balls by talking.

The corpus of Lewis et al. 2017 (arXiv:1706.05125) as values, its conversations in the log format, what a
division is worth, and the table at which two speakers play.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from turnwise.envs.dialogue import Message

ITEMS = ("book", "hat", "ball")
SELECTION = "<selection>"  # said in place of an utterance: the talk is over, the deal is closed
MAX_UTTERANCES = 20  # ten a side, as in the reference's games; a talk that long ends without a deal

Triple = tuple[int, int, int]  # one number an item, in the order of ITEMS
Speaker = Literal["me", "them"]
Turn = tuple[Speaker, str]
Side = Literal["a", "b"]


@dataclass(frozen=True)
class Negotiation:
    """One row of the corpus: a negotiation as one of its two sides knew it.

    `turns` ends with `SELECTION` by the side who closed the talk, except in a conversation that was
    disconnected, where nobody knows who would have. `selection` is what this side wrote down as its own
    share afterwards; None if it wrote that there was no agreement. `agreed`: both sides wrote down the
    same division, and only then are there points (0 to 10). `row` is the line in data.txt, from 1.
    """

    counts: Triple
    values: Triple
    partner_values: Triple
    turns: tuple[Turn, ...]
    selection: Triple | None
    points: int
    agreed: bool
    disconnected: bool
    split: str
    row: int


_ROW = re.compile(
    r"(?P<mine>(?:\d+ ){6})(?P<talk>(?:(?:YOU|THEM): (?:(?!<eos>|<selection>).)*<eos> )*)"
    r"(?P<closer>YOU|THEM): <selection> "
    r"(?P<output>item0=\d+ item1=\d+ item2=\d+|no agreement|disconnect) <eos> "
    r"reward=(?P<reward>\d+|no agreement|disconnect) (?P<flag>agree|disagree) (?P<theirs>\d+(?: \d+){5})"
)
_SPEAKER: dict[str, Speaker] = {"YOU": "me", "THEM": "them"}


def read_negotiations(folder: Path) -> list[Negotiation]:
    """Every row of `data.txt` in order, each with its split from `split_of_data_rows.txt`.

    ValueError names file and line of the first row that is not in the corpus's form or contradicts itself.
    """
    path, splits_path = folder / "data.txt", folder / "split_of_data_rows.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    splits = splits_path.read_text(encoding="utf-8").split()
    if len(lines) != len(splits):
        raise ValueError(f"{splits_path}: {len(splits)} rows; expected {len(lines)}, as in {path.name}")
    rows = []
    for number, (line, split) in enumerate(zip(lines, splits, strict=True), start=1):
        if split not in ("train", "val", "test"):
            raise ValueError(f"{splits_path}, line {number}: {split!r}; expected train, val or test")
        try:
            rows.append(_read_row(line, split, number))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return rows


def _read_row(line: str, split: str, number: int) -> Negotiation:
    match = _ROW.fullmatch(line.strip())
    if match is None:
        raise ValueError("expected 'count value' x 3, turns, <selection>, reward=, 'count value' x 3")
    mine, theirs = ([int(n) for n in match[side].split()] for side in ("mine", "theirs"))
    counts, values, partner_values = _triple(mine[::2]), _triple(mine[1::2]), _triple(theirs[1::2])
    if theirs[::2] != mine[::2]:
        raise ValueError(f"this side sees counts {mine[::2]}, the partner {theirs[::2]}; expected the same")
    turns: list[Turn] = []
    for utterance in match["talk"].split("<eos>")[:-1]:
        speaker, text = utterance.split(":", 1)
        turns.append((_SPEAKER[speaker.strip()], text.strip()))
    disconnected = "disconnect" in (match["output"], match["reward"])
    if not disconnected:
        turns.append((_SPEAKER[match["closer"]], SELECTION))
    taken = re.findall(r"=(\d+)", match["output"])
    selection = _triple([int(n) for n in taken]) if taken else None
    if selection is not None and any(k > c for k, c in zip(selection, counts, strict=True)):
        raise ValueError(f"the selection {selection} takes more than the counts {counts}")
    agreed = match["flag"] == "agree" and selection is not None and match["reward"].isdigit()
    worth = points(values, selection) if agreed and selection else 0
    if agreed and worth != int(match["reward"]):
        raise ValueError(f"reward={match['reward']}, but the selection is worth {worth}")
    return Negotiation(
        counts, values, partner_values, tuple(turns), selection, worth, agreed, disconnected, split, number
    )


def _triple(numbers: Sequence[int]) -> Triple:
    first, second, third = numbers
    return first, second, third


def system_message(counts: Triple, values: Triple) -> str:
    """What a side is told: how many of each item there are and what one is worth to it."""
    return " ".join(f"{item} {c} x {v}" for item, c, v in zip(ITEMS, counts, values, strict=True))


_NAMED = re.compile(r"\b(?:(books?)|(hats?)|((?:basket)?balls?))\b")


def renamed(n: Negotiation, order: Triple) -> Negotiation:
    """The same negotiation about other things: item i is called `ITEMS[order[i]]`, in words and in numbers.

    The three items differ in name only, so that every negotiation between people is six.
    """
    if sorted(order) != [0, 1, 2]:
        raise ValueError(f"order is {order}; expected each of 0, 1 and 2 once")

    def word(match: re.Match[str]) -> str:
        return ITEMS[order[(match.lastindex or 0) - 1]] + ("s" if match[0].endswith("s") else "")

    turns = tuple((who, text if text == SELECTION else _NAMED.sub(word, text)) for who, text in n.turns)
    return replace(
        n,
        counts=reordered(n.counts, order),
        values=reordered(n.values, order),
        partner_values=reordered(n.partner_values, order),
        selection=None if n.selection is None else reordered(n.selection, order),
        turns=turns,
    )


def reordered(numbers: Triple, order: Triple) -> Triple:
    """One number an item, after item i became `ITEMS[order[i]]`."""
    return _triple([numbers[order.index(i)] for i in range(3)])


def revalued(n: Negotiation, values: Triple) -> Negotiation:
    """The same talk and the same division, as worth to a side with other private values.

    Nobody but this side ever saw its values: what the partner said, and what was agreed on, depends on them
    through this side's words only. So (history, words, answer, points) is a true sample of the game for any
    values: off-policy, since another side might have said other things. Points are recomputed.
    """
    worth = points(values, n.selection) if n.agreed and n.selection else 0
    return replace(n, values=values, points=worth)


def values_by_counts(rows: Iterable[Negotiation]) -> dict[Triple, list[Triple]]:
    """The private values that sides had, by what lay on the table, sorted."""
    found: dict[Triple, set[Triple]] = {}
    for n in rows:
        found.setdefault(n.counts, set()).update((n.values, n.partner_values))
    return {counts: sorted(values) for counts, values in found.items()}


Read = Callable[[Triple, Sequence[Turn]], Triple | None]
"""what "me" takes, from counts and turns; None for no agreement"""


def note(counts: Triple, values: Triple, turns: Sequence[Turn], read: Read) -> str:
    """What a side could work out for itself: the points that closing the talk now would bring it."""
    share = read(counts, [*turns, ("me", SELECTION)])
    return noted(values, share)


def noted(values: Triple, share: Triple | None) -> str:
    """The note on a share."""
    return "nothing agreed" if share is None else f"worth {points(values, share)}"


def on_offer(n: Negotiation, read: Read) -> list[Triple | None]:
    """For each turn, what this side would take if it closed the talk there."""
    return [read(n.counts, [*n.turns[: i + 1], ("me", SELECTION)]) for i in range(len(n.turns))]


def to_log(n: Negotiation, version: str = "", shares: Sequence[Triple | None] = ()) -> dict[str, Any] | None:
    """The row in the log format, or None if this side never acts. `version` tells variants of a row apart.

    With `shares` (`on_offer`) what the partner says is followed by a tool's message, the note on it.

    This side is the agent, its partner the user. The points are the reward of the agent's last message,
    whoever closed the talk; a disconnected conversation is truncated. What only the partner or the
    outcome knows is metadata.
    """
    mine = [i for i, (speaker, _) in enumerate(n.turns) if speaker == "me"]
    if not mine:
        return None
    messages: list[dict[str, Any]] = [{"role": "system", "content": system_message(n.counts, n.values)}]
    for i, (speaker, text) in enumerate(n.turns):
        if speaker == "me":
            reward = float(n.points) if i == mine[-1] else 0.0
            messages.append({"role": "assistant", "content": text, "reward": reward})
        else:
            messages.append({"role": "user", "content": text})
            if shares and text != SELECTION:
                messages.append({"role": "tool", "content": noted(n.values, shares[i])})
    return {
        "id": f"deal-{n.row:05d}{version}",
        "messages": messages,
        "truncated" if n.disconnected else "terminated": True,
        "counts": list(n.counts),
        "values": list(n.values),
        "partner_values": list(n.partner_values),
        "agreed": n.agreed,
        "selection": None if n.selection is None else list(n.selection),
        "split": n.split,
    }


def divisions(counts: Triple) -> list[Triple]:
    """Every share that one side can have, the other having the rest; the first item varies slowest."""
    return [(i, j, k) for i, j, k in itertools.product(*(range(c + 1) for c in counts))]


def remainder(counts: Triple, share: Triple) -> Triple:
    """What is left for the other side."""
    return _triple([c - k for c, k in zip(counts, share, strict=True)])


def points(values: Triple, share: Triple) -> int:
    """Sum of the values of the items in a share."""
    return sum(v * k for v, k in zip(values, share, strict=True))


def pareto_optimal(counts: Triple, values_a: Triple, values_b: Triple, points_a: int, points_b: int) -> bool:
    """Whether no division of all the items gives both sides at least as much and one of them more."""
    for share in divisions(counts):
        a, b = points(values_a, share), points(values_b, remainder(counts, share))
        if a >= points_a and b >= points_b and (a, b) != (points_a, points_b):
            return False
    return True


@dataclass(frozen=True)
class Scenario:
    """Two sides at one table: what there is, and what it is worth to each."""

    counts: Triple
    values_a: Triple
    values_b: Triple

    def swapped(self) -> Scenario:
        """The same table with the sides exchanged."""
        return Scenario(self.counts, self.values_b, self.values_a)


def scenarios(rows: Iterable[Negotiation], split: str) -> list[Scenario]:
    """The scenarios of a split, sorted: each once as either side has it (once where both value alike)."""
    found = {Scenario(n.counts, n.values, n.partner_values) for n in rows if n.split == split}
    both = found | {s.swapped() for s in found}
    return sorted(both, key=lambda s: (s.counts, s.values_a, s.values_b))


@dataclass(frozen=True)
class Outcome:
    """How a negotiation ended, seen from one side.

    `share` is what this side takes, None without an agreement (then nobody has points). `pareto`: the
    outcome is an agreement and Pareto-optimal. `closed`: somebody closed the talk; False means that it
    reached the limit on utterances, which is a true end as well.
    """

    my_points: int
    partner_points: int
    agreed: bool
    pareto: bool
    closed: bool
    share: Triple | None


@dataclass
class _Game:
    scenario: Scenario
    first: Side
    said: list[tuple[Side, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # for whoever heard it, one an utterance; empty without
    share_a: Triple | None = None
    over: bool = False
    closed: bool = False


class NegotiationTable:
    """The rules for a batch of lanes, both sides' words given: who sees what, whose turn it is, how it ends.

    `read` takes counts and turns and answers what "me" takes, or None for no agreement. Whoever says
    `SELECTION` closes the talk; it is an utterance of its own, so words around it are not heard. After
    `max_utterances` without it the talk ends without an agreement (0 points each; a termination). With
    `notes` each side is told, after whatever the other said, what closing the talk there would bring it.
    """

    def __init__(self, read: Read, max_utterances: int = MAX_UTTERANCES, *, notes: bool = False) -> None:
        self._read = read
        self._max_utterances = max_utterances
        self._notes = notes
        self._games: dict[int, _Game] = {}

    def open(self, lane: int, scenario: Scenario, first: Side) -> None:
        """Begin anew in a lane; `first` has the first word."""
        self._games[lane] = _Game(scenario, first)

    def whose_turn(self, lane: int) -> Side | None:
        """The side that speaks next; sides alternate. None when the talk is over."""
        game = self._games[lane]
        if game.over:
            return None
        return game.first if len(game.said) % 2 == 0 else _other(game.first)

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
            hearer, s = _other(side), game.scenario
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


def _other(side: Side) -> Side:
    return "b" if side == "a" else "a"
