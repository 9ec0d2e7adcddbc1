"""Environments of one's own: what names one, what makes one, and by what it is found again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from turnwise.envs.dialogue import task_words
from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import LaneEnv
from turnwise.recipes.settings.words import as_words
from turnwise.run.errors import SettingError


def module_and_name(name: str) -> tuple[str, str] | None:
    """(module, what is meant in it) of `module:ID`, `module:Class` and `module.Class`; None for other names.

    What stands behind a dot is a class only if it begins as classes do: logs.jsonl is a file.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        module, _, attribute = name.rpartition(".")
        if not (attribute.isidentifier() and attribute[:1].isupper()):
            return None
    parts = module.split(".")
    return (module, attribute) if attribute and all(p.isidentifier() for p in parts) else None


def makes_one(env: Any) -> bool:
    """Whether it is a class or a function, and no environment itself."""
    if isinstance(env, POMDP | VectorEnv | gymnasium.Env) or not isinstance(env, Callable):
        return False
    return isinstance(env, type) or not isinstance(env, LaneEnv)


def rendering(make: Callable[..., Any], render_mode: str | None) -> Callable[[], Any]:
    """What makes an environment that renders, if `make` can be asked for it."""
    if render_mode is None:
        return make
    try:
        taken = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # what is built in may have no signature
        return make
    asks = any(p.name == "render_mode" or p.kind is p.VAR_KEYWORD for p in taken)
    return functools.partial(make, render_mode=render_mode) if asks else make


def name_of(env: Any) -> str:
    """What a run calls an environment that it was given: what it is found by again, if there is that."""
    if isinstance(env, functools.partial):
        name, words = name_of(env.func), dict(env.keywords)
        return name if env.args else task_words(name, words)
    spec = getattr(env, "spec", None)
    if isinstance(spec, EnvSpec):
        if not isinstance(env, gymnasium.Env) or spec.id not in gymnasium.registry:
            return spec.id
        usual = gymnasium.registry[spec.id].kwargs
        own = {k: v for k, v in spec.kwargs.items() if k not in usual or usual[k] != v}
        try:
            as_words(own, "env_kwargs")
        except SettingError:  # an argument that no word can say
            return spec.id
        return task_words(spec.id, own)
    kind = env if isinstance(env, type | FunctionType) else type(env)
    if kind.__module__ == "__main__" or "<" in kind.__qualname__ or not isinstance(env, type | FunctionType):
        return kind.__name__
    return f"{kind.__module__}:{kind.__qualname__}"
