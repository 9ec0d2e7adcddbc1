"""A POMDP that somebody wrote in Python: a dict of functions, or the name of one in a module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from turnwise.envs.pomdp import POMDP
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.modules import value_named

_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MADE = "a POMDP, the parts of one by name (POMDP.from_functions), or a function that makes either"


def own_problem(given: Any) -> POMDP | None:
    """The problem of a dict, or of `package.module:name`; None if `given` is neither.

    InputError says what could not be found or made.
    """
    if isinstance(given, Mapping):
        return POMDP.from_functions(**given)
    found = imported(given) if isinstance(given, str) else None
    if found is None:
        return None
    if isinstance(found, Mapping):
        found = POMDP.from_functions(**{"name": given.partition(":")[2], **found})
    if not isinstance(found, POMDP):
        raise InputError(f"{given} is {type(found).__name__}; expected {_MADE}")
    return found


def imported(name: str) -> Any:
    """What `package.module:name` is, or makes if it is a function or a class; None for any other text.

    The module is looked for in the working directory too. InputError says what could not be found or made.
    """
    if not _NAMED.fullmatch(name):
        return None
    module, _, attribute = name.partition(":")
    try:
        found = value_named("problem", name, module, attribute)
    except SettingError as e:
        raise InputError(f"{name}: expected {e.expected}") from e
    if callable(found):
        try:
            return found()
        except TypeError as e:
            raise InputError(f"{name}: {e}; expected a function without arguments that makes it") from e
    return found
