"""`KEY=VALUE` words of a command line, and keyword arguments of Python, as one thing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from turnwise.run.errors import SettingError


def parse_settings(words: Sequence[str], setting: str = "task_settings") -> dict[str, Any]:
    """`KEY=VALUE` words as keyword arguments: numbers, true, false, null, lists as such, the rest as text.

    One word alone may be all of them as a JSON object. SettingError, of that `setting`, for a word of another
    form, and for a key that is given twice.
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return _of_json(words[0], setting)
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (equals and key.isidentifier()):
            raise SettingError(setting, word, "KEY=VALUE")
        if key in found:
            raise SettingError(setting, word, f"each key once; {key} is given twice")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def _of_json(word: str, setting: str) -> dict[str, Any]:
    try:
        found = json.loads(word)
    except json.JSONDecodeError as e:
        raise SettingError(setting, word, f"KEY=VALUE, or a JSON object ({e})") from e
    wrong = [key for key in found if not key.isidentifier()]
    if wrong:
        raise SettingError(setting, word, f"names of arguments; found {wrong[0]!r}")
    return found


def as_words(given: Mapping[str, Any] | Sequence[str], setting: str) -> tuple[str, ...]:
    """Keyword arguments as `KEY=VALUE` words, which `parse_settings` reads again; words as they are.

    SettingError for a value that no word can say.
    """
    if not isinstance(given, Mapping):
        return tuple(given)
    words = []
    for key, value in given.items():
        try:
            word = json.dumps(value)
        except TypeError as e:
            expected = f"numbers, texts, lists and such; {key} is {type(value).__name__}"
            raise SettingError(setting, dict(given), expected) from e
        plain = isinstance(value, str)
        if plain:
            try:
                json.loads(value)
                plain = False  # it would be read back as a number, true or null
            except json.JSONDecodeError:
                pass
        words.append(f"{key}={value if plain else word}")
    return tuple(words)
