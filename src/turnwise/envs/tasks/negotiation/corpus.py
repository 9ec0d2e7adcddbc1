"""The corpus of Deal or No Deal (Lewis et al. 2017, arXiv:1706.05125): negotiations between people.

Reads its files, makes variants of its negotiations, and writes them in the log format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from turnwise.envs.tasks.negotiation.game import SELECTION, Read, Turn, Who, noted, system_message
from turnwise.envs.tasks.negotiation.scenarios import ITEMS, Scenario, Triple, points, triple


@dataclass(frozen=True)
class Recording:
    """One row of the corpus: a negotiation as one of its two sides knew it.

    `turns` ends with `SELECTION` by the side that closed the talk, unless the conversation was disconnected:
    then nobody knows who would have closed it. `selection` is what this side wrote down as its own share
    afterwards; None if it wrote that there was no agreement. `agreed`: both sides wrote down the same
    division. Only then are there points (0 to 10). `row` is the line in data.txt, from 1.
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
_SPEAKER: dict[str, Who] = {"YOU": "me", "THEM": "them"}


def read_negotiations(folder: Path) -> list[Recording]:
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


def _read_row(line: str, split: str, number: int) -> Recording:
    match = _ROW.fullmatch(line.strip())
    if match is None:
        raise ValueError("expected 'count value' x 3, turns, <selection>, reward=, 'count value' x 3")
    mine, theirs = ([int(n) for n in match[side].split()] for side in ("mine", "theirs"))
    counts, values, partner_values = triple(mine[::2]), triple(mine[1::2]), triple(theirs[1::2])
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
    selection = triple([int(n) for n in taken]) if taken else None
    if selection is not None and any(k > c for k, c in zip(selection, counts, strict=True)):
        raise ValueError(f"the selection {selection} takes more than the counts {counts}")
    agreed = match["flag"] == "agree" and selection is not None and match["reward"].isdigit()
    worth = points(values, selection) if agreed and selection else 0
    if agreed and worth != int(match["reward"]):
        raise ValueError(f"reward={match['reward']}, but the selection is worth {worth}")
    return Recording(
        counts, values, partner_values, tuple(turns), selection, worth, agreed, disconnected, split, number
    )


_NAMED = re.compile(r"\b(?:(books?)|(hats?)|((?:basket)?balls?))\b")


def renamed(n: Recording, order: Triple) -> Recording:
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
    return triple([numbers[order.index(i)] for i in range(3)])


def revalued(n: Recording, values: Triple) -> Recording:
    """The same talk and the same division for a side with other private values. Points are recomputed.

    Nobody but this side ever saw its values. What the partner said, and what was agreed on, depends on them
    through this side's words only. So (history, words, answer, points) is a true sample of the game for any
    values. It is off-policy, since another side might have said other things.
    """
    worth = points(values, n.selection) if n.agreed and n.selection else 0
    return replace(n, values=values, points=worth)


def values_by_counts(rows: Iterable[Recording]) -> dict[Triple, list[Triple]]:
    """The private values that sides had, by what lay on the table, sorted."""
    found: dict[Triple, set[Triple]] = {}
    for n in rows:
        found.setdefault(n.counts, set()).update((n.values, n.partner_values))
    return {counts: sorted(values) for counts, values in found.items()}


def on_offer(n: Recording, read: Read) -> list[Triple | None]:
    """For each turn, what this side would take if it closed the talk there."""
    return [read(n.counts, [*n.turns[: i + 1], ("me", SELECTION)]) for i in range(len(n.turns))]


def to_log(n: Recording, version: str = "", shares: Sequence[Triple | None] = ()) -> dict[str, Any] | None:
    """The row in the log format, or None if this side never acts. `version` marks variants of a row.

    With `shares` (`on_offer`) each message of the partner is followed by a tool's message, the note on it.

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


def scenarios_of(rows: Iterable[Recording], split: str) -> list[Scenario]:
    """The scenarios of a split, sorted: each once from either side, or once if both sides value alike."""
    found = {Scenario(n.counts, n.values, n.partner_values) for n in rows if n.split == split}
    both = found | {s.swapped() for s in found}
    return sorted(both, key=lambda s: (s.counts, s.values_a, s.values_b))
