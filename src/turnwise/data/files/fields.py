"""Single fields of rows: what their values may be, and the words of refusals."""

from __future__ import annotations

import json
import re
from typing import Any

from turnwise.run.errors import InputError

LARGEST = 1e30  # float32, which training runs in, holds nothing above 3.4e38, sums and products included
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*", re.ASCII)


def read_number(value: Any, where: str, field: str) -> float:
    """The value as a float, or InputError if it is no number that training can hold.

    Text that spells a number is one: tables without types have nothing else.
    """
    number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= LARGEST:
        raise unexpected(where, field, f"a finite number (at most {LARGEST:g} in size)", value)
    return float(number)


def read_worth(value: Any, where: str, field: str) -> float:
    """A reward or an outcome: a number, or true and false, which are 1 and 0."""
    flag = _flag(value)
    return read_number(value, where, field) if flag is None else float(flag)


def without_nulls(value: Any) -> Any:
    """Metadata without nulls in its objects: Arrow fills in every key that any row has."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON can smuggle in half a character (a lone surrogate)."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def read_text(value: Any, where: str, field: str, hint: str = "") -> str:
    """The value, or InputError if it is no text; `hint` follows the words "a string"."""
    if not isinstance(value, str) or not is_text(value):
        raise unexpected(where, field, f"a string{hint}", value)
    return value


def read_flag(value: Any, where: str, field: str) -> bool:
    """The value as true or false, which text may spell; InputError if it is neither."""
    flag = _flag(value)
    if flag is None:
        raise unexpected(where, field, "true or false", value)
    return flag


def _flag(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def read_name(value: Any, where: str, field: str) -> str | None:
    """An id or the name of somebody as text, None if there is none; InputError if it cannot be one."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "" or not is_text(str(value)):
        raise unexpected(where, field, "text or a whole number", value)
    return str(value)


# --- words of errors ----------------------------------------------------------------------------------


def unexpected(where: str, field: str, expected: str, value: Any) -> InputError:
    """The refusal of `value` in a field (empty: all of it), to be raised: `where: field: expected ...`."""
    place = f"{where}: {field}" if field else where
    return InputError(f"{place}: expected {expected}; found {_short(value)}")


def _short(value: Any) -> str:
    """A value as JSON, cut to one short line of printable characters; a missing one is `nothing`."""
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return cut(text if text.isprintable() else json.dumps(value, default=repr))


def one_line(error: BaseException) -> str:
    """What an error of somebody else's says, without its line breaks and cut to 160 characters."""
    return cut(" ".join(str(error).split()) or type(error).__name__, 160)


def cut(text: str, length: int = 60) -> str:
    """A text of at most `length` characters, the last of them an ellipsis if it was longer."""
    return text if len(text) <= length else text[: length - 1] + "…"
