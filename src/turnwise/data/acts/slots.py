"""What differs between two sentences of one meaning and can be told by its form: numbers, names, addresses.

    "Call me at +49 30 1234567, Anna."   <->   "Call me at {number}, {name}."   {number: ..., name: ...}

A template and its fillers give back the text, letter by letter. Numbers of one digit stay words: two hats
are not three hats. A capital inside a sentence makes a name only if its word is rare and never written small;
which words those are is learnt from logs (`Slots.learn`).

Whoever says a template fills its slots from the talk. An agent of the logs may make its numbers up ("Take
shirt no. 73."), and then no talk can: `own_words` finds such sentences, and what was said with them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from turnwise.data.acts.codebook import Utterance
from turnwise.envs.dialogue import Message

# What stands first takes a place first. No group may match the empty text, and none goes back over what it
# has read (possessive repeats): text of others must not take quadratic time.
_FORMS = re.compile(
    r"(?P<url>\b(?:https?://|www\.)[^\s<>\"']{1,2000}(?<![.,;:!?)]))"
    r"|(?P<email>\b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+)"
    r"|(?P<time>\b\d{1,2}:\d{2}(?::\d{2})?(?:\s?[aApP][mM]\b)?|\b\d{1,2}\s?[aApP][mM]\b)"
    r"|(?P<date>\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}[./]\d{1,2}[./]\d{2,4}\b)"
    r"|(?P<money>[$€£¥]\s?\d++(?:[.,]\d++)*+|\b\d++(?:[.,]\d++)*+\s?(?:[€£]|(?:USD|EUR|GBP|dollars|euros|pounds)\b))"
    r"|(?P<code>\b(?!\d+(?:st|nd|rd|th)\b)(?=[A-Za-z-]{0,40}\d)(?=[\d-]{0,40}[A-Za-z])"
    r"[A-Za-z\d]++(?:-[A-Za-z\d]++)*+|#\d++)"
    r"|(?P<number>(?:\+|\b)\d{2,}+(?:[.,\s/-]\d++)*+%?|\b\d[.,]\d++(?:[.,]\d++)*+%?)"
)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
KINDS = ("url", "email", "time", "date", "money", "code", "number", "name")
"""what a slot may be called"""
RARE = 0.005
"""share of messages that a word may be in at most and still be a name: what is in more carries meaning"""
MOSTLY = 0.5
"""share of the times from which on a slot counts as one that the talk fills"""
BELIEVED = 4.0
"""times that the share of a kind, on its side, counts for beside those that a sentence was said"""
SOMEBODYS = frozenset({"name", "email"})
"""kinds of which one that was said but once may be a customer's, known from elsewhere: it is not repeated"""
FORMS = 20
"""sentences that are kept, at most, of those that were said in place of one with slots"""
OwnWords = Mapping[str, tuple[tuple[str, int], ...]]
"""by normalised template: (sentence, times), the most frequent first"""


class Template(NamedTuple):
    """A text without its fillers, and them, in the order of their slots."""

    text: str
    fillers: tuple[tuple[str, str], ...]
    """(kind, what stood there)"""


@dataclass(frozen=True)
class Slots:
    """Which words are names; all other slots are known by their form."""

    names: frozenset[str] = frozenset()

    @classmethod
    def learn(cls, texts: Iterable[tuple[str, int]]) -> Slots:
        """Names in texts, each with how often it was said.

        A name is a word that is written with a capital inside a sentence and never small, in less than .5% of
        the texts, and that stands where other such words stand: the word before it is before two of them at
        least. So a word that is always in one phrase stays a word.
        """
        small, inside, total = set[str](), Counter[str](), 0
        before: dict[str, set[str]] = {}
        for text, count in texts:
            total += count
            found = [*_WORD.finditer(text)]
            for i, m in enumerate(found):
                word = m.group()
                if not word[0].isupper():
                    small.add(word.lower())
                elif i and not re.search(r"[.!?:\n]", text[found[i - 1].end() : m.start()]) and len(word) > 1:
                    inside[word] += count
                    before.setdefault(found[i - 1].group().lower(), set()).add(word)
        rare = {
            w for w, n in inside.items() if w.lower() not in small and n < RARE * total and not w.isupper()
        }
        exchanged = {w for words in before.values() if len(words & rare) > 1 for w in words & rare}
        return cls(frozenset(exchanged))

    def cut(self, text: str) -> Template:
        """The text with its slots named, and what stood in them. Braces of the text are doubled."""
        taken = [(m.start(), m.end(), m.lastgroup or "") for m in _FORMS.finditer(text)]
        if self.names:
            free = [m for m in _WORD.finditer(text) if m.group() in self.names]
            taken += [
                (m.start(), m.end(), "name")
                for m in free
                if not any(a < m.end() and m.start() < b for a, b, _ in taken)
            ]
        parts, fillers, at = list[str](), list[tuple[str, str]](), 0
        for start, end, kind in sorted(taken):
            parts += [_doubled(text[at:start]), f"{{{kind}}}"]
            fillers.append((kind, text[start:end]))
            at = end
        return Template("".join([*parts, _doubled(text[at:])]), tuple(fillers))

    def values(self, messages: Sequence[Message]) -> dict[str, list[str]]:
        """What stood in slots of a conversation, by kind: the latest mention first, each value once."""
        found: dict[str, list[str]] = {}
        for m in reversed(messages):
            for kind, value in reversed(self.cut(m.content).fillers):
                if value not in (values := found.setdefault(kind, [])):
                    values.append(value)
        return found


def _doubled(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def joined(template: Template) -> str:
    """The text that was cut."""
    left = iter(template.fillers)
    return _with(template.text, lambda kind: next(left)[1])


@lru_cache(maxsize=1 << 17)
def kinds_of(template: str) -> tuple[str, ...]:
    """The kinds of a template's slots, in their order."""
    kinds: list[str] = []

    def note(kind: str) -> str:
        kinds.append(kind)
        return ""

    _with(template, note)
    return tuple(kinds)


def filled(template: str, values: Mapping[str, Sequence[str]]) -> str | None:
    """The template with values of a conversation (`Slots.values`) in its slots.

    Slots of one kind take its values in turn, and the last one again if there are fewer. None if the
    conversation has no value of a kind: then nobody can say this sentence in it.
    """
    kinds = kinds_of(template)
    if any(not values.get(kind) for kind in kinds):
        return None
    seen = Counter[str]()

    def value(kind: str) -> str:
        at = min(seen[kind], len(values[kind]) - 1)
        seen[kind] += 1
        return values[kind][at]

    return _with(template, value)


_PARTS = re.compile(r"\{\{|\}\}|\{[a-z]+\}")


def _with(template: str, value: Callable[[str], str]) -> str:
    """The template with `value(kind)` in each slot, and single braces."""

    def one(m: re.Match[str]) -> str:
        part = m.group()
        return part[0] if part in ("{{", "}}") else value(part[1:-1])

    return _PARTS.sub(one, template)


_TOKEN = re.compile(r"\{[a-z]+\}|[^\W_]+(?:'[^\W_]+)*|[?€$£%]")


def words_of(template: str) -> list[str]:
    """Words, slots and question marks of a template, without case: what is compared."""
    text = unicodedata.normalize("NFKC", template).replace("’", "'").casefold()
    return _TOKEN.findall(text)


def normalised(template: str) -> str:
    """What two sentences have in common that differ in case, spaces or punctuation alone."""
    return " ".join(words_of(template))


def own_words(utterances: Iterable[Utterance], slots: Slots) -> OwnWords:
    """What a side says itself where its sentences have slots that the talk before could not fill.

    A slot is filled from the talk if the talk has something of its kind, whoever said it. A kind of slot in a
    sentence is the side's own if that was so in less than half of the times that it was said: with `c` of `n`
    times, and the share `p` of all times that the side said something of the kind,

        (c + BELIEVED p) / (n + BELIEVED) < MOSTLY

    Then the sentence has other forms beside its template: those that were said while the talk had nothing of
    these kinds, letter by letter but for the slots that are not its own. What somebody else brought into a
    conversation is in none of them, and of `SOMEBODYS` only what was said twice or more.
    """
    cut: dict[str, Template] = {}

    def kinds(text: str) -> frozenset[str]:
        if text not in cut:
            cut[text] = slots.cut(text)
        return frozenset(kind for kind, _ in cut[text].fillers)

    said: defaultdict[str, Counter[tuple[str, frozenset[str]]]] = defaultdict(Counter)
    for u in utterances:
        if has := kinds(u.text):
            missing = has.difference(*(kinds(m.content) for m in u.before))
            said[normalised(cut[u.text].text)][u.text, missing] += 1
    times, filled_times = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for key, forms in said.items():
        for (text, missing), count in forms.items():
            for kind in kinds(text):
                times[key, kind] += count
                filled_times[key, kind] += 0 if kind in missing else count
    of_kind, filled_of_kind = Counter[str](), Counter[str]()
    for (key, kind), count in times.items():
        of_kind[kind] += count
        filled_of_kind[kind] += filled_times[key, kind]
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for key, forms in said.items():
        own = set[str]()
        for kind in {kind for text, _ in forms for kind in kinds(text)}:
            share = filled_of_kind[kind] / of_kind[kind]
            c, n = filled_times[key, kind], times[key, kind]
            if (c + BELIEVED * share) / (n + BELIEVED) < MOSTLY:
                own.add(kind)
        literal = Counter[str]()
        for (text, missing), count in forms.items():
            if own and own <= missing:
                literal[_as_said(cut[text], own)] += count
        least = 1 if own.isdisjoint(SOMEBODYS) else 2
        ranked = sorted(literal.items(), key=lambda each: (-each[1], each[0]))
        if ranked := [each for each in ranked if each[1] >= least]:
            found[key] = tuple(ranked[:FORMS])
    return found


def _as_said(template: Template, kinds: Collection[str]) -> str:
    """The template with what stood in its slots of these kinds."""
    left = iter(template.fillers)

    def one(m: re.Match[str]) -> str:
        part = m.group()
        if part in ("{{", "}}"):
            return part
        kind, value = next(left)
        return _doubled(value) if kind in kinds else part

    return _PARTS.sub(one, template.text)
