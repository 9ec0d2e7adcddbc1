"""Which acts a partner answers with, beside n-grams of acts: nats an answer in held-out conversations.

A language model gives no probability of an act: many sentences mean one. So it answers `samples` times at
each place, its answers are read as acts, and

    p(o | place) = (n_o + u_o) / (samples + 1)

n_o counts them, and u is how often act o was logged anywhere: one answer's worth, so that no act is
impossible. An act that the partner gives too rarely to be seen costs more than it should; more samples lower
that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.talks import ActLogs, ActTalk, Codes
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.other_side import read_turn
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.next_answers import nats_per_symbol, recurrent_log_likelihoods
from turnwise.evaluation.measures.partners.telling import ratio
from turnwise.exact.learning.sequences import Sequences
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.partners.fitted import FittedPartner
from turnwise.rollout.replies import has_room, sample_replies

ORDERS = {0: "unigram", 1: "bigram", 2: "trigram", 3: "4-gram"}
"""n-grams of acts, by how many acts before the answer they look at: the agent's, the answer before it, ..."""


@dataclass(frozen=True)
class Place:
    """A turn of the partner in a logged conversation."""

    talk: int
    """place of the conversation among those that were given"""
    turn: int
    """how many turns of the agent had been answered before it"""
    history: tuple[Message, ...]
    """all before it, as the partner has it"""
    text: str
    """what was said"""


def places_of(partner: FittedPartner, turned: Sequence[Dialogue]) -> list[Place]:
    """Every turn of the partner that follows words of the agent and fits the partner's context."""
    policy, chat = LmPolicy(partner.model.policy.lm), partner.agent.chat
    found = []
    for i, d in enumerate(turned):
        answered = 0
        for k, m in enumerate(d.messages):
            if m.role != "assistant" or not any(x.role == "user" for x in d.messages[:k]):
                continue
            history = d.messages[:k]
            if has_room(policy, chat, history, partner.acting.max_new_tokens):
                found.append(Place(i, answered, history, m.content))
            answered += 1
    return found


def answer_at(
    partner: FittedPartner, places: Sequence[Place], samples: int, seed: int
) -> list[list[str | None]]:
    """`samples` answers of the partner at each place; None for one that never stopped."""
    a = partner.acting
    replies = sample_replies(
        LmPolicy(partner.model.policy.lm),
        partner.agent.chat,
        [p.history for p in places],
        group=samples,
        seed=seed,
        max_new_tokens=a.max_new_tokens,
        decoding=Decoding(a.temperature, a.top_k, a.top_p),
    )
    texts = [r.text if r.stopped else None for r in replies]
    return [texts[i * samples : (i + 1) * samples] for i in range(len(places))]


def read_answers(codes: Codes, texts: Sequence[str], histories: Sequence[Sequence[Message]]) -> np.ndarray:
    """[n] acts of answers of the partner; 0 is silence."""
    found = np.zeros(len(texts), np.int64)
    spoke = [i for i, text in enumerate(texts) if read_turn(text)]
    if spoke:
        heard = [_utterance(texts[i], histories[i]) for i in spoke]
        found[spoke] = 1 + codes.partner.read(heard).acts
    return found


def _utterance(text: str, history: Sequence[Message]) -> Utterance:
    """As the codebook of the logs sees it: the roles turned back."""
    said = read_turn(text)
    return Utterance("\n".join(map(spoken, said)), tuple(m.act for m in said), _turned_back(history))


def _turned_back(history: Sequence[Message]) -> tuple[Message, ...]:
    """As the agent has it: a turn of the partner may be several messages, of a tool among others."""
    found = list[Message]()
    for m in history:
        if m.role == "assistant":
            found += read_turn(m.content)
        else:
            found.append(Message("assistant" if m.role == "user" else m.role, m.content))
    return tuple(found)


def measure_answers(
    partner: FittedPartner,
    codes: Codes,
    learnt: ActLogs,
    turned: Sequence[Dialogue],
    *,
    places: int = 500,
    samples: int = 32,
    seed: int = 0,
) -> dict[str, Any]:
    """Nats an answer on places of held-out conversations that were turned round, with 95% intervals.

    `partner`, and n-grams by their names, all on the same places; `unfinished` is the share of its answers
    that never stopped. `learnt`: acts that n-grams are counted in. Empty if there is no place.
    """
    every = places_of(partner, turned)
    step = max(1, len(every) // places)
    chosen = every[::step][:places]
    if not chosen:
        return {}
    said = answer_at(partner, chosen, samples, seed)
    texts = [text for p, answers in zip(chosen, said, strict=True) for text in (p.text, *answers)]
    histories = [p.history for p in chosen for _ in range(samples + 1)]
    good = [text is not None for text in texts]
    read = np.full(len(texts), -1)
    read[good] = read_answers(
        codes,
        [t for t in texts if t is not None],
        [h for h, g in zip(histories, good, strict=True) if g],
    )
    read = read.reshape(len(chosen), samples + 1)
    usual = NextAnswers(learnt.talks, len(learnt.answers), 0).probabilities(())
    counts = np.stack([np.bincount(row[row >= 0], minlength=len(usual)) for row in read[:, 1:]])
    p = (counts + usual) / (counts.sum(1, keepdims=True) + 1)
    logged = read[:, 0]
    nats = {"partner": -np.log(p[np.arange(len(logged)), logged])}
    talks = ActTalks.of(codes, chosen)
    for order, name in ORDERS.items():
        model = NextAnswers(learnt.talks, len(learnt.answers), order)
        before = [talks.before(i, order) for i in range(len(chosen))]
        nats[name] = np.array(
            [-np.log(model.probabilities(x)[o]) for x, o in zip(before, logged, strict=True)]
        )
    _, talk = np.unique([x.talk for x in chosen], return_inverse=True)
    size = np.bincount(talk).astype(float)
    best = min((n for n in nats if n != "partner"), key=lambda n: nats[n].mean())
    return {
        "places": len(chosen),
        "samples": samples,
        "unfinished": float(np.mean(read[:, 1:] < 0)),
        "nats": {name: ratio(np.bincount(talk, weights=x), size) for name, x in nats.items()},
        "best": best,
        "ahead": ratio(np.bincount(talk, weights=nats[best] - nats["partner"]), size),
        "shares": {
            "logged": _shares(logged, learnt.answers),
            "partner": _shares(read[:, 1:], learnt.answers),
        },
    }


def with_memory(learnt: Sequences, held: Sequences, seed: int, quiet: bool) -> dict[str, float]:
    """Nats an answer, its end included, of a GRU over acts: `value`, `low`, `high` over held-out talks.

    It knows no words, and remembers everything that was meant. A partner that tells less has not learnt what
    an answer has to do with all that was said before.
    """
    counts = 1.0 + np.bincount(learnt.firsts, minlength=learnt.first_symbols)
    openings = np.log(counts / counts.sum())[held.firsts]  # which the network's figure has in it
    told = recurrent_log_likelihoods(learnt, held, seed=seed, quiet=quiet) - openings
    return nats_per_symbol(told, held.lengths, np.random.default_rng(seed))


def _shares(read: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    counted = Counter(read[read >= 0].tolist())
    return {name: counted[i] / max(1, sum(counted.values())) for i, name in enumerate(names)}


@dataclass(frozen=True)
class ActTalks:
    """What both sides meant before some places, the latest first: the agent, the partner, the agent."""

    symbols: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, codes: Codes, places: Sequence[Place]) -> ActTalks:
        """Read by the codebooks."""
        dialogues = [Dialogue(_turned_back(p.history), False) for p in places]
        found = []
        for t in codes.talks(dialogues):
            turns = zip(t.acts.tolist(), t.answers.tolist(), strict=True)
            in_order = [x for a, o in turns for x in (a, o)][:-1]  # behind the last act nothing is known
            found.append(tuple(reversed(in_order)))
        return cls(tuple(found))

    def before(self, i: int, order: int) -> tuple[int, ...]:
        """The latest `order` acts before place i."""
        return self.symbols[i][:order]


class NextAnswers:
    """p(answer | the latest acts), by counting; what was seen rarely falls back on a shorter context.

        p(o | c) = (n(c, o) + T(c) p(o | c')) / (n(c) + T(c))        T(c): different answers after c

    Witten and Bell 1991; c' lacks the earliest act of c, and the shortest context falls back on a uniform p.
    """

    def __init__(self, talks: Sequence[ActTalk], answers: int, order: int) -> None:
        self.answers, self.order = answers, order
        self.counts: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(answers))
        for t in talks:
            acts, heard = t.acts.tolist(), t.answers.tolist()
            for k, o in enumerate(heard):
                past = [acts[k]]
                for j in range(k - 1, -1, -1):
                    past += [heard[j], acts[j]]
                for n in range(min(order, len(past)) + 1):
                    self.counts[tuple(past[:n])][o] += 1

    def probabilities(self, before: tuple[int, ...]) -> np.ndarray:
        """[answers]; `before`: acts, the latest first."""
        context = before[: self.order]
        shorter = self.probabilities(context[:-1]) if context else np.full(self.answers, 1 / self.answers)
        n = self.counts.get(context)
        if n is None:
            return shorter
        types = int((n > 0).sum())
        return (n + types * shorter) / (n.sum() + types)
