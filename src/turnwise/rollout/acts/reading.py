"""Conversations under way, read as acts; what was read before is not read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from turnwise.data.acts.codebook import Codebook, Utterance
from turnwise.data.acts.talks import Codes, Turns, cut_turns
from turnwise.envs.dialogue import Message
from turnwise.rollout.acts.chooser import Prefix


def read_talks(
    codes: Codes,
    talks: Sequence[Sequence[Message]],
    known: Sequence[Prefix | None] | None = None,
    agent_role: str = "assistant",
) -> list[Prefix]:
    """What talks mean so far. `known` are readings of their earlier turns, None where there is none yet."""
    cut = [cut_turns(messages, agent_role) for messages in talks]
    before = [None] * len(cut) if known is None else list(known)
    done = [0 if p is None else len(p) for p in before]
    fresh = [i for i, p in enumerate(before) if p is None]
    firsts = _read(codes.opening, [cut[i].opening for i in fresh])
    said = _read(codes.agent, [u for t, k in zip(cut, done, strict=True) for u in t.said[k:]])
    heard = _read(codes.partner, [u for t, k in zip(cut, done, strict=True) for u in t.heard[k:] if u])
    found: list[Prefix] = []
    for turns, p, k in zip(cut, before, done, strict=True):
        if p is None:
            act, far, _ = next(firsts)
            p = Prefix.of(act, distances=[far])
        found.append(_longer(p, turns, k, said, heard))
    return found


def _longer(p: Prefix, turns: Turns, k: int, said: Any, heard: Any) -> Prefix:
    """A reading and the turns after the first `k`, of which `said` and `heard` give the acts."""
    acts = [next(said)[0] for _ in turns.said[k:]]
    answers = [(0, 0.0, None) if u is None else next(heard) for u in turns.heard[k:]]
    # Answer 0 is silence, which the partner's codebook does not know.
    symbols = [0 if u is None else 1 + a for u, (a, _, _) in zip(turns.heard[k:], answers, strict=True)]
    return Prefix(
        p.first,
        np.append(p.acts, np.array(acts, np.int64)),
        np.append(p.answers, np.array(symbols, np.int64)),
        np.append(p.distances, [far for _, far, _ in answers]),
        np.append(p.rewards, np.zeros(len(acts))),
        (*p.evidence, *(None if told is None else np.append(0.0, told) for _, _, told in answers)),
    )


def _read(book: Codebook, utterances: Sequence[Utterance]) -> Any:
    """(act, distance, evidence) of each utterance, one after another."""
    if not utterances:
        return iter(())
    heard = book.read(utterances)
    evidence = heard.evidence or (None,) * len(utterances)
    return iter(list(zip(heard.acts.tolist(), heard.distances.tolist(), evidence, strict=True)))
