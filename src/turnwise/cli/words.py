"""Words of a command line: which belong to a flag, and which stand alone."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from turnwise.run.errors import InputError

_ANY = 1_000_000


@dataclass(frozen=True)
class Words:
    """A command line, taken apart."""

    flags: dict[str, list[str]]
    """Values of each flag, by the name of its field; a switch has none."""
    alone: list[str]
    """Words that belong to no flag."""
    rest: list[str]
    """All words but those. A flag that takes several values stands there once, however often it was given."""


def split_words(kind: type[Any], args: Sequence[str]) -> Words:
    """Take apart the words for the flags of the dataclass `kind` and of those in it.

    A switch takes no word, a flag that takes several values takes all words up to the next flag, and any
    other flag takes one.
    """
    takes, words = _takes(kind), list(args)
    flags: dict[str, list[str]] = {}
    alone: list[str] = []
    rest: list[str] = []
    gathered: dict[str, list[str]] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            alone.append(word)
            continue
        flag, equals, value = word.partition("=")
        name = flag.lstrip("-").replace("-", "_")
        most = takes.get(name, 1)
        values = [value] if equals else []
        while not equals and len(values) < most and words and not _is_flag(words[0]):
            values.append(words.pop(0))
        flags.setdefault(name, []).extend(values)
        if most == _ANY:
            gathered.setdefault(flag, []).extend(values)
        else:
            rest += [word] if equals else [flag, *values]
    for flag, values in gathered.items():
        rest += [flag, *values]
    return Words(flags, alone, rest)


def with_path(kind: type[Any], args: Sequence[str], *flags: str) -> list[str]:
    """The same words, with those that stand alone as the values of `flags`, in this order.

    InputError for more of them than flags, or for one beside its flag.
    """
    found = split_words(kind, args)
    free = [flag for flag in flags if flag not in found.flags]
    if len(found.alone) > len(free):
        given = [*found.alone, *(f"--{flag}" for flag in flags if flag in found.flags)]
        names = " and ".join(f"one {flag}, by itself or after --{flag}" for flag in flags)
        raise InputError(f"expected {names}; found {' and '.join(given[:4])}")
    named = [word for flag, path in zip(free, found.alone, strict=False) for word in (f"--{flag}", path)]
    return [*named, *found.rest]


def _takes(kind: type[Any]) -> dict[str, int]:
    """How many words each flag takes at most."""
    found: dict[str, int] = {}
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        if is_dataclass(hint):
            found |= _takes(typing.cast(type[Any], hint))
        elif hint is bool:
            found[field.name] = found[f"no_{field.name}"] = 0
        else:
            found[field.name] = _ANY if typing.get_origin(hint) is tuple else 1
    return found


def _is_flag(word: str) -> bool:
    # A number may be negative, and -h is the one flag with a single dash.
    return word.startswith("--") or word == "-h"
