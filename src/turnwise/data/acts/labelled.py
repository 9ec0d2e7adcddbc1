"""Codebooks whose acts somebody knows: by the field `act` of the log, by a function, or by the sentence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from turnwise.data.acts.codebook import OTHER, Utterance
from turnwise.data.acts.gate import Gate
from turnwise.data.acts.phrases import (
    Labels,
    PhraseBook,
    Phrases,
    Way,
    field_label,
    frequent_forms,
    short_names,
)
from turnwise.data.acts.slots import Slots
from turnwise.data.acts.spaces import Space, Words
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.modules import function_named

Meaning = Callable[[str, Sequence[Message]], str]
"""(what is said, the messages before it) -> the name of its act"""
SENTENCES = 256
"""acts, at most, of which each is a sentence: the most frequent ones"""
REACH = 0.9
"""cosine distance of sparse words at which a sentence is like no other"""


def by_field(
    utterances: Sequence[Utterance], setting: str, other: bool, space: Space | None = None
) -> PhraseBook:
    """Acts that the log names. An utterance without a name is read by the nearest sentence that has one.

    Several messages in a row have the acts of all of them: "greet + ask". `setting` is what an error speaks
    of: SettingError if no message has an act. `other`: whether there is an act for what is like nothing.
    """
    if not any(field_label(u) is not None for u in utterances):
        expected = "sentence, discover or module:function: no message of that side has a field act"
        raise SettingError(setting, "field", expected)
    return _labelled("field", utterances, field_label, other, space)


def by_function(
    utterances: Sequence[Utterance],
    function: Meaning | str,
    setting: str,
    other: bool,
    space: Space | None = None,
) -> PhraseBook:
    """Acts by a function of what is said and of the messages before it, itself or as `module:function`."""
    labels, source = function_label(function, setting)
    return _labelled("function", utterances, labels, other, space, source)


def function_label(function: Meaning | str, setting: str) -> tuple[Labels, str]:
    """The function as something that names an utterance's act, and its own name."""
    if isinstance(function, str):
        source, found = function, function_named(setting, function)
    elif callable(function):
        found = function
        source = f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"
    else:
        raise SettingError(setting, function, "a function of a text and the messages before it")

    def label(u: Utterance) -> str:
        def at() -> str:
            return f"{setting} {source}: message {len(u.before) + 1} of a conversation, {u.text[:60]!r}"

        try:
            name = found(u.text, u.before)
        except Exception as error:  # anybody's function may raise anything
            raise InputError(f"{at()}: {type(error).__name__}: {error}") from error
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{at()}: gave {name!r}; expected the name of an act")
        return name

    return label, source


def by_sentence(
    utterances: Sequence[Utterance], other: bool, space: Space | None = None, least: int = 2
) -> PhraseBook:
    """Each different sentence is an act, without case, punctuation and what stands in its slots.

    The 256 most frequent ones are, if they were said `least` times; what is left is *other*.
    """
    slots = Slots.learn(Counter(u.text for u in utterances).items())
    forms = frequent_forms(_templates(Counter(u.text for u in utterances), slots))
    ranked = sorted(forms.values(), key=lambda form: (-form[1], form[0]))
    kept = [form for form in ranked if form[1] >= least][:SENTENCES] or ranked[:1]
    rest = ranked[len(kept) :]
    other = other or bool(rest)
    names = short_names([t for t, _ in kept], taken=[OTHER])
    phrases = Phrases(
        tuple(t for t, _ in [*kept, *rest]),
        np.array([*range(len(kept)), *[len(kept)] * len(rest)], np.int64),
        np.array([n for _, n in [*kept, *rest]], np.int64),
        np.array([0.0] * len(kept) + [1.0] * len(rest)),
    )
    found = space or Words.learn(phrases.templates)
    names = [*names, *([OTHER] if other else [])]
    return PhraseBook(
        "sentence", tuple(names), phrases, slots, found, len(kept) if other else None, reach=REACH
    )


def _labelled(
    way: Way,
    utterances: Sequence[Utterance],
    labels: Labels,
    other: bool,
    space: Space | None,
    source: str | None = None,
) -> PhraseBook:
    """A book of the names that `labels` gives, the most frequent first, and of the sentences they are for."""
    slots = Slots.learn(Counter(u.text for u in utterances).items())
    said: defaultdict[str, Counter[str]] = defaultdict(Counter)
    totals = Counter[str]()
    for u in utterances:
        if (name := labels(u)) is not None:
            said[name][u.text] += 1
            totals[name] += 1
    names = sorted(totals, key=lambda name: (-totals[name], name))
    rows = [
        (template, act, count)
        for act, name in enumerate(names)
        for template, count in frequent_forms(_templates(said[name], slots)).values()
    ]
    phrases = Phrases(
        tuple(r[0] for r in rows),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.int64),
        np.zeros(len(rows)),
    )
    found = space or Words.learn(list(dict.fromkeys(phrases.templates)))
    at = names.index(OTHER) if OTHER in names else len(names) if other else None
    names = names if OTHER in names or not other else [*names, OTHER]
    vectors = found.vectors(phrases.templates)
    gate = Gate.learn(vectors, phrases.acts, phrases.counts, len(names), seed=0)
    return PhraseBook(way, tuple(names), phrases, slots, found, at, REACH, labels, source, gate)


def _templates(texts: Counter[str], slots: Slots) -> Counter[str]:
    found = Counter[str]()
    for text, count in texts.items():
        found[slots.cut(text).text] += count
    return found
