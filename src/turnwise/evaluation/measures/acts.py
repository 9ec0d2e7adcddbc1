"""What acts are like: sentences, counts, what they tell, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from turnwise.data.acts.build import Built
from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.corpus import Corpus
from turnwise.data.acts.phrases import PhraseBook, field_label
from turnwise.data.acts.talks import Codes
from turnwise.data.acts.telling import Question, asked, bits_of, interval
from turnwise.data.dialogue import Dialogue

SHOWN = 4
"""typical sentences of an act, and borderline ones"""
FEW = 20
"""messages of an act below which no interval is given"""


def describe_acts(built: Built, again: Sequence[Codes] = (), held: Sequence[Dialogue] = ()) -> dict[str, Any]:
    """The document that the page of acts shows (acts.json).

    `again`: codebooks that were made from other halves of the conversations. `held`: conversations from which
    nothing was learnt.
    """
    corpus, codes = built.corpus, built.codes
    a, o = _read(codes, corpus)
    agent, partner = asked(corpus, a, o)
    heard = [u for u in corpus.heard if u is not None]
    unseen = Corpus.of(held, np.random.default_rng(0)) if held else None
    found = built.discovered
    sides = [
        _side("agent", codes.agent, corpus.said, a, agent, corpus.earned, found and found.curves[0]),
    ]
    if heard:
        earned = None if corpus.earned is None else corpus.earned[corpus.spoke]
        answers = o[corpus.spoke] - 1
        sides.append(
            _side("partner", codes.partner, heard, answers, partner, earned, found and found.curves[1])
        )
    for side in sides:
        utterances = corpus.said if side["side"] == "agent" else heard
        book = getattr(codes, side["side"])
        side["agreement"] = [
            float(
                adjusted_rand_score(
                    book.read(utterances).acts, getattr(c, side["side"]).read(utterances).acts
                )
            )
            for c in again
        ]
        if unseen is not None:
            new = unseen.said if side["side"] == "agent" else [u for u in unseen.heard if u is not None]
            side["other"] = _other(book, new)
    opening = codes.opening
    firsts = opening.read(corpus.opening)  # pyright: ignore[reportArgumentType]
    sides.append(
        {
            "side": "opening",
            "acts": _acts(opening, corpus.opening, firsts.acts, None, None),
            "messages": len(corpus.opening),
            **_labels(corpus.opening, firsts.acts),
        }
        | _about(opening)
    )
    return {
        "sides": sides,
        "turns": len(corpus),
        "conversations": len(corpus.opening),
        "rated": corpus.earned is not None,
        "notes": list(built.notes),
    }


def _read(codes: Codes, corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    a = codes.agent.read(corpus.said).acts
    o = np.zeros(len(a), np.int64)
    if len(corpus.spoke):
        o[corpus.spoke] = 1 + codes.partner.read([u for u in corpus.heard if u is not None]).acts
    return a, o


def _about(book: Any) -> dict[str, Any]:
    """How a side's acts came about."""
    if not isinstance(book, PhraseBook):
        return {"way": type(book).__name__, "by": None, "other": None}
    by = book.source or (None if book.way == "field" else getattr(book.space, "name", "words"))
    return {"way": book.way, "by": by}


def _side(
    name: str,
    book: Any,
    utterances: Sequence[Utterance],
    acts: np.ndarray,
    question: Question,
    earned: np.ndarray | None,
    curve: list[dict[str, float]] | None,
) -> dict[str, Any]:
    """One side: its acts, and what they tell together."""
    bits = bits_of(question, acts)
    told = {key: interval(question, x).facts() for key, x in bits.items()}
    return {
        "side": name,
        **_about(book),
        "messages": len(utterances),
        "told": told,
        "curve": curve or [],
        "acts": _acts(book, utterances, acts, (question, bits), earned),
        **_labels(utterances, acts),
    }


def _labels(utterances: Sequence[Utterance], acts: np.ndarray) -> dict[str, Any]:
    """Adjusted Rand index against the acts that the log gives, and how many messages have one."""
    names = [field_label(u) for u in utterances]
    rows = [i for i, name in enumerate(names) if name is not None]
    index = float(adjusted_rand_score([str(names[i]) for i in rows], acts[rows])) if rows else None
    return {"labelled": len(rows), "labels": index, "kinds": len({names[i] for i in rows})}


def _acts(
    book: Any,
    utterances: Sequence[Utterance],
    acts: np.ndarray,
    asked_of: tuple[Question, dict[str, np.ndarray]] | None,
    earned: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Each act in the order of its number."""
    found = []
    for k, name in enumerate(book.names):
        rows = np.flatnonzero(acts == k)
        examples = book.examples(k)
        typical = sorted(examples, key=lambda e: (round(e.distance, 1), -e.count, e.template))[:SHOWN]
        border = [
            e for e in sorted(examples, key=lambda e: -e.distance) if e not in typical and e.distance > 0.3
        ]
        act: dict[str, Any] = {
            "name": name,
            "count": len(rows),
            "sentences": len(examples),
            "typical": [{"text": e.template, "count": e.count} for e in typical],
            "borderline": [{"text": e.template, "count": e.count} for e in border[:SHOWN]],
            "told": None,
            "earned": None,
        }
        if asked_of is not None and len(rows) >= FEW:
            question, bits = asked_of
            part = Question(
                (), question.around[rows], question.size, question.conversation[rows], question.half[rows]
            )
            act["told"] = interval(part, np.sum([x[rows] for x in bits.values()], axis=0)).facts()
            if earned is not None:
                act["earned"] = interval(part, earned[rows]).facts()
        found.append(act)
    return found


def _other(book: Any, utterances: Sequence[Utterance]) -> dict[str, float]:
    """Of messages from which nothing was learnt: the share that is like nothing, and that was never said."""
    plain = [Utterance(u.text) for u in utterances]
    if not plain:
        return {"messages": 0, "other": 0.0, "new": 0.0}
    read = book.read(plain)
    new = float(np.mean([not book.knows(u.text) for u in plain])) if isinstance(book, PhraseBook) else 0.0
    return {"messages": len(plain), "other": float((read.distances >= 1).mean()), "new": new}
