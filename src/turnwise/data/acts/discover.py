"""Acts discovered from words: what is answered alike, and leads to the same, means the same.

Clusters of similar sentences are not acts. "The battery is not fine" is like "the battery is fine", and "swap
the screen" is like "check the screen"; thousands of wordings of one act may have no word in common. What
tells is what stands around a sentence: the partner's next words, what the agent says then, what came before,
and what the conversation earns. So each side's sentences are split by their contexts (`splitting.py`), the
contexts are written in the acts found so far, and the two sides take turns:

    repeat ROUNDS times: split the agent's sentences anew; split the answers anew
    join acts that what stands around does not tell apart, those that tell least first (telling.py)
    learn to read the acts off words alone, for sentences that were never seen (gate.py)

The acts of conversations are those of Young et al. (2013), who wrote theirs by hand; Ritter et al. (2010) and
Zhao et al. (2019) learn them from neighbouring words and from replies, without what the conversation earns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from turnwise.data.acts.codebook import OTHER, Example, Utterance
from turnwise.data.acts.corpus import Corpus, frequent, one_hot, times
from turnwise.data.acts.gate import Gate
from turnwise.data.acts.phrases import PhraseBook, Phrases, frequent_forms, short_names
from turnwise.data.acts.slots import Slots, normalised
from turnwise.data.acts.spaces import Embedded, Embedder, Space, Words
from turnwise.data.acts.splitting import Sentences, main_directions, split, told_apart
from turnwise.data.acts.telling import Question, asked, join

ROUNDS = 3
"""how often the two sides are split, each time with the other side's acts of before"""
GIST = 30
"""main directions of neighbouring texts that are a context"""
JUST = 0.99
"""distance, at most, of a sentence that was logged: it is not *other*, however odd"""
CROSSED = 12
"""acts, at most, that are crossed with a neighbouring text"""


@dataclass(frozen=True)
class Discovered:
    """Codebooks of both sides (None if nobody ever answered), and what their acts tell."""

    agent: PhraseBook
    partner: PhraseBook | None
    asks: tuple[Question, Question]
    curves: tuple[list[dict[str, float]], list[dict[str, float]]]
    """of either side: what each number of acts tells, in bits per message; empty if it was not discovered"""


def _name(examples: Sequence[Example]) -> str:
    """A sentence to call an act by: among those said most often, the clearest."""
    if not examples:
        return "(empty)"
    often = [e for e in examples if 2 * e.count >= examples[0].count][:200]
    return min(often, key=lambda e: (round(e.distance, 2), len(e.template), e.template)).template


@dataclass
class Side:
    """A side's sentences in a space."""

    slots: Slots
    space: Space
    templates: tuple[str, ...]
    """[M], as they are written most often"""
    counts: np.ndarray
    """[M], how often each was said"""
    sentences: Sentences

    @classmethod
    def of(
        cls,
        utterances: Sequence[Utterance],
        conversation: np.ndarray,
        embed: Embedder | None,
        name: str,
        seed: int,
    ) -> Side:
        """Sentences of utterances, which belong to conversations [n]."""
        texts = Counter(u.text for u in utterances)
        slots = Slots.learn(texts.items())
        cut = {text: slots.cut(text).text for text in texts}
        said = Counter[str]()
        for text, count in texts.items():
            said[cut[text]] += count
        forms = frequent_forms(said)
        place = {key: i for i, key in enumerate(forms)}
        at = {text: place[normalised(cut[text])] for text in texts}
        templates = tuple(form for form, _ in forms.values())
        counts = np.array([count for _, count in forms.values()])
        space = Words.learn(templates) if embed is None else Embedded.learn(embed, templates, name)
        vectors = space.vectors(templates)
        which = np.array([at[u.text] for u in utterances], np.int64)
        found = Sentences(main_directions(vectors, counts, seed), which, conversation % 2 == 0, conversation)
        return cls(slots, space, templates, counts, found)

    def book(self, other: bool, seed: int) -> PhraseBook:
        """The codebook of the acts that the sentences have now, the most frequent first."""
        size = int(self.sentences.acts.max()) + 1
        said = np.bincount(self.sentences.acts, weights=self.counts, minlength=size)
        rank = np.argsort(np.argsort(-said, kind="stable"), kind="stable")
        acts = rank[self.sentences.acts]
        vectors = self.space.vectors(self.templates)
        gate = Gate.learn(vectors, acts, self.counts, size, seed)
        distances = np.zeros(len(acts))
        if gate is not None:
            chances = gate.chances(vectors)[np.arange(len(acts)), acts]
            distances = np.minimum(gate.distance(chances), JUST)
        phrases = Phrases(self.templates, acts, self.counts, distances)
        typical = [phrases.of(k) for k in range(size)]
        names = short_names([_name(examples) for examples in typical], taken=[OTHER])
        last = size if other and size > 1 else None
        stored = None if sparse.issparse(vectors) else vectors
        names = [*names, *([OTHER] if last is not None else [])]
        return PhraseBook(
            "discover", tuple(names), phrases, self.slots, self.space, last, gate=gate, stored=stored
        )

    def gist(self, rows: np.ndarray, n: int) -> sparse.csr_matrix:
        """[n, GIST], what the utterances in `rows` say, in main directions."""
        found = np.zeros((n, min(GIST, self.sentences.texts.shape[1])), np.float32)
        found[rows] = self.sentences.texts[self.sentences.which][:, :GIST]
        return sparse.csr_matrix(found)


def discover(
    corpus: Corpus,
    embed: Embedder | None = None,
    name: str = "words",
    *,
    agent: PhraseBook | None = None,
    partner: PhraseBook | None = None,
    count: int | None = None,
    seed: int = 0,
    done: Callable[[str], None] = lambda what: None,
) -> Discovered:
    """Acts of both sides; a side whose codebook is given keeps it.

    `embed` makes vectors of texts, and is called `name`; None: sparse words. `count`: number of acts of a
    side; None: as many as tell most, held out.
    """
    n, spoke = len(corpus), corpus.spoke
    heard = [u for u in corpus.heard if u is not None]
    a = np.zeros(n, np.int64) if agent is None else agent.read(corpus.said).acts
    o = np.zeros(n, np.int64)
    if len(spoke):
        o[spoke] = 1 if partner is None else 1 + partner.read(heard).acts
    sides = (
        Side.of(corpus.said, corpus.conversation, embed, name, seed) if agent is None else None,
        Side.of(heard, corpus.conversation[spoke], embed, name, seed) if partner is None and heard else None,
    )
    gists = gists_of(corpus, *sides, seed)
    a, o = split_both(corpus, *sides, (a, o), gists, seed, done)
    asks = asked(corpus, a, o)
    curves: list[list[dict[str, float]]] = [[], []]
    if sides[0] is not None:
        number, curves[0] = join(asks[0], a, count, _apart(corpus, a, o, gists, None, seed))
        sides[0].sentences.acts = number[sides[0].sentences.acts]
        agent = sides[0].book(False, seed)
    if sides[1] is not None:
        number, curves[1] = join(asks[1], o[spoke] - 1, count, _apart(corpus, a, o, gists, spoke, seed))
        sides[1].sentences.acts = number[sides[1].sentences.acts]
        partner = sides[1].book(True, seed)
    assert agent is not None
    return Discovered(agent, partner, asks, (curves[0], curves[1]))


class Gists(NamedTuple):
    """What is said around a turn, [N, GIST] each, in main directions: contexts beside the acts."""

    said: sparse.csr_matrix
    heard: sparse.csr_matrix | None
    begun: sparse.csr_matrix


def gists_of(corpus: Corpus, agent: Side | None, partner: Side | None, seed: int) -> Gists:
    """Of both sides, whether or not their acts are to be discovered, and of what was known beforehand."""
    n, c = len(corpus), len(corpus.opening)
    speaks = agent or Side.of(corpus.said, corpus.conversation, None, "words", seed)
    heard = None
    if len(corpus.spoke):
        answers = [u for u in corpus.heard if u is not None]
        hears = partner or Side.of(answers, corpus.conversation[corpus.spoke], None, "words", seed)
        heard = hears.gist(corpus.spoke, n)
    known = Side.of(corpus.opening, np.arange(c), None, "words", seed)
    return Gists(speaks.gist(np.arange(n), n), heard, known.gist(np.arange(c), c)[corpus.conversation])


def _apart(
    corpus: Corpus, a: np.ndarray, o: np.ndarray, gists: Gists, spoke: np.ndarray | None, seed: int
) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Whether what stands around tells rows apart; of the partner if the rows in which it spoke are given."""
    if spoke is None:
        around = _around_agent(corpus, a, o, gists.heard, gists.begun)
    else:
        around = _around_partner(corpus, a, o, gists.said, gists.begun)
    rows = np.arange(len(corpus)) if spoke is None else spoke
    contexts = {name: x[rows] for name, x in around.items()}
    return lambda i, j: told_apart(i, j, contexts, corpus.half[rows], seed)


def split_both(
    corpus: Corpus,
    agent: Side | None,
    partner: Side | None,
    codes: tuple[np.ndarray, np.ndarray],
    gists: Gists,
    seed: int,
    done: Callable[[str], None] = lambda what: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Discover the acts of the sides that are given; `codes` are those of a side that is not.

    Returns the agent's acts [N] and the answers [N], 0 for silence.
    """
    a, o = codes
    n = len(corpus)
    said, heard, begun = gists
    for _ in range(ROUNDS):
        before = a.copy(), o.copy()
        if agent is not None:
            agent.sentences.acts[:] = 0
            split(agent.sentences, _around_agent(corpus, a, o, heard, begun), seed)
            a = agent.sentences.codes
            done(f"{int(a.max()) + 1} acts")
        if partner is not None:
            partner.sentences.acts[:] = 0
            around = _around_partner(corpus, a, o, said, begun)
            split(partner.sentences, {name: x[corpus.spoke] for name, x in around.items()}, seed)
            o = np.zeros(n, np.int64)
            o[corpus.spoke] = 1 + partner.sentences.codes
            done(f"{int(o.max())} answers")
        if agent is None or partner is None or all(map(_same, before, (a, o))):
            break
    return a, o


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two codings differ in the numbers of their acts alone."""
    size = int(b.max()) + 1
    return len(np.unique(a)) == len(np.unique(b)) == len(np.unique(a * size + b))


def _pairs(corpus: Corpus, a: np.ndarray, o: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """What was said and answered, as one symbol a turn; such of the turns before, and of those after."""
    size = int(o.max()) + 1
    pairs = frequent(one_hot(a * size + o, (int(a.max()) + 1) * size))
    return pairs, *corpus.earlier_and_later(pairs)


def _around_agent(
    corpus: Corpus, a: np.ndarray, o: np.ndarray, heard: Any = None, begun: Any = None
) -> dict[str, sparse.csr_matrix]:
    """Contexts [N, G] of the agent's messages."""
    answers, pay = one_hot(o, int(o.max()) + 1), one_hot(corpus.bins, int(corpus.bins.max()) + 1)
    pairs, earlier, _ = _pairs(corpus, a, o)
    before = sparse.hstack([earlier, corpus.before(pairs)])
    found = {
        "next": sparse.hstack([answers, pay, *([] if heard is None else [heard])]),
        "before": before,
        "pay": times(before, pay),
    }
    few = int(o.max()) < CROSSED
    if few:
        found["pairs"] = times(corpus.before(pairs), answers)
    if heard is not None:
        found["heard"] = corpus.before(times(heard, answers) if few else heard)
    if begun is not None:
        found["known"] = sparse.hstack([begun, times(begun, pay)])
    return {name: sparse.csr_matrix(x) for name, x in found.items()}


def _around_partner(
    corpus: Corpus, a: np.ndarray, o: np.ndarray, said: Any = None, begun: Any = None
) -> dict[str, sparse.csr_matrix]:
    """Contexts [N, G] of the answers."""
    size = int(a.max()) + 1
    after = np.where(corpus.last, size, a[np.minimum(np.arange(len(a)) + 1, len(a) - 1)])
    acts, then = one_hot(a, size), one_hot(after, size + 1)
    pay = one_hot(corpus.bins, int(corpus.bins.max()) + 1)
    _, earlier, later = _pairs(corpus, a, o)
    found = {
        "before": sparse.hstack([earlier, acts]),
        "after": sparse.hstack([later, then]),
        "pay": sparse.hstack([pay, times(then, pay), times(earlier + later, pay)]),
    }
    if said is not None:
        gist = corpus.after(said)
        found["said"] = times(gist, then) if size < CROSSED else gist
    if begun is not None:
        found["known"] = sparse.hstack([begun, times(begun, pay)])
    return {name: sparse.csr_matrix(x) for name, x in found.items()}
