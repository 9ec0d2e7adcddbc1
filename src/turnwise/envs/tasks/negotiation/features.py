"""The features of the log-linear reading of negotiations: divisions compared with the offers that were made.

Features are strings hashed into `WIDTH` numbers. They know the counts and the words, never the private
values. Speakers are named only relative to each other, so that the features are the same for both sides.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from turnwise.envs.tasks.negotiation.claims import (
    HALF,
    ITEM_WORDS,
    LISTENER,
    REST,
    SPEAKER,
    Claim,
    read_claims,
    word_set,
)
from turnwise.envs.tasks.negotiation.game import SELECTION, Turn
from turnwise.envs.tasks.negotiation.scenarios import Triple, divisions, remainder

WIDTH = 1 << 17  # hashed features; with a quarter of it collisions cost half a point of agreement
DEPTH = 4  # utterances with claims that are looked at, from the last
_CUES = word_set("about also and how instead just only plus what")
_MORE = word_set("also another plus too well")
_REFUSING = word_set("no not nope nah sorry can't cant cannot won't wont don't dont doesn't doesnt isn't")
_ACCEPTING = word_set(
    "deal ok okay yes yeah yep sure fine agree agreed accept done works work sounds alright great good cool "
    "perfect thanks thank"
)

_Read = tuple[list[str], list[Claim]]  # an utterance's words and claims


class Talk(NamedTuple):
    """A dialogue from nobody's side: who speaks and who closes is given relative to the first speaker."""

    said: tuple[tuple[bool, str], ...]  # by the first speaker?, text
    closed_by_first: bool


def talk_of(turns: Sequence[Turn]) -> Talk:
    """The talk of these turns, the same for a row and its mirror. The last speaker closed it.

    ValueError without a turn.
    """
    if not turns:
        raise ValueError("a dialogue without a turn")
    first = turns[0][0]
    said = tuple((speaker == first, text) for speaker, text in turns if text != SELECTION)
    return Talk(said, turns[-1][0] == first)


class _Proposal(NamedTuple):
    """The claims of an utterance made into a whole division, in amounts to its speaker.

    `source` says for each item where its amount comes from: e(xplicit), u(nsaid receiver), n(egated),
    r(est), i(mplied: what is not mentioned goes to the other side).
    """

    amounts: list[int]
    source: list[str]


def _amount(claim: Claim, count: int) -> int:
    return count // 2 if claim.amount == HALF else min(claim.amount, count)


def _propose(claims: Sequence[Claim], counts: Triple, default: int) -> _Proposal:
    """`default` receives what is claimed for nobody."""
    amounts, source = [0] * 3, [""] * 3
    for claim in claims:
        if claim.item != REST:
            count = counts[claim.item]
            k = _amount(claim, count)
            amounts[claim.item] = k if (claim.side or default) == SPEAKER else count - k
            source[claim.item] = "n" if claim.negated else "e" if claim.side else "u"
    rest = [c for c in claims if c.item == REST]
    receiver = (rest[-1].side or default) if rest else -(claims[-1].side or default)
    for i, count in enumerate(counts):
        if not source[i]:
            amounts[i] = count if receiver == SPEAKER else 0
            source[i] = "r" if rest else "i"
    return _Proposal(amounts, source)


def offered(text: str, counts: Triple) -> Triple | None:
    """What the speaker of an utterance would take if it became the deal; None if it claims nothing.

    What is claimed for nobody is for the speaker.
    """
    claims = read_claims(text)[1]
    if not claims:
        return None
    i, j, k = _propose(claims, counts, SPEAKER).amounts
    return i, j, k


@dataclass(frozen=True)
class _Offer:
    """An utterance with claims, and what its features are made of."""

    rank: int  # 0 for the last such utterance
    place: str  # rank, how much was said after it, whether its speaker closed the talk
    by_first: bool
    words: list[str]
    claims: list[Claim]
    proposal: _Proposal
    turned: _Proposal  # had the claims for nobody been for the listener
    before: _Proposal | None  # the offer before, in amounts to this speaker
    about: int  # the receiver in the offer before, seen from this speaker

    def expected(self, i: int, counts: Triple) -> list[tuple[str, int]]:
        """Features that expect an amount of item i for the speaker."""
        rank, source = self.rank, self.proposal.source[i]
        k = self.proposal.amounts[i]
        rest = any(c.item == REST for c in self.claims)
        found = [(f"P{self.place}{source}", k), (f"P{min(rank, 3)}{source}{counts[i] == 1}{rest}", k)]
        if self.before and source != "e":  # half an offer changes the one before
            k, kept = self.before.amounts[i], self.before.source[i]
            more = "".join(sorted(_MORE.intersection(self.words)))
            found += [(f"K{self.place}{source}{kept}", k), (f"K{min(rank, 2)}{source}{more}", k)]
        if any(not c.side for c in self.claims):
            k = self.turned.amounts[i]
            cues = "".join(sorted(_CUES.intersection(self.words)))
            found += [(f"A{self.place}{self.about}", k), (f"A{min(rank, 2)}{self.about}{cues}", k)]
            found.append((f"A{min(rank, 2)}{source}", k))
        for c in self.claims:
            if c.item == i:
                k = _amount(c, counts[i])
                k = counts[i] - k if c.side == LISTENER else k
                found.append((f"C{min(rank, 2)}{c.side}{c.negated}{c.verb}", k))
                found.append((f"C{self.place}{c.side}{c.negated}", k))
        return found

    def context(self, i: int) -> list[str]:
        """Words around the mentions of item i, for the last two offers."""
        found = []
        for c in self.claims:
            if c.item == i and self.rank < 2:
                near = range(max(c.at - 4, 0), min(c.at + 4, len(self.words)))
                words = [_anonymous(w, i) for w in self.words]
                found += [f"W{self.rank}{j - c.at}{words[j]}" for j in near]
                found.append(f"B{self.rank}{' '.join(words[max(0, c.at - 2) : c.at])}")
        return found


def _anonymous(word: str, item: int) -> str:
    named = ITEM_WORDS.get(word)
    return word if named is None else "it" if named == item else "other"


def _offers(counts: Triple, talk: Talk, read: Sequence[_Read]) -> dict[int, _Offer]:
    """The last `DEPTH` utterances with claims, by position, the last one first."""
    positions = [t for t, (_, claims) in enumerate(read) if claims]
    found = {}
    for rank, t in enumerate(reversed(positions[-DEPTH:])):
        by_first, (words, claims) = talk.said[t][0], read[t]
        place = str(min(rank, 3))
        if rank < 2:
            place += f"{min(len(read) - 1 - t, 2)}{int(by_first == talk.closed_by_first)}"
        before, about = None, 0
        if rank + 1 < len(positions):
            previous = positions[-2 - rank]
            before = _propose(read[previous][1], counts, SPEAKER)
            same = talk.said[previous][0] == by_first
            about = next((c.side for c in reversed(read[previous][1]) if c.side), 0) * (1 if same else -1)
            if not same:
                before = before._replace(amounts=[c - k for c, k in zip(counts, before.amounts, strict=True)])
        proposal, turned = (_propose(claims, counts, side) for side in (SPEAKER, LISTENER))
        found[t] = _Offer(rank, place, by_first, words, claims, proposal, turned, before, about)
    return found


def _hash(name: str) -> int:
    return zlib.crc32(name.encode()) % WIDTH


def features(counts: Triple, talk: Talk) -> tuple[list[list[list[int]]], list[list[int]]]:
    """Feature ids: of each item's share of the first speaker; of each division, and last of no agreement."""
    read = [read_claims(text) for _, text in talk.said]
    offers = _offers(counts, talk, read)
    per_share: list[list[list[int]]] = [[[] for _ in range(c + 1)] for c in counts]
    for offer in offers.values():
        for i, count in enumerate(counts):
            expected, context = offer.expected(i, counts), offer.context(i)
            for share, ids in enumerate(per_share[i]):
                k = share if offer.by_first else count - share  # to the speaker
                ids += [_hash(f"{name}|{max(-3, min(3, k - e))}") for name, e in expected]
                part = "none" if k == 0 else "all" if k == count else "some"
                ids += [_hash(f"{name}|{part}") for name in context]
    shares = divisions(counts)
    whole: list[list[int]] = [[] for _ in shares]
    to_first = {t: _first_share(o, counts) for t, o in offers.items()}
    for t, offer in offers.items():
        if offer.rank < 3:
            again = any(to_first[other] == to_first[t] for other in offers if other != t)
            whole[shares.index(to_first[t])] += _answered(offer, t, read, again)
    return per_share, [*whole, _given_up(read, next(iter(offers.values()), None))]


def _first_share(offer: _Offer, counts: Triple) -> Triple:
    i, j, k = offer.proposal.amounts
    return (i, j, k) if offer.by_first else remainder(counts, (i, j, k))


def _answered(offer: _Offer, t: int, read: Sequence[_Read], again: bool) -> list[int]:
    """Features of exactly what was offered: by the kind of offer, and by what was said to it."""
    rank, late = offer.rank, min(offer.rank, 1)
    names = [f"F{offer.place}", f"F{rank}{''.join(sorted(offer.proposal.source))}", f"F{rank}again{again}"]
    if t + 1 < len(read):
        answer = read[t + 1][0]
        names += [f"R{late}{w}" for w in sorted(set(answer))]
        names += [f"R{late}{a} {b}" for a, b in itertools.pairwise(answer)]
    if t + 2 < len(read):
        names += [f"L{late}{w}" for w in sorted(set(read[-1][0]))]
    return [_hash(name) for name in names]


def refused(turns: Sequence[Turn]) -> list[int]:
    """The positions of refusals without a claim that an utterance with claims follows.

    If somebody had closed the talk there, nothing would have been agreed.
    """
    read = [read_claims(text) for _, text in turns]
    last = max((t for t, (_, claims) in enumerate(read) if claims), default=0)
    return [t for t in range(last) if not read[t][1] and _REFUSING.intersection(read[t][0])]


def _given_up(read: Sequence[_Read], last: _Offer | None) -> list[int]:
    """Features of no agreement: the mood at the end, the last three utterances, the length of the talk."""
    names = ["bias", f"Nn{min(len(read), 12)}", f"Nb{last.place if last else None}"]
    if read:
        words, claims = read[-1]
        refusing, accepting = (not cues.isdisjoint(words) for cues in (_REFUSING, _ACCEPTING))
        mood = f"Nm{refusing}{accepting}{bool(claims)}"
        names += [mood, f"{mood}{last.place if last else None}"]
    for back, (words, _) in enumerate(reversed(read[-3:])):
        names += [f"N{back}{w}" for w in sorted(set(words))]
        names += [f"N{back}{a} {b}" for a, b in itertools.pairwise(words)]
    return [_hash(name) for name in names]
