"""What a user names as module:name, looked for in the working directory too."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from turnwise.run.errors import SettingError


def module_named(setting: str, spec: str, module: str) -> Any:
    """A module that a setting names in `spec`. SettingError if it is not there, or cannot be imported."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        # The module itself, or a package above it; anything else is missing inside the user's file.
        if e.name is not None and f"{module}.".startswith(f"{e.name}."):
            raise SettingError(setting, spec, f"a module in {os.getcwd()}, or one installed") from e
        raise SettingError(setting, spec, f"a module that can be imported; it needs {e.name}") from e
    except Exception as e:
        found = f"{type(e).__name__}: {e}"
        raise SettingError(setting, spec, f"a module that can be imported; found {found}") from e


def value_named(setting: str, spec: str, module: str, attribute: str) -> Any:
    """What a module has by that name, or by Class.name. SettingError if there is nothing."""
    found = loaded = module_named(setting, spec, module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [n for n, value in vars(loaded).items() if callable(value) and not n.startswith("_")]
            there = ", ".join(names) or "it has none"
            raise SettingError(setting, spec, f"a class or function of {module}: {there}")
        found = getattr(found, part)
    return found


def callable_named(setting: str, spec: str, module: str, attribute: str) -> Callable[..., Any]:
    """A class or function of a module. SettingError if there is none of that name."""
    found = value_named(setting, spec, module, attribute)
    if not callable(found):
        raise SettingError(setting, spec, f"a class or function; found {type(found).__name__}")
    return found


def function_named(setting: str, spec: str) -> Callable[..., Any]:
    """The function that `module:function` names. SettingError if there is none."""
    module, _, attribute = spec.partition(":")
    if not module or not attribute:
        raise SettingError(setting, spec, "module:function")
    return callable_named(setting, spec, module, attribute)
