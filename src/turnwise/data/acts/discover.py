"""Acts discovered from words: what is answered alike, and leads to the same, means the same.

Clusters of similar sentences are not acts. "The battery is not fine" is like "the battery is fine", and "swap
the screen" is like "check the screen"; thousands of wordings of one act may have no word in common. What
tells is what stands around a sentence: the partner's next words, what the agent says then, what came before,
and what the conversation earns. So each side's sentences are split by their contexts (`splitting.py`), the
contexts are written in the acts found so far, and the two sides take turns:

    take turns: split one side's sentences anew by the other's acts, join what is not told apart (turns.py)
    read each sentence by its words and by what stands around it until both agree (agreement.py)
    learn to read the acts off words alone, for sentences that were never seen (gate.py)

The acts of conversations are those of Young et al. (2013), who wrote theirs by hand; Ritter et al. (2010) and
Zhao et al. (2019) learn them from neighbouring words and from replies, without what the conversation earns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import softmax

from turnwise.data.acts.agreement import agreed, rises
from turnwise.data.acts.codebook import OTHER, Example, Utterance
from turnwise.data.acts.contexts import GIST, Gists
from turnwise.data.acts.corpus import Corpus
from turnwise.data.acts.gate import Gate, left_out
from turnwise.data.acts.phrases import PhraseBook, Phrases, frequent_forms, short_names
from turnwise.data.acts.slots import Slots, normalised
from turnwise.data.acts.spaces import Beside, Embedded, Embedder, Space, Words
from turnwise.data.acts.splitting import Sentences, main_directions
from turnwise.data.acts.telling import Question, asked, joined
from turnwise.data.acts.turns import apart, around, take_turns

JUST = 0.99
"""distance, at most, of a sentence that was logged: it is not *other*, however odd"""


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
    other: Beside | None = None
    """words with features beside them, if there is something that makes features"""

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
        space, other, features = Words.learn(templates), None, None
        if embed is not None:
            embedded = Embedded.learn(embed, templates, name)
            made = embedded.vectors(templates)
            features = main_directions(made, counts, seed)
            other = Beside.learn(space, embedded, made)
        which = np.array([at[u.text] for u in utterances], np.int64)
        texts = main_directions(space.vectors(templates), counts, seed)
        found = Sentences(texts, which, conversation, features)
        return cls(slots, space, templates, counts, found, other)

    def agree(
        self,
        contexts: Mapping[str, Any],
        half: np.ndarray,
        seed: int,
        done: Callable[[str], None] = lambda what: None,
    ) -> None:
        """Acts, and the space to read them in, on which sentences and their contexts [n, G] agree.

        Features are taken if they foretell what stands around beyond what words do, held out.
        """
        s = self.sentences
        found = agreed(self.space.vectors(self.templates), contexts, s.which, half, s.acts, seed)
        done("words agree with what stands around them")
        if found is None:
            return
        if self.other is not None:
            vectors = self.other.vectors(self.templates)
            also = agreed(vectors, contexts, s.which, half, s.acts, seed, found.chances)
            done("features agree with what stands around them")
            if also is not None and rises(also.told, found.told, s.conversation):
                found, self.space = also, self.other
        s.acts = np.unique(found.acts, return_inverse=True)[1]

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
            # As others read its words: those that only what stood around them made an act are far from it.
            chances = softmax(left_out(vectors, acts, self.counts, size, seed), axis=1)
            distances = np.minimum(gate.distance(chances[np.arange(len(acts)), acts]), JUST)
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
    ours, theirs = (None if side is None else side.sentences for side in sides)
    at = take_turns(corpus, ours, theirs, (a, o), gists, seed, done)
    asks = asked(corpus, *at.finest)
    curves: list[list[dict[str, float]]] = [[], []]
    books, codes = [agent, partner], [at.agent.copy(), at.partner.copy()]
    at_rows = (np.arange(n), spoke)
    for i, side in enumerate(sides):
        if side is None:
            continue
        fine = at.finest[i] if i == 0 else at.finest[i][spoke] - 1
        path = at.joins[i]
        if count is not None:
            path = joined(asks[i], fine, count, apart(corpus, i, at, gists, seed))
        assert path is not None
        curves[i] = path.curve(asks[i], fine)
        side.sentences.acts[side.sentences.which] = path.number[fine]
        codes[i][at_rows[i]] = i + path.number[fine]
    for i in (1, 0):  # answers are fewer words, and clearer: what is said around them has had its say
        if (side := sides[i]) is None:
            continue
        contexts = around(corpus, i, codes[0], codes[1], gists)
        side.agree(contexts, corpus.half[at_rows[i]], seed, done)
        codes[i][at_rows[i]] = i + side.sentences.acts[side.sentences.which]
        books[i] = side.book(i == 1, seed)
    agent, partner = books
    assert agent is not None
    return Discovered(agent, partner, asks, (curves[0], curves[1]))


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
