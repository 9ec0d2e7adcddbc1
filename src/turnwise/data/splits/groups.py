"""Twins are held out together, and each outcome in its share, if these are few.

Nothing here holds more than one byte a conversation in memory: what is grouped and sorted lies in buckets on
disk (`disk/buckets.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.disk.buckets import Buckets, spread
from turnwise.data.disk.columns import Column
from turnwise.data.splits.choices import known_of
from turnwise.data.splits.twins import Twins
from turnwise.run.files.hashing import hash_of

FEW = 5
"""different returns, at most, of which each gives its share to what is held out"""
COMMON = 10
"""copies of a conversation, at most, that stay together even if so few are held out"""
_GROUP = np.dtype(
    [
        ("unit", np.uint64),  # what the group's words decide, as a number from 0 to 2^64
        ("size", np.int64),
        ("first", np.int64),  # a conversation of it, which stands for all
        ("rank", np.int64),  # its stratum, the rarest first
        ("loose", bool),  # it is one copy of a conversation that has too many to stay together
    ]
)


def by_group(
    twins: Twins, n: int, more: Callable[[int, int], dict[str, np.ndarray]], fields: list[tuple[str, type]]
) -> Buckets:
    """Members of groups, all of a group in one bucket, with what `more(place, count)` says of neighbours."""
    dtype = np.dtype([("group", np.int64), ("at", np.int64), *fields])
    buckets, at = Buckets(dtype, n), 0
    for block in twins.group.blocks():
        records = np.empty(len(block), dtype)
        records["group"], records["at"] = block, np.arange(at, at + len(block))
        for name, values in more(at, len(block)).items():
            records[name] = values
        buckets.add(spread(block, n), records)
        at += len(block)
    return buckets


def held_groups(
    twins: Twins, dialogues: Sequence[Dialogue], fraction: float, strata: Strata | None
) -> np.ndarray:
    """[n] bool: who is held out, all members of a group or none."""
    n = len(twins.group)
    groups, sizes = _groups(twins, dialogues, fraction, strata)
    out, loose = np.zeros(n, bool), Column(np.int64)
    wanted = [fraction * n] if strata is None else quotas(sizes, fraction)
    taken, full = [0] * len(wanted), [False] * len(wanted)
    for found in groups:
        found = found[np.argsort(found["unit"], kind="stable")]
        if strata is None:
            unit = found["unit"].astype(np.float64) / 2.0**64
            chosen = found[(unit < fraction) & (found["size"] * 2 <= n)]
        else:
            kept = np.zeros(len(found), bool)
            members = zip(found["size"].tolist(), found["rank"].tolist(), strict=True)
            for i, (size, rank) in enumerate(members):
                if full[rank]:
                    continue
                # Closer to what is wanted with it than without it.
                if taken[rank] + size / 2 <= wanted[rank] and 2 * size <= n:
                    kept[i], taken[rank] = True, taken[rank] + size
                full[rank] = taken[rank] >= wanted[rank]
            chosen = found[kept]
        out[chosen["first"][~chosen["loose"]]] = True
        loose.extend(chosen["first"][chosen["loose"]])
        if strata is not None and all(full):
            break
    # The first member of a group stands before the others, and for it.
    at = 0
    for block in twins.group.blocks():
        out[at : at + len(block)] = out[block]
        at += len(block)
    for block in loose.blocks():
        out[block] = True
    return out


def _groups(
    twins: Twins, dialogues: Sequence[Dialogue], fraction: float, strata: Strata | None
) -> tuple[Buckets, np.ndarray]:
    """Groups in the order of their units, a bucket after the other; and how many conversations a stratum has.

    Twins together; but the copies of what has more copies than are held out in all go one by one, by id.
    Where a handful of short conversations comes again and again, a copy on the other side is no leak: it is
    how often they occur. A group that holds several classes counts in the rarest.
    """
    n = len(twins.group)
    ranks = None if strata is None else Column.joined(strata.ranks(dialogues), np.int64)

    def more(at: int, count: int) -> dict[str, np.ndarray]:
        rank = np.zeros(count, np.int64) if ranks is None else ranks.read(at, at + count)
        return {"key": twins.keys.read(at, at + count), "rank": rank}

    groups = Buckets(_GROUP, n)
    sizes = np.zeros(1 if strata is None else len(strata.classes), np.int64)
    seen = Counter[str]()
    for members in by_group(twins, n, more, [("key", np.uint64), ("rank", np.int64)]):
        if not len(members):
            continue
        first, group, size = np.unique(members["group"], return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        found = np.empty(len(first), _GROUP)
        found["first"], found["size"], found["loose"] = first, size, False
        found["unit"], found["rank"] = np.iinfo(np.uint64).max, len(sizes)
        np.minimum.at(found["unit"], group, members["key"])
        np.minimum.at(found["rank"], group, members["rank"])
        many = size > max(COMMON, fraction * n)
        alone = members[many[group]]
        copies = np.empty(len(alone), _GROUP)
        copies["first"], copies["size"], copies["loose"] = alone["at"], 1, True
        copies["rank"] = alone["rank"]
        for i, (key, at) in enumerate(zip(alone["key"].tolist(), alone["at"].tolist(), strict=True)):
            # Without ids, or with equal ones, the number of the copy tells it apart from the others.
            name = f"{key} {dialogues[at].id}"
            copies["unit"][i] = hash_of(f"{name} {seen[name]}".encode(errors="surrogatepass"))
            seen[name] += 1
        found = np.concatenate([found[~many], copies])
        sizes += np.bincount(found["rank"], weights=found["size"], minlength=len(sizes)).astype(np.int64)
        groups.add(found["unit"], found)
    return groups, sizes


# --- outcomes in their share --------------------------------------------------------------------------


@dataclass(frozen=True)
class Strata:
    """Classes of returns, of which each gives its share to what is held out.

    The classes are the returns themselves; or, if more than half of many returns are one, that one, what is
    below it and what is above it.
    """

    classes: tuple[float, ...]
    """the rarest first"""
    usual: float | None = None
    """the return of more than half of all, if returns are many"""

    @classmethod
    def of(cls, dialogues: Sequence[Dialogue]) -> Strata | None:
        """None if returns are many, or all one."""
        counts = Counter[float]()
        for block in _rounded(dialogues):
            counts.update(block)
            if len(counts) > FEW:
                break
        else:
            return cls(_rarest_first(counts)) if len(counts) > 1 else None
        usual = _majority(dialogues)
        if usual is None:
            return None
        signs = Counter[float]()
        for block in _rounded(dialogues):
            signs.update(np.sign(np.array(block) - usual).tolist())
        return cls(_rarest_first(signs), usual)

    def ranks(self, dialogues: Sequence[Dialogue]) -> Iterator[np.ndarray]:
        """The place of each conversation's class among all classes, some at a time."""
        rank = {c: i for i, c in enumerate(self.classes)}
        for block in _rounded(dialogues):
            kinds = block if self.usual is None else np.sign(np.array(block) - self.usual).tolist()
            yield np.array([rank[kind] for kind in kinds], np.int64)


def _rarest_first(counts: Counter[float]) -> tuple[float, ...]:
    return tuple(sorted(counts, key=lambda c: (counts[c], c)))


def _rounded(dialogues: Sequence[Dialogue]) -> Iterator[list[float]]:
    """Returns without what rounding left of them."""
    for known in known_of(dialogues):
        yield [round(r, 9) for r in known.returns.tolist()]


def _majority(dialogues: Sequence[Dialogue]) -> float | None:
    """The return that more than half of the conversations have, if there is one.

    Boyer and Moore 1981: whoever outvotes all others is the one that is left when different votes cancel.
    Here the votes are those of blocks.
    """
    leader, lead = 0.0, 0
    for block in _rounded(dialogues):
        for value, votes in Counter(block).items():
            if value == leader:
                lead += votes
            elif votes > lead:
                leader, lead = value, votes - lead
            else:
                lead -= votes
    often = sum(block.count(leader) for block in _rounded(dialogues))
    return leader if 2 * often > len(dialogues) else None


def quotas(sizes: np.ndarray, fraction: float) -> list[int]:
    """How many conversations of each class are held out: whole numbers that sum to the share of all.

    The largest remainders are rounded up (Hamilton's method), of equal ones the rarer class's.
    """
    exact = sizes * fraction
    found = np.floor(exact + 1e-9).astype(int)
    left = int(np.floor(sizes.sum() * fraction + 0.5)) - int(found.sum())
    best = sorted(range(len(sizes)), key=lambda i: (-round(float(exact[i] - found[i]), 9), i))
    for i in best[: max(0, left)]:
        found[i] += 1
    return found.tolist()
