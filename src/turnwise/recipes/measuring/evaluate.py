"""Measure what was trained: a policy in live conversations, an agent or a plan in whole episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from turnwise.recipes.environments import with_arguments
from turnwise.recipes.measuring import act_conversations, conversations, episodes, solved, worlds
from turnwise.recipes.measuring.evaluation import Evaluation
from turnwise.recipes.settings.engine import EngineSettings
from turnwise.recipes.settings.measure import ConversationSettings, EpisodeSettings
from turnwise.recipes.solved import Solved
from turnwise.recipes.trained import Actor, ActPolicy, Policy, World, load
from turnwise.run.errors import SettingError


def place_of(trained: Actor | World | Solved, on: Any, env_kwargs: Mapping[str, Any] | Sequence[str]) -> Any:
    """The environment to measure in, `on` or else that of training, with arguments if some are given."""
    if not env_kwargs:
        return on
    return with_arguments(trained.env if on is None else on, env_kwargs)


def evaluate(trained: Any, on: Any = None, *, quiet: bool = False, **settings: Any) -> Evaluation:
    """Measure what `fit` or `load` returned, or a run folder, with a 95% interval.

    A `Policy` or an `ActPolicy` holds live conversations with a task: `on` is a task (`turnwise.HelpDesk()`),
    the name of a built-in one, or `package.module:Task`; by default the one that its logs come from, if they
    say so. An `Actor`, or the plan of a `World`, plays whole episodes: `on` is an environment, by default the
    one that it learnt in. So does a `Solved` POMDP: `on` is by default the problem that was solved.
    `settings`: fields of `ConversationSettings` (`episodes`, `seed`, `lanes`, `betas`, `validation_episodes`,
    `temperature`; `engine`, servers that speak for a policy) or of `EpisodeSettings` (`episodes`, `seed`,
    `lanes`, `greedy`, `horizon`), and `env_kwargs`, arguments of the environment. SettingError for a
    policy whose logs name no task, if none is given.

    With a run folder, evaluation.json and the report page are written into it.
    """
    if isinstance(trained, str | Path):
        trained = load(trained)
    if isinstance(trained, Actor | World | Solved):
        on = place_of(trained, on, settings.pop("env_kwargs", ()))
    names = [f.name for f in fields(EngineSettings)]
    servers = EngineSettings(**{name: settings.pop(name) for name in names if name in settings})
    if isinstance(trained, Policy):
        return conversations.measure(trained, on, ConversationSettings(**settings), servers, quiet=quiet)
    if servers.engine is not None:
        raise SettingError("engine", servers.engine, conversations.WORDS_ONLY)
    if isinstance(trained, ActPolicy):
        return act_conversations.measure(trained, on, ConversationSettings(**settings), quiet=quiet)
    if isinstance(trained, Actor):
        return episodes.measure(trained, on, EpisodeSettings(**settings), quiet=quiet)
    if isinstance(trained, World):
        return worlds.measure(trained, on, EpisodeSettings(**settings), quiet=quiet)
    if isinstance(trained, Solved):
        return solved.measure(trained, on, EpisodeSettings(**settings), quiet=quiet)
    raise TypeError(f"{type(trained).__name__} is neither a policy nor an agent; expected what fit returned")
