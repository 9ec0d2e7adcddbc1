"""What a policy that writes would mean at every decision of logged conversations, counted in its replies.

Nobody can add up the probabilities of all sentences that mean an act. So the policy replies, and a codebook
reads what it said. p(act | history) is then the share of n replies: right on average, and so is a product of
such shares over the turns of a conversation, since each history has replies of its own. Conversations that
came to the very same history share its replies, the more of them the more conversations they are; what chance
did there is common to all of these, and shows in no resample of conversations. `without` says it: the
same shares without each of G parts of the replies, for a jackknife (delete-a-group; Kott 2001).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.slots import normalised
from turnwise.data.acts.talks import Codes
from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import TokenRows
from turnwise.rollout.acts.agent import STRANGE
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.logged import Chances, grown, read_whole
from turnwise.rollout.agent import Agent
from turnwise.rollout.engines.protocol import LaneModel
from turnwise.rollout.engines.sampler import Sampler

PARTS = 8
"""G, parts of the replies to one history, each of which is left out once"""
ALIKE = 64
"""conversations with one history in common, at most, for which replies are drawn anew"""
LANES = 256
"""replies at a time"""
STRANGER = "(like nothing that was logged)"
"""name of an act behind all others: of replies that the codebook can make nothing of"""


@dataclass(frozen=True)
class Meant:
    """Shares of replies, at the decisions of B talks."""

    chances: Chances
    """of K + 1 acts: behind those of the codebook it is `STRANGER`"""
    without: tuple[np.ndarray, ...]
    """[B, A, K + 1] each, G of them: the shares without one part of the replies"""
    replies: int
    """that were drawn in all"""


class History(NamedTuple):
    """What is read before a turn, and where it was logged."""

    ids: list[int]
    turns: list[int]
    """numbers of all turns that have it before them"""

    def replies(self, samples: int) -> int:
        """How many are drawn, if it is `samples` for a turn."""
        return samples * min(len(self.turns), ALIKE)


def meant(
    agent: Agent,
    codes: Codes,
    dialogues: Sequence[Dialogue],
    histories: Sequence[History],
    *,
    seed: int,
    samples: int,
    progress: Callable[[int], None] | None = None,
) -> Meant:
    """`samples` replies, 2 or more, at every turn; `histories` are what stands before these (`histories_of`).

    A reply that the codebook can make nothing of (`STRANGE`) is an act of its own, unless these conversations
    hold the very sentence: what resembles it least would else be counted as covered. `progress` is called
    with the number of replies so far.
    """
    prefixes = [tuple(grown(x)) for x in read_whole(codes, dialogues)]
    before = [d.messages[:k] for d in dialogues for k, m in enumerate(d.messages) if m.role == d.agent_role]
    logged = {_plain(m.content) for d in dialogues for m in d.turns}
    K, groups = len(codes.acts), min(PARTS, samples)
    counts = np.zeros((len(before), groups, K + 1), np.int64)
    drawn = 0
    model = agent.lane_model(LANES, agent.chat.stop)
    for some in _chunks(histories, samples):
        said = _said(model, [(h.ids, n, first) for h, n, first in some], seed)
        texts = [[agent.chat.text(ids) for ids in own] for own in said]
        acts = _read(codes, [before[h.turns[0]] for h, *_ in some], texts, logged)
        for (h, _, first), own in zip(some, acts, strict=True):
            part = (first + np.arange(len(own))) % groups
            np.add.at(counts[h.turns[0]], (part, own), 1)
            drawn += len(own)
        if progress is not None:
            progress(drawn)
    for h in histories:
        counts[h.turns[1:]] = counts[h.turns[0]]
    whole, total = counts.sum(1), counts.sum((1, 2))
    mask = _mask(prefixes)
    left = [whole - counts[:, g] for g in range(groups)]
    return Meant(
        Chances(_padded(whole / total[:, None], mask), mask, tuple(prefixes)),
        tuple(_padded(x / x.sum(1, keepdims=True), mask) for x in left),
        drawn,
    )


def histories_of(rows: TokenRows) -> list[History]:
    """Those of all turns of conversations, as the agent's model reads these; each once, the shortest first:
    neighbours are read side by side."""
    found: dict[bytes, History] = {}
    turn, inside = 0, False
    for row in rows:
        for at in row.decisions[row.decisions >= row.learn_from].tolist():
            if not inside:
                ids = row.ids[: at + 1]
                key = hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
                found.setdefault(key, History(ids.tolist(), [])).turns.append(turn)
                turn += 1
            inside = not row.turn_end[at + 1]
    return sorted(found.values(), key=lambda h: len(h.ids))


def _chunks(histories: Sequence[History], samples: int) -> Iterator[list[tuple[History, int, int]]]:
    """(history, replies, how many of its replies came before), `LANES` replies at a time."""
    chunk, room = [], LANES
    for h in histories:
        first, total = 0, h.replies(samples)
        while first < total:
            n = min(total - first, room)
            chunk.append((h, n, first))
            first, room = first + n, room - n
            if not room:
                yield chunk
                chunk, room = [], LANES
    if chunk:
        yield chunk


def _said(
    model: LaneModel, asked: Sequence[tuple[list[int], int, int]], seed: int
) -> list[list[tuple[int, ...]]]:
    """Ids of `n` replies after each of the ids; those to one history read it once, and go on as copies."""
    heads = np.cumsum([0, *(n for _, n, _ in asked)]).tolist()
    places = list(zip(asked, heads, strict=False))
    for (ids, n, first), head in places:
        name = int.from_bytes(hashlib.blake2b(np.array(ids).tobytes(), digest_size=8).digest(), "little")
        for j in range(n):
            model.reset(head + j, _seed(seed, name, first + j))
    together = [(head, ids, n) for (ids, n, _), head in places if n > 1 and len(ids) > 1]
    copies = set[int]()
    if isinstance(model, Sampler) and together:
        model.read([head for head, *_ in together], [ids[:-1] for _, ids, _ in together])
        for head, _, n in together:
            model.copy_lane(head, range(head, head + n))
            copies.update(range(head, head + n))
    for (ids, n, _), head in places:
        for lane in range(head, head + n):
            model.submit(lane, ids[-1:] if lane in copies else ids)
    said: list[tuple[int, ...]] = [()] * heads[-1]
    waiting = heads[-1]
    while waiting:
        for u in model.collect():
            said[u.lane] = u.ids
            waiting -= 1
    return [said[a:b] for a, b in pairwise(heads)]


def _seed(seed: int, history: int, reply: int) -> int:
    """Of one reply: it depends on nothing that is spoken beside it."""
    return int(np.random.SeedSequence((seed, history, reply)).generate_state(1, np.uint64)[0])


def _read(
    codes: Codes, before: Sequence[tuple], texts: Sequence[Sequence[str]], logged: set[str]
) -> list[np.ndarray]:
    """The acts of replies, each text read once after each talk."""
    different = [list(dict.fromkeys(own)) for own in texts]
    heard = codes.agent.read(
        [Utterance(text, (None,), talk) for own, talk in zip(different, before, strict=True) for text in own]
    )
    found, at = [], 0
    for own, some in zip(texts, different, strict=True):
        known = {}
        for i, text in enumerate(some, at):
            strange = heard.distances[i] >= STRANGE and _plain(text) not in logged
            known[text] = len(codes.acts) if strange else int(heard.acts[i])
        found.append(np.array([known[text] for text in own], np.int64))
        at += len(some)
    return found


def _plain(text: str) -> str:
    return normalised(text) or text.strip()


def _mask(prefixes: Sequence[Sequence[Prefix]]) -> np.ndarray:
    sizes = np.array([len(x) for x in prefixes])
    return np.arange(sizes.max()) < sizes[:, None]


def _padded(flat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[M, K] of all turns as [B, A, K]."""
    found = np.zeros((*mask.shape, flat.shape[1]))
    found[mask] = flat
    return found
