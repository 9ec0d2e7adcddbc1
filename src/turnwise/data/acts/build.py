"""The codebooks of a log: for the agent, for what answers it, for what it knows beforehand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.corpus import Corpus, frequent, one_hot, times
from turnwise.data.acts.discover import Discovered, Side, discover
from turnwise.data.acts.labelled import Meaning, by_field, by_function, by_sentence
from turnwise.data.acts.phrases import PhraseBook, field_label
from turnwise.data.acts.slots import normalised
from turnwise.data.acts.spaces import Embedder
from turnwise.data.acts.splitting import split
from turnwise.data.acts.talks import Codes
from turnwise.data.dialogue import Dialogue
from turnwise.run.errors import SettingError

HANDFUL = 12
"""sentences, at most, of a side whose sentences are acts"""
REPEATED = 10
"""times that each of them is said, at least"""
WAYS = ("auto", "field", "sentence", "discover")
"""how a side's acts may come about, beside a function"""


@dataclass(frozen=True)
class Built:
    """Codebooks, the turns that they were made from, and what was noticed on the way."""

    codes: Codes
    corpus: Corpus
    discovered: Discovered | None
    """None if nothing was to be discovered"""
    notes: tuple[str, ...] = ()


@dataclass
class _Notes:
    texts: list[str] = field(default_factory=list)


def build_codes(
    dialogues: Sequence[Dialogue],
    agent_acts: str | Meaning = "auto",
    partner_acts: str | Meaning = "auto",
    *,
    embed: Embedder | None = None,
    embed_name: str = "words",
    count: int | None = None,
    seed: int = 0,
    done: Callable[[str], None] = lambda what: None,
) -> Built:
    """Make codebooks from logged conversations.

    `agent_acts`, `partner_acts`: field (the field `act` of messages), sentence (each sentence is an act),
    discover, a function of a text and the messages before it (itself, or as `module:function`), or auto: the
    field if every message of that side has one; the sentence if there are but a handful of them; else
    discover. What the agent knows beforehand is read like
    the partner; as it has no field of its own, it is discovered if its messages have none. `embed` makes
    vectors of texts (None: sparse words). `count`: number of acts of a discovered side; None: as many as tell
    most. `done` is told of each step of discovery. SettingError for a setting that cannot work, InputError
    for a function that fails.
    """
    if not dialogues:
        raise SettingError("data", None, "at least one conversation")
    corpus = Corpus.of(dialogues, np.random.default_rng(seed))
    heard = [u for u in corpus.heard if u is not None]
    notes = _Notes()
    agent = _known(corpus.said, agent_acts, "agent_acts", False, notes)
    partner = _known(heard, partner_acts, "partner_acts", True, notes) if heard else _nothing()
    found = None
    if agent is None or partner is None:
        found = discover(
            corpus, embed, embed_name, agent=agent, partner=partner, count=count, seed=seed, done=done
        )
        agent, partner = found.agent, found.partner
    assert agent is not None and partner is not None
    if count is not None:
        sides = [("agent", agent), *([("partner", partner)] if heard else [])]
        notes.texts += [text for side, book in sides if (text := _fewer(side, book, count)) is not None]
    agent = agent.with_own_words(corpus.said)
    if own := [t for t in agent.phrases.templates if normalised(t) in agent.phrases.own]:
        notes.texts.append(
            f"{len(own):,} of {len(agent.phrases.templates):,} sentences of the agent, such as {own[0]!r}, "
            "have numbers, names or the like that mostly nobody had said before: where a conversation has "
            "none, they are said as they were logged"
        )
    for side, book in (("agent", agent), ("partner", partner)):
        if len(book.names) == 1 and (side == "agent" or heard):
            notes.texts.append(
                f"all messages of the {side} are one act: nothing in their words goes with what is said "
                "around them, or with what is earned"
            )
    opening = _opening(corpus, partner_acts, agent, partner, embed, embed_name, seed)
    return Built(Codes(agent, partner, opening), corpus, found, tuple(notes.texts))


def _fewer(side: str, book: PhraseBook, count: int) -> str | None:
    """What is to be said of a side that has not as many acts as were asked for; None: nothing."""
    if book.way != "discover":
        return (
            f"acts of the {side} come by {book.way} and are not discovered: count, {count}, is not for them"
        )
    found = len(book.names) - (book.other is not None)
    if found >= count:
        return None
    return f"{found} acts of the {side} were found where count is {count}: nothing tells more of them apart"


def _known(
    utterances: Sequence[Utterance], way: str | Meaning, setting: str, other: bool, notes: _Notes
) -> PhraseBook | None:
    """The codebook of a side whose acts need not be discovered; None if they are to be."""
    if not isinstance(way, str) or ":" in way:
        return by_function(utterances, way, setting, other)
    if way not in WAYS:
        raise SettingError(setting, way, f"{', '.join(WAYS)} or module:function")
    without = sum(field_label(u) is None for u in utterances)
    if way == "field" or (way == "auto" and not without):
        book = by_field(utterances, setting, other)
        if without:
            notes.texts.append(
                f"{without:,} of {len(utterances):,} utterances have no act ({setting} is 'field'): they are "
                "read by their words, as those that have one"
            )
        return book
    if way == "auto" and without < len(utterances):
        notes.texts.append(
            f"{without:,} of {len(utterances):,} utterances have no act, so acts are discovered and those of "
            f"the log are not used; {setting} 'field' would read the others by their words"
        )
    handful = way == "auto" and _handful(utterances)
    return by_sentence(utterances, other) if way == "sentence" or handful else None


def _handful(utterances: Sequence[Utterance]) -> bool:
    """Whether a side says the same few sentences over and over: then each may be an act."""
    said = Counter(normalised(u.text) for u in utterances)
    return len(said) <= HANDFUL and min(said.values(), default=0) >= REPEATED


def _nothing() -> PhraseBook:
    """The codebook of a side that never speaks."""
    return by_sentence([Utterance("")], False)


def _opening(
    corpus: Corpus,
    way: str | Meaning,
    agent: PhraseBook,
    partner: PhraseBook,
    embed: Embedder | None,
    name: str,
    seed: int,
) -> PhraseBook:
    """The codebook of what is known beforehand."""
    if way in ("field", "auto") and all(field_label(u) is not None for u in corpus.opening):
        return by_field(corpus.opening, "partner_acts", len({field_label(u) for u in corpus.opening}) > 1)
    if way == "sentence" or (way == "auto" and _handful(corpus.opening)):
        return by_sentence(corpus.opening, len({u.text for u in corpus.opening}) > 1)
    start = corpus.starts
    a = agent.read(corpus.said).acts
    o = np.zeros(len(a), np.int64)
    if len(corpus.spoke):
        o[corpus.spoke] = 1 + partner.read([u for u in corpus.heard if u is not None]).acts
    size = int(o.max()) + 1
    pairs = frequent(one_hot(a * size + o, (int(a.max()) + 1) * size))
    whole = np.add.reduceat(pairs.toarray(), start, axis=0)
    pay = one_hot(corpus.bins, int(corpus.bins.max()) + 1)[start]
    side = Side.of(corpus.opening, np.arange(len(start)), embed, name, seed)
    around: dict[str, Any] = {
        "first": sparse.hstack([one_hot(a, int(a.max()) + 1)[start], one_hot(o, size)[start], pay]),
        "whole": sparse.hstack([sparse.csr_matrix(whole), pay]),
        "pay": times(whole, pay),
    }
    contexts = {k: sparse.csr_matrix(x) for k, x in around.items()}
    side.sentences.acts = split(side.sentences, contexts, corpus.half[start], seed)
    side.agree(contexts, corpus.half[start], seed)
    return side.book(True, seed)
