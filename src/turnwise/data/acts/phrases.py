"""The logged sentences of a side with their acts, and how an utterance is read by them.

    what the log says of it, or a function   ->   the sentence itself   ->   its words

The first of these that knows an utterance decides. Words are read by a regression on the known sentences
(`gate.py`), or by the sentence that is most like them if each sentence is an act. Nothing is left over: what
is not clearly any act is the act *other*, where there is one, and the likeliest where there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy import sparse

from turnwise.data.acts.codebook import Example, Heard, Utterance
from turnwise.data.acts.gate import Gate
from turnwise.data.acts.roles import Roles
from turnwise.data.acts.slots import OwnWords, Slots, normalised, own_words
from turnwise.data.acts.spaces import Space

Way = Literal["field", "function", "sentence", "discover"]
"""how the acts of a side came about: from a field of the log, by a function, each sentence for itself, or
discovered"""
Labels = Callable[[Utterance], str | None]
"""the name of an utterance's act, where something beside its words tells it"""
BLOCK = 2048
"""utterances that are compared with all sentences at a time"""


@dataclass(frozen=True)
class Phrases:
    """M logged sentences. A sentence that the log gave several acts has several rows.

    `acts` [M] are their acts, `counts` [M] how often each was logged, `distances` [M] how far it is from what
    its act stands for. `own` is what was said in place of sentences whose slots the talk could not fill.
    """

    templates: tuple[str, ...]
    acts: np.ndarray
    counts: np.ndarray
    distances: np.ndarray
    own: OwnWords = field(default_factory=dict)

    @cached_property
    def known(self) -> dict[str, int]:
        """The row of each sentence, without case and punctuation: where it was logged most often."""
        found: dict[str, int] = {}
        for i in np.argsort(self.counts, kind="stable"):
            found[normalised(self.templates[i])] = int(i)
        return found

    def of(self, act: int) -> list[Example]:
        """The sentences of an act, the most frequent first, then the most typical."""
        rows = np.flatnonzero(self.acts == act)
        rows = rows[np.lexsort((self.distances[rows], -self.counts[rows]))]
        return [
            Example(
                text := self.templates[i],
                int(self.counts[i]),
                float(self.distances[i]),
                self.own.get(normalised(text), ()) if self.own else (),
            )
            for i in rows
        ]


@dataclass(frozen=True)
class PhraseBook:
    """A codebook that knows sentences.

    `other`: the act of what is like nothing; None if every utterance gets the act of the nearest sentence.
    `reach`: cosine distance at which a sentence that was never seen is too far to have an act; distances that
    are read are in units of it, so that 1 and more is too far. `labels`: what tells an act before the words
    do. `source`: the function that does, as `module:function`.
    """

    way: Way
    names: tuple[str, ...]
    phrases: Phrases
    slots: Slots
    space: Space
    other: int | None
    reach: float = 1.0
    labels: Labels | None = field(default=None, repr=False)
    source: str | None = None
    gate: Gate | None = field(default=None, repr=False)
    """what reads words that were never said; None: the nearest sentence does"""
    roles: Roles | None = field(default=None, repr=False)
    """what reads of them what is alike in several acts; None if nothing is, or if nobody has looked"""
    stored: Any = field(default=None, repr=False, compare=False)
    """[M, D], the logged sentences' vectors, if they are not to be made again"""

    def read(self, utterances: Sequence[Utterance]) -> Heard:
        """The act of each. InputError if the function fails at one."""
        acts, distances = np.zeros(len(utterances), np.int64), np.zeros(len(utterances))
        templates, unseen = [""] * len(utterances), list[int]()
        cache: dict[str, str] = {}
        for i, u in enumerate(utterances):
            name = None if self.labels is None else self.labels(u)
            if name is not None and name in self._numbers:
                acts[i] = self._numbers[name]
                continue
            if name is not None and self.other is not None:
                acts[i], distances[i] = self.other, 1.0
                continue
            if u.text not in cache:
                cache[u.text] = self.slots.cut(u.text).text
            templates[i] = cache[u.text]
            row = self.phrases.known.get(normalised(templates[i]))
            if row is None:
                unseen.append(i)
            else:
                acts[i], distances[i] = self.phrases.acts[row], self.phrases.distances[row]
        if not unseen:
            return Heard(acts, distances)
        acts[unseen], distances[unseen] = self.nearest([templates[i] for i in unseen])
        evidence: list[np.ndarray | None] = [None] * len(utterances)
        if self.gate is not None:
            for at in range(0, len(unseen), BLOCK):
                rows = unseen[at : at + BLOCK]
                for i, told in zip(rows, self._told([templates[i] for i in rows]), strict=True):
                    evidence[i] = told
        return Heard(acts, distances, tuple(evidence))

    def _told(self, templates: Sequence[str]) -> np.ndarray:
        """[n, acts], evidence of words that were never seen; 0 for the act *other*, which is no meaning."""
        assert self.gate is not None
        vectors = self.space.vectors(templates)
        found = self.gate.evidence(vectors)
        found = np.pad(found, ((0, 0), (0, len(self.names) - found.shape[1])))
        return found if self.roles is None else found * self.roles.evidence(vectors)

    def nearest(self, templates: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(act, distance), each [n], by words alone, whether or not they were logged."""
        different = list(dict.fromkeys(templates))
        if not self.phrases.templates:
            found = np.full(len(different), self.other or 0), np.ones(len(different))
        else:
            parts = [self._nearest(different[at : at + BLOCK]) for at in range(0, len(different), BLOCK)]
            found = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        place = {t: i for i, t in enumerate(different)}
        rows = [place[t] for t in templates]
        return found[0][rows], found[1][rows]

    def _nearest(self, templates: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        vectors = self.space.vectors(templates)
        if self.gate is not None:
            acts, distances = self.gate.read(vectors)
            if self.other is not None:
                acts = np.where(distances >= 1, self.other, acts)
                distances = np.where(acts == self.other, np.maximum(distances, 1.0), distances)
            return acts, distances
        alike = vectors @ self.logged.T  # [n, M]
        alike = alike.toarray() if sparse.issparse(alike) else np.asarray(alike)
        row = alike.argmax(1)
        distances = (1 - alike[np.arange(len(row)), row]) / self.reach
        acts = self.phrases.acts[row].astype(np.int64)
        if self.other is not None:
            acts[distances >= 1] = self.other
            distances = np.where(acts == self.other, np.maximum(distances, 1.0), distances)
        return acts, distances

    def with_roles(self, roles: np.ndarray, follows: np.ndarray, seed: int) -> PhraseBook:
        """The book that also reads roles [acts] (-1: none) off words; itself if that tells nothing.

        `follows` [A, acts]: how often each act followed each one of the other side.
        """
        if self.gate is None:
            return self
        of = np.array(roles, np.int64)
        if self.other is not None:
            of[self.other] = -1  # it is no meaning
        said = self.phrases
        found = Roles.learn(self.logged, said.acts, said.counts, self.gate, of, follows, seed)
        return replace(self, roles=found)

    def with_own_words(self, utterances: Sequence[Utterance]) -> PhraseBook:
        """The book of these utterances, with what is said where a talk cannot fill slots."""
        return replace(self, phrases=replace(self.phrases, own=own_words(utterances, self.slots)))

    def knows(self, text: str) -> bool:
        """Whether the sentence was logged."""
        return normalised(self.slots.cut(text).text) in self.phrases.known

    def examples(self, act: int) -> list[Example]:
        """The logged sentences of an act, the most frequent first."""
        return self.phrases.of(act)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def logged(self) -> Any:
        """[M, D], the logged sentences as vectors."""
        return self.space.vectors(self.phrases.templates) if self.stored is None else self.stored


def field_label(utterance: Utterance) -> str | None:
    """The acts that the log gives an utterance's messages, each once, in order; None if one has none."""
    if not utterance.acts or any(act is None for act in utterance.acts):
        return None
    return " + ".join(dict.fromkeys(str(act) for act in utterance.acts))


def frequent_forms(templates: Counter[str]) -> dict[str, tuple[str, int]]:
    """By normalised sentence: how it is written most often, and how often it was said in all its forms."""
    best: dict[str, tuple[int, str]] = {}
    totals = Counter[str]()
    for template, count in templates.items():
        key = normalised(template)
        totals[key] += count
        if key not in best or (-count, template) < best[key]:
            best[key] = (-count, template)
    return {key: (best[key][1], totals[key]) for key in best}


def short_names(texts: Sequence[str], taken: Iterable[str] = (), most: int = 48) -> list[str]:
    """Names that can be read in a graph: the texts, shortened, and numbered where two would be the same."""
    used, found = set(taken), list[str]()
    for text in texts:
        plain = " ".join(text.split()) or "(empty)"
        name = base = plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"
        number = 2
        while name in used:
            name, number = f"{base} ({number})", number + 1
        used.add(name)
        found.append(name)
    return found
